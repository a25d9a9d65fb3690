"""fsspec filesystems of our own, where fsspec has none that will do."""

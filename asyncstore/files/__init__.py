"""The local end of a transfer: files read, files written whole, threads to do it in."""

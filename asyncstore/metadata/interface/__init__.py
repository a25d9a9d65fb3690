"""The interface of `MetadataStore`, a file for each entity."""

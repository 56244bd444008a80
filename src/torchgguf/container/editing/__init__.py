"""Edit the metadata of GGUF files."""

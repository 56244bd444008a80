"""Change the metadata of a GGUF file."""

"""Read a GGUF file: its header, its tensors, the other files of a split model."""

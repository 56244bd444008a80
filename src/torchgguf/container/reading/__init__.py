"""Read GGUF files: headers, tensors, and models that are split into several files."""

"""The vocabulary that a GGUF file states."""

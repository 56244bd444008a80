"""Whole checkpoints and files in, whole files out: folder to GGUF and back, one type to another."""

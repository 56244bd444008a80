"""Whole checkpoints and files in, whole files out: GGUF from Hugging Face folders and back, one type to another."""

"""GGUF files as PyTorch models: run them, fine-tune them, write them back."""

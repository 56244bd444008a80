"""From files to models and back: GGUF files and Hugging Face checkpoints."""

"""Where tokenizers come from: GGUF files, files of Hugging Face, and older files."""

"""Write GGUF files: one for a model, or several."""

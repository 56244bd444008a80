"""Write a GGUF file, or a model as several of them."""

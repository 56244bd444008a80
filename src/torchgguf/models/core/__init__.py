"""What loading and saving need to know of a model, whatever its architecture. It opens no file."""

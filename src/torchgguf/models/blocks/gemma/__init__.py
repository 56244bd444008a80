"""Parts of Gemma's models."""

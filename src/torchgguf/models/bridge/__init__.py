"""The same model as an object of transformers, and the reverse. Weights are shared, not copied."""

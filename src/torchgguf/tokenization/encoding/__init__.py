"""Texts to tokens and back, in batches."""

"""Architectures: one file each, with its config, its tables and its modules."""

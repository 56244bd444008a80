"""Parts of architectures: layers, stacks, heads, and rows of their tables."""

"""Parts that architectures are assembled from: layers, stacks, heads, and rows of their tables."""

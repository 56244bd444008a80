"""Layers of the gated delta rule (Yang et al. 2024, arXiv 2412.06464), and models of these and attention."""

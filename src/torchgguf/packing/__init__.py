"""What to pack to which type, and the packing of whole files, tensor by tensor. Knows no model."""

"""Methods that pack weights while a checkpoint is loaded."""

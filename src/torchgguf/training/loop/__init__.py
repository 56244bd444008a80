"""The loop of training: steps, losses, checkpoints, processes."""

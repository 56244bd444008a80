"""The error of training."""


class TrainingError(ValueError):
    """A training that cannot go on, or cannot start; the message states why, and what to do."""

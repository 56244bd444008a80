"""What users call on every model: `PreTrainedModel` and its config."""

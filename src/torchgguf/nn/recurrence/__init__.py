"""Recurrences along a text: what layers compute that remember it in a state of a fixed size."""

from torchgguf.nn.recurrence.convolution import causal_convolution
from torchgguf.nn.recurrence.gated_delta import gated_delta_rule
from torchgguf.nn.recurrence.selective_scan import selective_scan
from torchgguf.nn.recurrence.state_space import state_space_scan

__all__ = ["causal_convolution", "gated_delta_rule", "selective_scan", "state_space_scan"]

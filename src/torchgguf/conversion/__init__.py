"""Convert whole models: a folder to a GGUF file and back, or a GGUF file to other types."""

from torchgguf.conversion.from_checkpoint import convert_to_gguf, verify_converted
from torchgguf.conversion.requantize import RequantizationPlan, plan_requantization, requantize
from torchgguf.conversion.to_checkpoint import convert_to_checkpoint
from torchgguf.conversion.verification import Verification, verify, verify_requantized

__all__ = [
    "RequantizationPlan",
    "Verification",
    "convert_to_checkpoint",
    "convert_to_gguf",
    "plan_requantization",
    "requantize",
    "verify",
    "verify_converted",
    "verify_requantized",
]

"""Lets vLLM serve GPT-2 with `--model-impl transformers`. vLLM finds and loads this by itself.

Without it vLLM 0.32 drops the biases of GPT-2's attention and stops: see `transformers_backend`. The mended
class takes the place of vLLM's by name only: vLLM imports models when and where it is safe to touch a GPU.
"""

import logging
from importlib.util import find_spec

BACKEND = "TransformersForCausalLM"
"""What vLLM calls the class that runs a language model of transformers, and what ours is called."""

# A child of vLLM's own _logger, so that it is shown where and how vLLM's lines are.
_logger = logging.getLogger(f"vllm.{__name__}")


def register() -> None:
    """Put the mended class in the place of vLLM's, which calls this in each of its processes."""
    try:
        from vllm import ModelRegistry
    except ImportError as error:
        warn_of_misfit(str(error))
        return
    module = "vllm.model_executor.models.transformers"
    if BACKEND in ModelRegistry.get_supported_archs() and find_spec(module):
        ModelRegistry.register_model(BACKEND, f"{__name__}.transformers_backend:{BACKEND}")
    else:
        warn_of_misfit(f"there is no {BACKEND} in {module}")


def warn_of_misfit(reason: str) -> None:
    """Say that something to be mended was not found. The server may do well without."""
    _logger.warning(
        "torchgguf's plugin does not fit this vLLM: %s. GPT-2 with `--model-impl transformers` may fail.",
        reason,
    )

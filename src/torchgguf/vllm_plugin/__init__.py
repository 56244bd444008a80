"""A plugin that lets vLLM serve GPT-2 with `--model-impl transformers`. vLLM finds and loads it.

Without it vLLM 0.32 drops the biases of GPT-2's attention and stops, see `transformers_backend`. The
corrected class replaces vLLM's by name only, because vLLM imports models when and where access to a GPU is
safe.
"""

import logging
from importlib.util import find_spec

BACKEND = "TransformersForCausalLM"
"""The name of the class that runs a language model of transformers, in vLLM and here."""

# A child of vLLM's logger, so that messages appear where and how vLLM's do.
_logger = logging.getLogger(f"vllm.{__name__}")


def register() -> None:
    """Replace vLLM's class by the corrected one; vLLM calls this in each of its processes."""
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
    """Log that something to be corrected was not found. The server may work without it.

    Args:
        reason: what was not found.
    """
    _logger.warning(
        "torchgguf's plugin does not match this vLLM: %s. GPT-2 with `--model-impl transformers` may fail.",
        reason,
    )

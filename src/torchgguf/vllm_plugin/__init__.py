"""Lets vLLM serve GPT-2 with `--model-impl transformers`. vLLM finds and loads this by itself.

Without it vLLM 0.32 drops the biases of GPT-2's attention and stops: see `transformers_backend`. The mended
classes take the place of vLLM's by name only: vLLM imports models when and where it is safe to touch a GPU.
"""

import logging

BACKENDS = ("TransformersForCausalLM", "TransformersEmbeddingModel", "TransformersForSequenceClassification")
"""What vLLM calls the classes that run a text model of transformers, and what ours are called."""

# A child of vLLM's own logger, so that it is shown where and how vLLM's lines are.
logger = logging.getLogger(f"vllm.{__name__}")


def register() -> None:
    """Put the mended classes in the place of vLLM's, which calls this in each of its processes."""
    try:
        from vllm import ModelRegistry

        missing = [name for name in BACKENDS if name not in ModelRegistry.get_supported_archs()]
        if missing:
            raise ImportError(f"it has no {', '.join(missing)}")
    except ImportError as error:
        logger.warning(
            "torchgguf's plugin does not fit this vLLM and does nothing, so that GPT-2 with"
            " `--model-impl transformers` may fail: %s",
            error,
        )
        return
    for name in BACKENDS:
        ModelRegistry.register_model(name, f"{__name__}.transformers_backend:{name}")

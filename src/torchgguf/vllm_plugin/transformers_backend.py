"""vLLM's classes that run a model of transformers, mended where GPT-2 fails in them (as of vLLM 0.32).

Each mend acts only where its fault shows; every other model runs as in stock vLLM.
"""

import logging
from itertools import chain
from typing import Any

from torch import Tensor, nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.gpt2.modeling_gpt2 import GPT2Attention
from vllm.model_executor.models import transformers as stock
from vllm.model_executor.models.transformers.base import Base

from torchgguf.vllm_plugin.ignored_names import only_unexpected

logger = logging.getLogger(f"vllm.{__name__}")

stock_attention = ALL_ATTENTION_FUNCTIONS["vllm"]


def attention_forward(
    module: nn.Module, query: Tensor, *args: Any, **kwargs: Any
) -> tuple[Tensor, Tensor | None]:
    """Attend as vLLM does, with an output of the shape that transformers' attention functions give.

    That of vLLM is `(tokens, heads * head_size)`. GPT-2 keeps all but the last two dimensions of it; other
    models remember the shape of their input.

    Args:
        module: the layer of the model that asks.
        query: `(1, heads, tokens, head_size)`: vLLM runs its whole batch as one sequence.
        args: what else vLLM's function takes, as it is.
        kwargs: the same.

    Returns:
        `(1, tokens, heads, head_size)` for GPT-2, else what vLLM gives; and the attention weights, which vLLM
        does not keep.
    """
    output, weights = stock_attention(module, query, *args, **kwargs)
    if isinstance(module, GPT2Attention) and output.dim() == 2:
        output = output.view(1, query.shape[2], query.shape[1], -1)
    return output, weights


ALL_ATTENTION_FUNCTIONS.register("vllm", attention_forward)


class KeepsOwnWeights(Base):
    """Drops of a checkpoint only what the model does not have."""

    def _create_hf_to_vllm_mapper(self) -> None:
        super()._create_hf_to_vllm_mapper()
        mapper = self.hf_to_vllm_mapper
        own = [name for name, _ in chain(self.model.named_parameters(), self.model.named_buffers())]
        mended = {
            pattern: only_unexpected(pattern, own) if new_name is None else pattern
            for pattern, new_name in mapper.orig_to_new_regex.items()
        }
        # The order counts: patterns are tried one after the other.
        mapper.orig_to_new_regex = {mended[old]: new for old, new in mapper.orig_to_new_regex.items()}
        wrong = [old.pattern for old, new in mended.items() if new is not old]
        if wrong:
            logger.info(
                "torchgguf: weights of %s are kept that vLLM would have dropped as %s",
                type(self.model).__name__,
                ", ".join(map(repr, sorted(wrong))),
            )


class TransformersForCausalLM(KeepsOwnWeights, stock.TransformersForCausalLM):
    """Text generation."""


class TransformersEmbeddingModel(KeepsOwnWeights, stock.TransformersEmbeddingModel):
    """Embeddings."""


class TransformersForSequenceClassification(KeepsOwnWeights, stock.TransformersForSequenceClassification):
    """Labels of whole texts."""

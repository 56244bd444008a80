"""The class of vLLM that runs a language model of transformers, mended where GPT-2 fails in it (vLLM 0.32).

Each mend acts only where its fault shows; every other model runs as in stock vLLM.
"""

import logging
from collections.abc import Callable
from itertools import chain
from typing import Any

from torch import Tensor, nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from vllm.model_executor.models import transformers as stock

from torchgguf.vllm_plugin import warn_of_misfit
from torchgguf.vllm_plugin.ignored_names import only_unexpected

_logger = logging.getLogger(f"vllm.{__name__}")

AttentionOutput = tuple[Tensor, Tensor | None]
"""What each head adds to each token, and the attention weights (or None: vLLM does not keep them)."""


def in_the_shape_gpt2_wants(attention: Callable[..., AttentionOutput]) -> Callable[..., AttentionOutput]:
    """Give GPT-2 what transformers' attention functions give: `(1, tokens, heads, head_size)`.

    vLLM gives `(tokens, heads * head_size)`. GPT-2 keeps all but the last two dimensions of what it gets;
    other models remember the shape of their input.
    """

    # vLLM runs its whole batch as one sequence: `query` is (1, heads, tokens, head_size).
    def attend(module: nn.Module, query: Tensor, *args: Any, **kwargs: Any) -> AttentionOutput:
        output, weights = attention(module, query, *args, **kwargs)
        if output.dim() == 2 and getattr(module.config, "model_type", None) == "gpt2":
            output = output.view(1, query.shape[2], query.shape[1], -1)
        return output, weights

    return attend


if "vllm" in ALL_ATTENTION_FUNCTIONS:
    ALL_ATTENTION_FUNCTIONS.register("vllm", in_the_shape_gpt2_wants(ALL_ATTENTION_FUNCTIONS["vllm"]))
else:
    warn_of_misfit("transformers does not know its attention")


class TransformersForCausalLM(stock.TransformersForCausalLM):
    """Drops of a checkpoint only what the model does not have."""

    def _create_hf_to_vllm_mapper(self) -> None:
        super()._create_hf_to_vllm_mapper()
        renamings = getattr(self.hf_to_vllm_mapper, "orig_to_new_regex", None)
        if renamings is None:
            warn_of_misfit("weights are named in another way")
            return
        own = [name for name, _ in chain(self.model.named_parameters(), self.model.named_buffers())]
        kept: dict[Any, str | None] = {}  # in the same order: patterns are tried one after the other
        for pattern, new_name in renamings.items():
            mended = only_unexpected(pattern, own) if new_name is None else pattern
            kept[mended] = new_name
            if mended is not pattern:
                _logger.info(
                    "torchgguf: weights of %s are kept that vLLM would have dropped as %r",
                    type(self.model).__name__,
                    pattern.pattern,
                )
        self.hf_to_vllm_mapper.orig_to_new_regex = kept

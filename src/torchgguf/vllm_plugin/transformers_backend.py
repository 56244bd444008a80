"""A correction of vLLM's class that runs a language model of transformers: GPT-2 fails in vLLM 0.32.

Each correction applies only where the error occurs. Every other model runs as in vLLM itself.
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
"""The output of each head for each token, and the attention weights, which are None in vLLM."""


def in_the_shape_gpt2_wants(attention: Callable[..., AttentionOutput]) -> Callable[..., AttentionOutput]:
    """Wrap an attention function, so that GPT-2 gets outputs `(1, tokens, heads, head_size)`.

    This is the shape in transformers, while vLLM returns `(tokens, heads * head_size)`. GPT-2 joins the last
    two dimensions of the output and keeps the others. Other models restore the shape of their input.

    Args:
        attention: vLLM's attention function.
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
    warn_of_misfit("transformers has no attention function of vLLM")


class TransformersForCausalLM(stock.TransformersForCausalLM):
    """vLLM's class, which now drops only weights of a checkpoint that the model does not have."""

    def _create_hf_to_vllm_mapper(self) -> None:
        super()._create_hf_to_vllm_mapper()
        renamings = getattr(self.hf_to_vllm_mapper, "orig_to_new_regex", None)
        if renamings is None:
            warn_of_misfit("names of weights have no orig_to_new_regex")
            return
        own = [name for name, _ in chain(self.model.named_parameters(), self.model.named_buffers())]
        kept: dict[Any, str | None] = {}  # in the same order, because patterns are tried one after the other
        for pattern, new_name in renamings.items():
            restricted = only_unexpected(pattern, own) if new_name is None else pattern
            kept[restricted] = new_name
            if restricted is not pattern:
                _logger.info(
                    "torchgguf: kept weights of %s that vLLM would have dropped as %r",
                    type(self.model).__name__,
                    pattern.pattern,
                )
        self.hf_to_vllm_mapper.orig_to_new_regex = kept

"""Baichuan and Baichuan 2 (Yang et al. 2023, arXiv 2309.10305): Llamas, the larger with linear biases.

transformers has no such class: models come from GGUF files only, and parameters have Llama's names.
"""

from torch import Tensor

from torchgguf.models.blocks import heads
from torchgguf.models.blocks.alibi import AlibiModel
from torchgguf.models.blocks.plain_decoder import (
    INTERLEAVED_ROWS,
    PLAIN_RULES,
    PlainDecoderConfig,
)
from torchgguf.models.blocks.windows import NO_WINDOW
from torchgguf.models.core.architecture import Architecture
from torchgguf.models.core.config import config_dataclass
from torchgguf.models.core.config_map import Harmless

# Of the 7B and of the 13B models. Files state nothing else of how positions are marked, and llama.cpp
# (src/models/baichuan.cpp) marks none in models of other depths.
_LAYERS_WITH_ROTATION, _LAYERS_WITH_BIASES = 32, 40


@config_dataclass
class BaichuanConfig(PlainDecoderConfig):
    """Fields of all decoders, with other defaults.

    Models of 32 layers have rotary embedding, those of 40 layers linear biases, others neither.
    """

    model_type = "baichuan"

    vocab_size: int = 125696
    max_position_embeddings: int = 4096
    bos_token_id: int | None = 1
    eos_token_id: int | list[int] | None = 2
    pad_token_id: int | None = 0


BAICHUAN = Architecture(
    gguf="baichuan",
    config_class=BaichuanConfig,
    rules=(*PLAIN_RULES, NO_WINDOW, Harmless(("attention.max_alibi_bias",))),
    rows=INTERLEAVED_ROWS,
    states_head=True,
)


class BaichuanModel(AlibiModel, architecture=BAICHUAN):
    """Baichuan without a head."""

    def make_slopes(self, config: BaichuanConfig) -> Tensor | None:
        """Return by how much scores fall with the distance, in models of one depth only."""
        return super().make_slopes(config) if config.num_hidden_layers == _LAYERS_WITH_BIASES else None

    def rotation(self, config: BaichuanConfig) -> str | None:
        """Return the kind of rotation, in models of one depth only."""
        return "default" if config.num_hidden_layers == _LAYERS_WITH_ROTATION else None


class BaichuanForCausalLM(heads.ForCausalLM, base=BaichuanModel): ...

"""InternLM2 and 2.5 (Cai et al. 2024, arXiv 2403.17297): Llamas with a `general.architecture` of their own.

transformers has no such class: InternLM's checkpoints contain code, which is not run, and other names of
weights. So models come from GGUF files only; their parameters have Llama's names.
"""

from torchgguf.models.blocks import heads
from torchgguf.models.blocks.plain_decoder import (
    INTERLEAVED_ROWS,
    PLAIN_RULES,
    PlainDecoderConfig,
    PlainDecoderModel,
)
from torchgguf.models.blocks.windows import NO_WINDOW
from torchgguf.models.core.architecture import Architecture
from torchgguf.models.core.config import config_dataclass


@config_dataclass
class InternLM2Config(PlainDecoderConfig):
    """Fields of all decoders, with other defaults."""

    model_type = "internlm2"

    vocab_size: int = 92544
    num_key_value_heads: int | None = 8
    max_position_embeddings: int = 32768
    rms_norm_eps: float = 1e-5
    bos_token_id: int | None = 1
    eos_token_id: int | list[int] | None = 2


INTERNLM2 = Architecture(
    gguf="internlm2",
    config_class=InternLM2Config,
    rules=(*PLAIN_RULES, NO_WINDOW),
    rows=INTERLEAVED_ROWS,
    states_head=True,
)


class InternLM2Model(PlainDecoderModel, architecture=INTERNLM2):
    """InternLM2 without a head."""


class InternLM2ForCausalLM(heads.ForCausalLM, base=InternLM2Model): ...

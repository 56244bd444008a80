"""What every way to choose tokens needs to know: texts, rules for scores, when to end, what to record."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from torchgguf.generation.context import Context
from torchgguf.generation.logits_process import LogitsProcessor, Processor
from torchgguf.generation.outputs import Record
from torchgguf.generation.stopping import Criterion


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What `Decoding` and `BeamSearch` have in common.

    Attributes:
        context: the prompts, and the model that reads them.
        max_new_tokens: the highest number of new tokens of each text.
        processors: change scores, whatever way tokens are chosen.
        warpers: change scores further, for sampling.
        do_sample: draw tokens; otherwise choose the best ones.
        criteria: end texts.
        generator: draws; None: torch's own.
        record: what the output is to hold beside tokens; None: nothing.
        lasting: whether something outside keeps what is made, which inference mode does not allow.
    """

    context: Context
    max_new_tokens: int
    processors: Sequence[Processor] = ()
    warpers: Sequence[LogitsProcessor] = ()
    do_sample: bool = False
    criteria: Sequence[Criterion] = ()
    generator: torch.Generator | None = None
    record: Record | None = None
    lasting: bool = False

    @property
    def mode(self) -> Any:
        """The class of the mode to run in."""
        return torch.no_grad if self.lasting else torch.inference_mode

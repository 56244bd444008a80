"""`TokenLosses`: a model as a module that returns losses of tokens, without logits of other positions.

Shape letters: N tokens that are learnt.
"""

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from torchgguf.training.data import IGNORED
from torchgguf.training.loop.batches import Batch


class TokenLosses(nn.Module):
    """Computes the loss of each learnt token. Parts of the model run inside its `forward`, as FSDP requires.

    Args:
        model: a model with a language head.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model: Any = model

    def forward(self, batch: Batch) -> Tensor:
        """Return the losses of the learnt tokens `(N,)`, in nats, in float32."""
        states = self.model.base_model(
            input_ids=batch.input_ids,
            attention_mask=batch.attention_mask,
            position_ids=batch.position_ids,
            use_cache=False,
        ).last_hidden_state
        learnt = batch.labels != IGNORED
        logits = self.model.score(states[learnt])
        return F.cross_entropy(logits.float(), batch.labels[learnt], reduction="none")

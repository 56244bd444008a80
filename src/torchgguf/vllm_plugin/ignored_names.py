"""Names of weights that a checkpoint may hold and a model need not have."""

import re
from collections.abc import Iterable


def only_unexpected(pattern: re.Pattern[str], own: Iterable[str]) -> re.Pattern[str]:
    """The pattern, made to miss the model's own weights.

    Transformers means `_keys_to_ignore_on_load_unexpected` for weights that the model does not have. GPT-2's
    `attn.bias` is there for the causal masks that old checkpoints hold; searched for in every name, it finds
    `h.0.attn.c_attn.bias` too.

    Args:
        pattern: is searched for in names.
        own: the names of the weights that the model has. In a checkpoint a prefix may stand before them.

    Returns:
        `pattern` itself if it finds none of them.
    """
    found = [re.escape(name) for name in own if pattern.search(name)]
    if not found:
        return pattern
    return re.compile(rf"^(?!(?:.+\.)?(?:{'|'.join(found)})$).*?(?:{pattern.pattern})")

"""Names of weights that a checkpoint may contain but a model does not have."""

import re
from collections.abc import Iterable


def only_unexpected(pattern: re.Pattern[str], own: Iterable[str]) -> re.Pattern[str]:
    """Restrict a pattern so that it does not match the weights of the model.

    In transformers `_keys_to_ignore_on_load_unexpected` applies to weights that the model does not have. For
    GPT-2 `attn.bias` stands for the causal masks in old checkpoints; searched for in every name, it also
    matches `h.0.attn.c_attn.bias`.

    Args:
        pattern: the pattern, searched for in names.
        own: the names of the weights of the model. In a checkpoint they may have a prefix.

    Returns:
        The restricted pattern, or `pattern` itself if it matches none of the weights.
    """
    found = [re.escape(name) for name in own if pattern.search(name)]
    if not found:
        return pattern
    return re.compile(rf"^(?!(?:.+\.)?(?:{'|'.join(found)})$).*?(?:{pattern.pattern})")

"""A tokenizer as files of Hugging Face's, in the layout that transformers 5 and vLLM read."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokenizers import models

from torchgguf.container.atomic import atomic_write
from torchgguf.tokenization.kinds.bpe import spell_byte_level
from torchgguf.tokenization.kinds.wrapping import state, steps, wrapping_processor
from torchgguf.tokenization.sources.declared import ROLES
from torchgguf.tokenization.sources.files import CONFIG, MORE_TEMPLATES, PIPELINE, TEMPLATE

if TYPE_CHECKING:
    from torchgguf.tokenization.tokenizer import Tokenizer

# transformers makes tokenizers of most other classes anew, from the vocabulary alone and by rules of its own;
# for this one it takes tokenizer.json as it is. Its older versions know the class too.
_CLASS = "PreTrainedTokenizerFast"
# What other classes are told, which this one would misunderstand, or what other files say.
_DROPPED = ("auto_map", "added_tokens_decoder", "chat_template", "add_bos_token", "add_eos_token", "legacy")


def save_pretrained(tokenizer: Tokenizer, folder: Path, prefix: str | None) -> tuple[str, ...]:
    """Write the files and return their paths. ValueError for a template whose name is no file's name."""
    files = file_contents(tokenizer, prefix)
    for file, text in files.items():
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(folder / file) as out:
            out.write(text.encode())
    return tuple(str(folder / file) for file in files)


def file_contents(tokenizer: Tokenizer, prefix: str | None = None) -> dict[str, str]:
    """The texts that `save_pretrained` writes, by the files' names."""
    start = f"{prefix}-" if prefix else ""
    files = {
        start + CONFIG: _json(_config(tokenizer), indent=2),
        start + PIPELINE: _json(_pipeline(tokenizer)),
    }
    for name, template in tokenizer.chat_templates.items():
        if not re.fullmatch(r"[\w-]+", name):
            raise ValueError(f"the chat template {name!r} cannot be saved: a file cannot have its name")
        default = name == "default"
        files[start + (TEMPLATE if default else f"{MORE_TEMPLATES}/{name}.jinja")] = template
    return files


def save_vocabulary(tokenizer: Tokenizer, folder: Path, prefix: str | None) -> tuple[str, ...]:
    """Write vocab.json and merges.txt and return their paths. ValueError unless it is byte-level BPE."""
    model = tokenizer._model
    if not isinstance(model.backend.model, models.BPE) or model.spell is not spell_byte_level:
        raise ValueError("only byte-level BPE has vocab.json and merges.txt: use save_pretrained")
    folder.mkdir(parents=True, exist_ok=True)
    return tuple(model.backend.model.save(str(folder), prefix))


def _json(value: Any, **options: Any) -> str:
    return json.dumps(value, ensure_ascii=False, **options) + "\n"


def _config(tokenizer: Tokenizer) -> dict[str, Any]:
    stated = {key: value for key, value in tokenizer._source.config.items() if key not in _DROPPED}
    special = tokenizer.vocabulary.special
    # A token that texts are not searched for would become one by being named here.
    named = {
        f"{role}_token": tokenizer.vocabulary.tokens[i]
        for role in ROLES
        if (i := tokenizer.roles.get(role)) is not None and i in special
    }
    if tokenizer.chat_control_tokens is not None:
        stated["chat_control_tokens"] = list(tokenizer.chat_control_tokens)
    return {
        **{key: value for key, value in stated.items() if key.removesuffix("_token") not in ROLES},
        **named,
        **(tokenizer.added_ends or {}),
        "model_max_length": tokenizer.model_max_length,
        "padding_side": tokenizer.padding_side,
        "truncation_side": tokenizer.truncation_side,
        "clean_up_tokenization_spaces": tokenizer.clean_up_tokenization_spaces,
        "model_input_names": list(tokenizer.model_input_names),
        "tokenizer_class": _CLASS,
    }


def _pipeline(tokenizer: Tokenizer) -> dict[str, Any]:
    backend, vocabulary = tokenizer._model.backend, tokenizer.vocabulary
    pipeline: dict[str, Any] = json.loads(backend.to_str())
    # Offsets are the other business of a processor: those who look after them stay.
    kept = [
        step for step in steps(state(backend.post_processor), "processors") if step["type"] == "ByteLevel"
    ]
    wrapping = tokenizer.wrapping()
    if any(piece.ids for piece in wrapping.pair):
        kept.append(wrapping_processor(wrapping, vocabulary.tokens))
    pipeline["post_processor"] = (
        {"type": "Sequence", "processors": kept} if len(kept) > 1 else kept[0] if kept else None
    )
    return pipeline

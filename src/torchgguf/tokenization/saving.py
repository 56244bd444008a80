"""A tokenizer as files of Hugging Face's, in the layout that transformers 5 and vLLM read."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import models

from torchgguf.container.atomic import atomic_write
from torchgguf.tokenization.chat.templates import ChatTemplates
from torchgguf.tokenization.encoding.decoder import TokenDecoder
from torchgguf.tokenization.encoding.encoder import Encoder
from torchgguf.tokenization.kinds.bpe import spell_byte_level
from torchgguf.tokenization.kinds.model import TokenizerModel
from torchgguf.tokenization.kinds.wrapping import pipeline_state, pipeline_steps, wrapping_processor
from torchgguf.tokenization.sources.declared import ROLES
from torchgguf.tokenization.sources.files import MORE_TEMPLATES, PIPELINE, TEMPLATE, TOKENIZER_CONFIG

# transformers builds tokenizers of most other classes from the vocabulary alone, by rules of its own; with
# this one it reads tokenizer.json as it is. Its older versions know the class too.
_CLASS = "PreTrainedTokenizerFast"
# Settings of other classes, which this one would misunderstand, and those that other files state.
_DROPPED = ("auto_map", "added_tokens_decoder", "chat_template", "add_bos_token", "add_eos_token", "legacy")


def write_files(files: Mapping[str, str], folder: Path) -> tuple[str, ...]:
    """Write texts by their files' names into a folder, which is created if it is missing.

    Returns:
        The paths of the files.
    """
    for file, text in files.items():
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(folder / file) as out:
            out.write(text.encode())
    return tuple(str(folder / file) for file in files)


def file_contents(
    encoder: Encoder, decoder: TokenDecoder, chat: ChatTemplates, prefix: str | None = None
) -> dict[str, str]:
    """Return the contents of the files that a tokenizer is saved as, by the files' names.

    Args:
        encoder: the part of the tokenizer that encodes.
        decoder: the part that decodes.
        chat: the part with the chat templates.
        prefix: what the names begin with, before a hyphen.

    Raises:
        ValueError: the name of a chat template is invalid as the name of a file.
    """
    start = f"{prefix}-" if prefix else ""
    files = {
        start + TOKENIZER_CONFIG: _json(_config(encoder, decoder, chat), indent=2),
        start + PIPELINE: _json(_pipeline(encoder)),
    }
    for name, template in chat.chat_templates.items():
        if not re.fullmatch(r"[\w-]+", name):
            raise ValueError(f"the name of the chat template {name!r} is invalid as the name of a file")
        default = name == "default"
        files[start + (TEMPLATE if default else f"{MORE_TEMPLATES}/{name}.jinja")] = template
    return files


def write_vocabulary(model: TokenizerModel, folder: Path, prefix: str | None) -> tuple[str, ...]:
    """Write vocab.json and merges.txt into a folder, which is created if it is missing.

    Args:
        model: a byte-level BPE.
        folder: where to write.
        prefix: what the names begin with, before a hyphen.

    Returns:
        The paths of the files.

    Raises:
        ValueError: the model is of another kind.
    """
    if not isinstance(model.backend.model, models.BPE) or model.spell is not spell_byte_level:
        raise ValueError("only byte-level BPE has vocab.json and merges.txt: use save_pretrained")
    folder.mkdir(parents=True, exist_ok=True)
    return tuple(model.backend.model.save(str(folder), prefix))


def _json(value: Any, **options: Any) -> str:
    return json.dumps(value, ensure_ascii=False, **options) + "\n"


def _config(encoder: Encoder, decoder: TokenDecoder, chat: ChatTemplates) -> dict[str, Any]:
    tokens = encoder.tokens
    stated = {key: value for key, value in tokens.source.config.items() if key not in _DROPPED}
    special = tokens.vocabulary.special
    # A token that texts are not searched for would become one by being named here.
    named = {
        f"{role}_token": tokens.vocabulary.tokens[i]
        for role in ROLES
        if (i := tokens.roles.get(role)) is not None and i in special
    }
    if chat.chat_control_tokens is not None:
        stated["chat_control_tokens"] = list(chat.chat_control_tokens)
    return {
        **{key: value for key, value in stated.items() if key.removesuffix("_token") not in ROLES},
        **named,
        **(encoder.surroundings.added_ends or {}),
        "model_max_length": encoder.model_max_length,
        "padding_side": encoder.padding_side,
        "truncation_side": encoder.truncation_side,
        "clean_up_tokenization_spaces": decoder.clean_up_tokenization_spaces,
        "model_input_names": list(encoder.model_input_names),
        "tokenizer_class": _CLASS,
    }


def _pipeline(encoder: Encoder) -> dict[str, Any]:
    backend = encoder.tokens.model.backend
    pipeline: dict[str, Any] = json.loads(backend.to_str())
    # A processor also corrects offsets: the steps that do are kept.
    kept = [
        step
        for step in pipeline_steps(pipeline_state(backend.post_processor), "processors")
        if step["type"] == "ByteLevel"
    ]
    wrapping = encoder.surroundings.wrapping()
    if any(piece.ids for piece in wrapping.pair):
        kept.append(wrapping_processor(wrapping, encoder.tokens.vocabulary.tokens))
    pipeline["post_processor"] = (
        {"type": "Sequence", "processors": kept} if len(kept) > 1 else kept[0] if kept else None
    )
    return pipeline

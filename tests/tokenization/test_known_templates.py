"""The chat templates of the models that llama.cpp knows: their text is that of transformers."""

import itertools
from pathlib import Path
from typing import Any

import pytest
from transformers.utils.chat_template_utils import render_jinja_template

from tests.support import LLAMA_CPP
from tests.tokenization.conversations import CONVERSATIONS, TOOL
from tests.tokenization.test_malformed import BPE
from torchgguf.tokenization import ChatTemplateError, Tokenizer

TEMPLATES = sorted((LLAMA_CPP / "models" / "templates").glob("*.jinja"))
# JSON of what an iterator yields, which transformers' filter refuses.
BEYOND = "Object of type generator is not JSON serializable"
# They ask for variables of their own, without which nothing is shown.
PARTICULAR = {"CohereForAI-c4ai-command-r-plus-tool_use", "fireworks-ai-llama-3-firefunction-v2"}


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_gguf(BPE)


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.stem)
def test_texts_of_transformers(tokenizer: Tokenizer, path: Path) -> None:
    source = path.read_text()
    variables = {"bos_token": "<s>", "eos_token": "</s>", "enable_thinking": True}
    shown = 0
    for chat, tools, prompt in itertools.product(CONVERSATIONS.values(), (None, [TOOL]), (False, True)):
        plain = [{key: value for key, value in message.items() if value is not None} for message in chat]
        options: dict[str, Any] = {"tools": tools, "add_generation_prompt": prompt, **variables}
        every = {**tokenizer.special_tokens_map, **options}
        try:
            (expected,), _ = render_jinja_template([plain], chat_template=source, **every)
        except Exception as error:
            if str(error) != BEYOND:
                with pytest.raises(ChatTemplateError):
                    tokenizer.apply_chat_template(chat, chat_template=source, tokenize=False, **options)
            continue
        mine = tokenizer.apply_chat_template(chat, chat_template=source, tokenize=False, **options)
        assert mine == expected
        shown += 1
    assert shown >= 2 or path.stem in PARTICULAR


def test_there_are_templates() -> None:
    assert len(TEMPLATES) > 60 or not LLAMA_CPP.exists()

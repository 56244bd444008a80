"""Chat templates: which is used, and what it sees."""

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from transformers.utils.chat_template_utils import render_jinja_template

from tests.tokenization.conversations import ASSISTANT, CONVERSATIONS, USER
from tests.tokenization.test_malformed import BPE
from torchgguf.tokenization import ChatTemplateError, Tokenizer, TokenizerError

NAMED = BPE | {
    "tokenizer.chat_template": "{{ bos_token }}default",
    "tokenizer.chat_template.tool_use": "{{ tools | length }} tools",
    "tokenizer.chat_template.rag": "{{ documents[0].title }}",
    "tokenizer.chat_templates": ["tool_use", "rag"],
}


def _render(template: str, messages: Any = (USER,), **options: Any) -> str:
    tokenizer = Tokenizer.from_gguf(BPE)
    return tokenizer.apply_chat_template(list(messages), chat_template=template, tokenize=False, **options)


def test_named_templates() -> None:
    tokenizer = Tokenizer.from_gguf(NAMED)

    def render(**options: Any) -> str:
        return tokenizer.apply_chat_template([USER], tokenize=False, **options)

    assert render() == "<s>default"
    assert render(tools=[{"name": "f"}]) == "1 tools"
    assert render(chat_template="rag", documents=[{"title": "T", "text": ""}]) == "T"
    assert render(chat_template="{{ x }}", x=5) == "5"
    del tokenizer.chat_templates["default"]
    with pytest.raises(ChatTemplateError, match="no default chat template, only those named rag, tool_use"):
        render()


def test_named_templates_are_written() -> None:
    tokenizer = Tokenizer.from_gguf(NAMED)
    assert tokenizer.to_gguf() == NAMED
    tokenizer.chat_templates["short"] = "x"
    tokenizer.chat_templates["rag"] = "y"
    del tokenizer.chat_templates["tool_use"]
    tokenizer.chat_template = None
    written = tokenizer.to_gguf()
    assert {key: written[key] for key in written if "chat" in key} == {
        "tokenizer.chat_templates": ["rag", "short"],
        "tokenizer.chat_template.rag": "y",
        "tokenizer.chat_template.short": "x",
    }
    assert Tokenizer.from_gguf(written).chat_templates == tokenizer.chat_templates
    tokenizer.chat_templates.clear()
    assert not [key for key in tokenizer.to_gguf() if "chat" in key]


def test_a_template_is_compiled_only_when_it_is_used() -> None:
    tokenizer = Tokenizer.from_gguf(BPE | {"tokenizer.chat_template": "{% unheard_of %}"})
    assert tokenizer.encode("ab") == [3]
    with pytest.raises(ChatTemplateError, match="unheard_of"):
        tokenizer.apply_chat_template([USER])


def test_jinja_as_in_transformers() -> None:
    template = (
        "{%- for message in messages %}\n"
        "    {%- if loop.index0 == 3 %}{% break %}{% endif %}\n"
        "  {% generation %}{{ message | tojson }}{% endgeneration %}\n"
        "    {{ message.content | trim | upper }} {{ message | tojson(indent=2) }}\n"
        "{{ message.content.split(' ', 1) }}{{ ' '.join(message.content.splitlines()).strip('e ').zfill(9) }}"
        "{{ '{:>{}}'.format('x', 7) }}{{ '2025-%s' % 3 }}{{ 1 < 2 < 3 }}{{ message in messages }}"
        "{{ 'role' in message }}{{ messages[0] == message }}{{ message.content[1:] }}"
        "{{ [[1], [2]] | sum(start=[]) }}\n"
        "{%- endfor %}\n"
        "{% set ns = namespace(found=false) %}{% set ns.found = true %}{{ ns.found }} {{ 'a' ~ 1 ~ none }}"
        "{{ '%s-%03d' % ('x', 7) }}{{ '{:>5}|{}'.format('y', [1]) }}{{ 'ab' * 3 }}{{ 2 ** 10 }}"
        "{{ [1] + [2] }}{{ range(3) | list }}{{ 'a b'.split() }}{{ dict(a=1) }}"
        "{{ messages | map(attribute='role') | join(',') }}{{ strftime_now('%Y') | length }}"
        "{% macro m(x, y=2) %}[{{ x }}{{ y }}]{% endmacro %}{{ m(1) }}{{ {'a': 1} | items | list }}"
        "{{ 'x' in ['x'] }}{{ messages[-1:] | length }}"
    )
    chats = [chat for chat in CONVERSATIONS.values() if all("content" in message for message in chat)]
    for chat in chats:
        plain = [{key: value for key, value in message.items() if value is not None} for message in chat]
        if any("content" not in message for message in plain):
            continue
        expected, _ = render_jinja_template([plain], chat_template=template)
        assert _render(template, chat) == expected[0]


def test_refusals() -> None:
    with pytest.raises(ChatTemplateError, match=r"failed: only users here$"):
        _render("{{ raise_exception('only users\nhere') }}")
    with pytest.raises(ValueError, match="exclude each other"):
        _render("", add_generation_prompt=True, continue_final_message=True)
    with pytest.raises(ValueError, match="empty"):
        _render("", [])
    with pytest.raises(TypeError, match="JSON schema"):
        _render("", tools=[print])
    with pytest.raises(ChatTemplateError, match="needs a final message"):
        _render("", [{"role": "user"}], continue_final_message=True)
    with pytest.raises(ChatTemplateError, match="omits the final message"):
        _render("nothing", continue_final_message=True)
    with pytest.raises(ChatTemplateError, match="no chat template: pass chat_template="):
        Tokenizer.from_gguf(BPE).apply_chat_template([USER])
    with pytest.raises(TokenizerError, match=r"tokenizer\.chat_template must be a string, got a list"):
        Tokenizer.from_gguf(BPE | {"tokenizer.chat_template": ["x"]})


def test_batches_and_masks(smollm2: Tokenizer) -> None:
    template = (
        "{% for message in messages %}<|im_start|>{{ message.role }}\n"
        "{% if message.role == 'assistant' %}{% generation %}{{ message.content }}<|im_end|>"
        "{% endgeneration %}{% else %}{{ message.content }}<|im_end|>{% endif %}\n{% endfor %}"
    )
    chats = [[USER, ASSISTANT, USER, ASSISTANT], [USER]]
    encoding = smollm2.apply_chat_template(
        chats, chat_template=template, padding=True, return_assistant_tokens_mask=True, return_tensors="pt"
    )
    assert encoding.input_ids.shape == encoding.assistant_masks.shape
    said = encoding.input_ids[0][encoding.assistant_masks[0].bool()]
    assert smollm2.decode(said) == "Hello!\n<|im_end|>" * 2
    assert encoding.assistant_masks[1].sum() == 0
    encoding = smollm2.apply_chat_template(
        [USER, ASSISTANT, USER, {"role": "assistant", "content": "Well, then"}],
        chat_template=template,
        continue_final_message=True,
        return_assistant_tokens_mask=True,
        return_tensors="pt",
    )
    said = encoding.input_ids[0][encoding.assistant_masks[0].bool()]
    assert smollm2.decode(said) == "Hello!\n<|im_end|>Well, then"
    ids = smollm2.apply_chat_template(chats[1], chat_template=template, return_dict=False)
    assert ids == smollm2.encode(
        smollm2.apply_chat_template(chats[1], chat_template=template, tokenize=False)
    )


def test_long_conversations_are_not_too_much() -> None:
    template = (
        "{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}"
        "{{ '<|' + m.role + '|>' ~ m.content | trim }}{% endfor %}"
    )
    messages = [{"role": "user", "content": "word " * 2000}] * 300
    assert len(_render(template, messages)) > 3_000_000


class Secret:
    """What a template must not get hold of."""

    def leak(self) -> str:
        return "leaked"


@dataclass
class Message:
    """A message that is no dict."""

    role: str
    content: Any


def test_templates_get_no_objects() -> None:
    assert _render("{{ x }}{{ x.leak }}", x=Secret()) == "<Secret>"
    message = {"role": "user", "content": [{"type": "image", "image": Secret()}]}
    assert _render("{{ messages[0].content[0].image }}", [message]) == "<Secret>"


def test_objects_like_messages() -> None:
    template = "{% for m in messages %}{{ m.role }}={{ m.content }};{% endfor %}{{ n }}{{ t }}"
    expected = "user=Hi;user=[1];2.5(1, 'a')"
    model = SimpleNamespace(model_dump=lambda: {"role": "user", "content": [np.int64(1)]})  # as pydantic's
    chat: Any = [Message("user", "Hi"), model]
    options: dict[str, Any] = {"n": np.float32(2.5), "t": (1, "a")}
    assert _render(template, chat, **options) == expected
    theirs, _ = render_jinja_template(
        [[{"role": "user", "content": "Hi"}, {"role": "user", "content": [np.int64(1)]}]],
        chat_template=template,
        **options,
    )
    assert theirs == [expected]
    tokenizer = Tokenizer.from_gguf(BPE)
    several: Any = [SimpleNamespace(messages=chat), SimpleNamespace(messages=chat[:1])]
    rendered = tokenizer.apply_chat_template(several, chat_template="{{ messages|length }}", tokenize=False)
    assert rendered == ["2", "1"]
    assert (
        tokenizer.apply_chat_template(several[0], chat_template="{{ messages|length }}", tokenize=False)
        == "2"
    )
    with pytest.raises(TypeError, match="a message must be a dict with a role and content, got 'Hi'"):
        _render("", ["Hi"])
    with pytest.raises(TypeError, match="a document must be a dict with a title and text, got 'Hi'"):
        _render("", documents=["Hi"])


@pytest.mark.parametrize("name", ["reasoning_content", "thinking"])
@pytest.mark.parametrize("given", ["reasoning", "thinking", "reasoning_content"])
def test_continuing_a_thought(name: str, given: str) -> None:
    template = "{% for m in messages %}[{{ m." + name + " | trim }}|{{ m.content }}]{% endfor %}"
    chat = [USER, {"role": "assistant", given: "hm, well ", "content": "x"}]
    for field in ("reasoning_content", given):
        expected, _ = render_jinja_template([chat], chat_template=template, continue_final_message=field)
        assert _render(template, chat, continue_final_message=field) == expected[0]
    with pytest.raises(ChatTemplateError, match="needs a final message with text in 'plan' to continue"):
        _render(template, chat, continue_final_message="plan")


def test_several_templates_at_once() -> None:
    tokenizer = Tokenizer.from_gguf(BPE, chat_template={"default": "a", "rag": "b"})
    assert tokenizer.apply_chat_template([USER], chat_template="rag", tokenize=False) == "b"
    tokenizer.chat_template = {"short": "c"}
    assert tokenizer.chat_templates == {"short": "c"}


def test_nothing_is_generated(smollm2: Tokenizer) -> None:
    with pytest.warns(UserWarning, match="no {% generation %}, so assistant_masks are all 0"):
        encoding = smollm2.apply_chat_template([USER, ASSISTANT], return_assistant_tokens_mask=True)
    assert set(encoding.assistant_masks) == {0}
    assert len(encoding.assistant_masks) == len(encoding.input_ids)

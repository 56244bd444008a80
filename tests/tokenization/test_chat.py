"""Chat templates: which is used, what it sees, what it may do."""

import time
import tracemalloc
from typing import Any

import pytest

from tests.tokenization.conversations import ASSISTANT, CONVERSATIONS, USER
from tests.tokenization.test_malformed import BPE
from torchgguf.tokenization import ChatTemplateError, Tokenizer, TokenizerError, budget

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
    with pytest.raises(ChatTemplateError, match="no chat template but those named rag, tool_use"):
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
    from transformers.utils.chat_template_utils import render_jinja_template

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
    with pytest.raises(ChatTemplateError, match="leaves the final message out"):
        _render("nothing", continue_final_message=True)
    with pytest.raises(ChatTemplateError, match="no chat template: pass chat_template="):
        Tokenizer.from_gguf(BPE).apply_chat_template([USER])
    with pytest.raises(TokenizerError, match=r"tokenizer\.chat_template must be a string, not list"):
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


REACHING_OUT = [
    "{{ ''.__class__ }}",
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
    "{{ raise_exception.__globals__ }}",
    "{{ strftime_now.__globals__['sys'] }}",
    "{{ namespace.__init__.__globals__ }}",
    "{{ messages.append(1) }}",
    "{{ messages[0].update(a=1) }}",
    "{{ messages[0].__setitem__('a', 1) }}",
    "{{ ''|attr('__class__') }}",
    "{{ ['']|map(attribute='__class__')|first }}",
    "{{ '{0.__class__}'.format('') }}",
    "{{ '{a.__class__}'.format_map({'a': ''}) }}",
    "{{ self.__init__.__globals__ }}",
    "{{ self._TemplateReference__context }}",
    "{{ (messages|map('list')).gi_frame }}",
    "{% set ns = namespace(__class__=1) %}{{ ns.__class__ }}",
    "{% set ns = namespace() %}{% set ns.__init__ = 1 %}",
    "{% import 'os' as os %}",
    "{% include '/etc/passwd' %}",
    "{% extends '/etc/passwd' %}",
]


@pytest.mark.parametrize("template", REACHING_OUT)
def test_templates_do_not_reach_pythons_internals(template: str) -> None:
    messages = [dict(USER)]
    try:
        shown = _render(template, messages)
    except ChatTemplateError:
        shown = ""
    assert shown in ("", "Undefined")
    assert messages == [USER]


def test_templates_get_no_objects() -> None:
    class Secret:
        def leak(self) -> str:
            return "leaked"

    assert _render("{{ x }}{{ x.leak }}", x=Secret()) == "<Secret>"


BIG = (
    "{% set s = 'a' * 999999 ~ 'b' %}{% set t = 'a' * 999999 ~ 'c' %}{% set u = 'a' * 999999 ~ 'b' %}"
    "{% set list = [s, t, u]|batch(1000, u)|first %}"
)
DOUBLING = "{%% set ns = namespace(x=%s) %%}{%% for i in range(60) %%}%s{%% endfor %%}"
TOO_MUCH = [
    "{% for i in range(5000) %}{{ '" + "x" * 10_000 + "' }}{% endfor %}",
    "{% for i in range(2000) %}" + "{{ 'a'|center(1000) }}" * 20 + "{% endfor %}",
    "{% for i in range(999999999) %}x{% endfor %}",
    "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "{% for i in range(99999) if range(99999)|sum %}{% endfor %}",
    "{{ range(99999)|select('in', range(99999)|list|reverse|list)|list|length }}",
    "{% macro f(n) %}{% if n %}{% set a = f(n-1) %}{% set b = f(n-1) %}{% endif %}{% endmacro %}{{ f(60) }}",
    "{% for i in range(99999) %}{{ 'x' * 1000 }}{% endfor %}",
    "{% for i in range(99999) %}" + "y" * 5000 + "{% endfor %}",
    "{{ 'a' * 9999999999 }}",
    "{% set x = 9999999999 * 'a' %}",
    "{% set x = [1] * 9999999999 %}",
    "{{ (range(99999)|list * 100)|sort|length }}",
    "{{ 9 ** 999999999 }}",
    "{% set x = (10 ** 5000) ** 5000 %}",
    DOUBLING % ("'a'", "{% set ns.x = ns.x + ns.x %}"),
    DOUBLING % ("'a'", "{% set ns.x = ns.x ~ ns.x %}"),
    DOUBLING % ("'a'", "{% set y %}{{ ns.x }}{{ ns.x }}{% endset %}{% set ns.x = y %}"),
    DOUBLING % ("'a'", "{% set ns.x = '%s%s' % (ns.x, ns.x) %}"),
    DOUBLING % ("'a'", "{% set ns.x = '{0}{0}'.format(ns.x) %}"),
    DOUBLING % ("'a'", "{% set ns.x = [ns.x, ns.x]|join %}"),
    DOUBLING % ("'a'", "{% set ns.x = ns.x|replace('a', 'aa') %}"),
    DOUBLING % ("[1]", "{% set ns.x = [ns.x, ns.x] %}"),
    DOUBLING % ("1", "{% set ns.x = {'a': ns.x, 'b': ns.x} %}"),
    DOUBLING % ("1", "{% set ns.x = dict(a=ns.x, b=ns.x) %}"),
    DOUBLING % ("[1, 1]", "{% set ns.x = (ns.x|batch(2)|list) * 2 %}") + "{{ ns.x|tojson }}",
    "{{ '%999999999d' % 1 }}",
    "{{ '%*d' % (999999999, 1) }}",
    "{{ '%999999999d'|format(1) }}",
    "{{ '{:999999999}'.format(1) }}",
    "{{ '{:{}}'.format(1, 999999999) }}",
    "{{ ('{0}' * 1000).format('a' * 1000000) }}",
    "{{ ('%(a)s' * 9999) % {'a': 'x' * 100000} }}",
    "{{ 'a'.ljust(9999999999) }}",
    "{{ 'a'.zfill(9999999999) }}",
    "{{ ('\\t' * 10000).expandtabs(100000) }}",
    "{{ ('a' * 100000).replace('a', 'b' * 100000) }}",
    "{{ ('a' * 10000).translate({97: 'b' * 100000}) }}",
    "{{ ('x' * 100000).join(['y' * 100000] * 10000) }}",
    "{{ ([{'a': 'y' * 100000}] * 10000)|join('', attribute='a') }}",
    "{{ 'a'.encode().ljust(9999999999) }}",
    "{{ 'a'|center(9999999999) }}",
    "{{ ('a\\n' * 100000)|indent(100000) }}",
    "{{ ('a ' * 100000)|wordwrap(1, wrapstring='x' * 100000) }}",
    "{{ [1]|batch(9999999999, 0)|list }}",
    "{{ [1]|slice(9999999999)|list }}",
    "{{ [[1]]|tojson(indent=999999999) }}",
    "{{ '{0:{1}{1}}'.format(1, 999) }}",
    "{{ '{0:{1}}'.format(1, '900000000') }}",
    "{{ '{0:{1[0]}}'.format(1, ['900000000']) }}",
    "{{ '{a:{b}}'.format_map({'a': 1, 'b': '900000000'}) }}",
    "{{ ('{:{}}'|safe).format(1, 900000000) }}",
    "{{ '%00000000000900000000d' % 1 }}",
    "{{ '%%(a%900000000d)' % 1 }}",
    "{{ '%(a(b)c)900000000d' % {'a(b)c': 1} }}",
    "{{ strftime_now('%900000000Y') }}",
    "{{ strftime_now('%c' * 100000) }}",
    "{{ 1|round(9000000, 'ceil') }}",
    "{{ (1).to_bytes(9000000000, 'big') }}",
    "{{ ('f' * 1000000)|int(base=16) }}",
    BIG + "{% set x = list * 99 %}",
    *(BIG + "{{ list|select|" + name + "|string|length }}" for name in ("min", "unique", "sort")),
    BIG + "{{ list == list }}",
    BIG + "{{ s in list }}",
    BIG + "{{ s ~ 'd' in list|select }}",
    BIG + "{{ [s]|select('in', list)|list }}",
    BIG + "{{ list.count(s) }}",
    BIG + "{{ s.startswith((list, s)) }}",
    BIG + "{{ s.strip('b' * 999999 + 'a') }}",
    "{% set ns = namespace(x=[]) %}"
    + BIG
    + "{% for i in range(9999) %}{% set ns.x = ns.x + [s[i:]] %}{% endfor %}",
    "{% set ns = namespace(x=[]) %}"
    + BIG
    + "{% for i in range(9999) %}{% set ns.x = ns.x + [s.partition('a')] %}{% endfor %}",
    "{% set t = (1,) %}" + "{% set t = (t,) * 1000 %}" * 9 + "{{ {t: 1} }}",
    "{{ ([[1]] * 99999)|sum(start=[]) }}",
    "{{ ('a' * 999999).encode('punycode') }}",
    "{{ (('aa ' * 5000000).split())|length }}",
    "{{ ('\U0001f999' * 9000000)|list|length }}",
    "x" * 99_999,
    "{{ a }}" * 30_000,
]
TOO_DEEP = [
    "{% macro f(n) %}{{ f(n) }}{% endmacro %}{{ f(1) }}",
    "{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}",
    "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
    "{% if 1 %}" * 500 + "{% endif %}" * 500,
]
NOT_THERE = ["{{ lipsum(99999999) }}", "{{ 'a'|striptags }}", "{{ 'a'|urlize }}"]
LIMITS = "Range too big|takes longer|makes more|asks for a width|makes a number of|is longer than"


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        *((template, LIMITS) for template in TOO_MUCH),
        *((template, "recursion|nested blocks") for template in TOO_DEEP),
        *((template, "'lipsum' is undefined|No filter named") for template in NOT_THERE),
    ],
    ids=lambda text: text[:60],
)
def test_templates_that_ask_for_too_much_are_stopped(
    template: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(budget, "SECONDS", 0.5)
    started = time.process_time()
    tracemalloc.start()
    with pytest.raises(ChatTemplateError, match=reason):
        _render(template)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert time.process_time() - started < 5  # unbounded, these take hours
    assert peak < 300_000_000


def test_long_conversations_are_not_too_much() -> None:
    template = (
        "{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}"
        "{{ '<|' + m.role + '|>' ~ m.content | trim }}{% endfor %}"
    )
    messages = [{"role": "user", "content": "word " * 2000}] * 300
    assert len(_render(template, messages)) > 3_000_000

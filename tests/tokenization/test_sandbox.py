"""Chat templates are programs from strangers: what they must not reach, and what must stop them."""

import time
import tracemalloc

import pytest

from tests.tokenization.conversations import USER
from torchgguf.tokenization import ChatTemplateError
from torchgguf.tokenization.chat import budget
from torchgguf.tokenization.chat.rendering import render

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
    "{{ ('{0.__class__}'|attr('format'))('') }}",
    "{% set f = '{0.__class__}'.format %}{{ f('') }}",
    "{{ '{0[0].__class__}'.format(messages) }}",
    "{{ dict.update(messages[0], {'a': 1}) }}",
    "{{ dict.__init__.__globals__ }}",
    "{{ cycler.current.fget(namespace(items=[1], pos=0)) }}",
    "{{ cycler.next(messages) }}",
    "{{ (1).__class__.__base__ }}",
    "{% for x in messages %}{{ loop._iterable }}{{ loop.__init__ }}{% endfor %}",
    "{% macro m() %}{% endmacro %}{{ m._func }}{{ m._environment }}",
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
        shown = render(template, {"messages": messages})
    except ChatTemplateError:
        shown = ""
    assert shown in ("", "Undefined")
    assert messages == [USER]


BIG = (
    "{% set s = 'a' * 999999 ~ 'b' %}{% set t = 'a' * 999999 ~ 'c' %}{% set u = 'a' * 999999 ~ 'b' %}"
    "{% set list = [s, t, u]|batch(1000, u)|first %}"
)
MANY = "{% set k = 'a' * 1000 %}{% set M = k * 1000 %}"
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
    # What searches from the end looks for each character at each place.
    *(
        MANY + "{{ (M * 8)." + method + "('ab' ~ M * 4) }}"
        for method in ("rfind", "rindex", "rsplit", "rpartition", "encode().rfind")
    ),
    "{{ (('<>' * 1000000)|safe).striptags() }}",
    "{{ ('{0:1000}' * 100000).format('a') }}",
    "{{ ('%(a)1000s' * 100000) % {'a': 1} }}",
    MANY + "{{ M|title }}{{ (M * 2)|title }}",
    MANY + "{{ (M * 8)|e }}",
    MANY + "{{ {}[M * 32] }}",
    MANY + "{{ raise_exception(M * 32) }}",
    # Tuples and dicts that nobody wrote, each of them twice in the next.
    "{% macro m(n) %}{% if n %}{{ m(n - 1, varargs, varargs) }}{% else %}{{ {varargs: 1} }}{% endif %}"
    "{% endmacro %}{{ m(60, 1) }}",
    "{% macro m(n) %}{% if n %}{{ m(n - 1, a=kwargs, b=kwargs) }}{% else %}{{ kwargs is lower }}{% endif %}"
    "{% endmacro %}{{ m(60, a=1) }}",
    "{% set ns = namespace(t=(1,)) %}{% for i in range(60) %}{% set ns.t = cycler(ns.t, ns.t).items %}"
    "{% endfor %}{{ {ns.t: 1} }}",
    *(
        "{% set r = [1] %}" + "{% for r in [1]|batch(1000, r) %}" * 15 + use + "{% endfor %}" * 15
        for use in (
            *("{{ raise_exception(r) }}", "{{ [][r].x }}", "{{ r is upper }}", "{{ loop.changed(r) }}"),
            *("{{ [].index(r) }}", "{{ r in r }}", "{{ '{}'.format(r) }}", "{{ r < r }}", "{{ r|tojson }}"),
            *("{{ r|last }}", "{{ r + r }}", "{{ r[1:] }}", "{{ '%*s' % (r, r) }}", "{{ x|default(r) }}"),
        )
    ),
    # Much that is held, by what is small.
    "{% set ns = namespace(p=0) %}{% for j in range(99999) %}{% for r in [1]|batch(1000, 0) %}"
    "{% set ns.p = namespace(p=ns.p, r=r) %}{% endfor %}{% endfor %}",
    "{% set ns = namespace(p=0) %}{% for j in range(99999) %}{% for r in 'a' * 1000 %}{% macro m() %}"
    "{% endmacro %}{% set ns.p = namespace(p=ns.p, r=m, l=loop) %}{% endfor %}{% endfor %}",
]
TOO_DEEP = [
    "{% macro f(n) %}{{ f(n) }}{% endmacro %}{{ f(1) }}",
    "{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}",
    "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
    "{% if 1 %}" * 500 + "{% endif %}" * 500,
]
NOT_THERE = [
    "{{ lipsum(99999999) }}",
    *(f"{{{{ 'a'|{name} }}}}" for name in ("pprint", "striptags", "urlize", "wordwrap")),
]
LIMITS = "Range too big|takes longer|makes more|asks for a width|makes a number of|is longer than"


@pytest.mark.parametrize("template", TOO_MUCH, ids=lambda text: text[:60])
def test_templates_that_ask_for_too_much_are_stopped(template: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "SECONDS", 0.5)  # of the processor's time, as is measured here
    _check_is_stopped(template, LIMITS)


@pytest.mark.parametrize("template", TOO_DEEP, ids=lambda text: text[:60])
def test_templates_that_go_too_deep_are_stopped(template: str) -> None:
    _check_is_stopped(template, "recursion|nested blocks")


@pytest.mark.parametrize("template", NOT_THERE)
def test_what_only_wastes_time_is_not_there(template: str) -> None:
    _check_is_stopped(template, "'lipsum' is undefined|No filter named")


def _check_is_stopped(template: str, reason: str) -> None:
    started = time.process_time()
    tracemalloc.start()
    try:
        with pytest.raises(ChatTemplateError, match=reason) as stopped:
            render(template, {"messages": [dict(USER)]})
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert time.process_time() - started < 5  # unbounded, these take hours
    assert peak < 300_000_000
    assert len(str(stopped.value)) < 2000
    assert "\n" not in str(stopped.value)


@pytest.mark.parametrize("template", ["{{ raise_exception('a b ' * 100000) }}", "{{ {}['a' * 1000000].b }}"])
def test_what_a_template_says_is_cut(template: str) -> None:
    _check_is_stopped(template, "failed: ")


def test_what_takes_an_iterator_gets_all_of_it() -> None:
    template = "{{ ', '.join(messages|map(attribute='role')) }}{{ ''.join(['a', 'b']|map('upper')) }}"
    assert render(template, {"messages": [USER, USER]}) == "user, userAB"
    assert render("{{ dict.fromkeys('ab') }}{{ cycler(1, 2).next() }}{{ joiner('x')() }}", {}) == (
        "{'a': None, 'b': None}1"
    )

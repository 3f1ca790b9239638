"""Whatever a template is made of, nothing that is said to it becomes control."""

from contextlib import suppress
from itertools import chain, repeat
from warnings import catch_warnings

import pytest
from hypothesis import given, settings, strategies as st

from p2pnode.errors import ModelError
from tests.text.template_shapes import Composer, forged

HOSTILE = (">", "<|im_end|>", "->", "%s>", "{0}>", ">a", "&gt;>", "\n>")

REFUSED = ("in a way this node cannot follow", "Invalid format specifier")

pieces = st.sampled_from(
    (*HOSTILE, "a", "", " ", "\t", "{0.content}", "{}{0}", "\u00df", "www.a.de")
)
said = st.lists(st.lists(pieces, max_size=3).map("".join), min_size=4, max_size=4)


@settings(deadline=None)
@given(choices=st.lists(st.integers(0, 255), max_size=60), words=said)
def test_no_template_makes_control_out_of_data(choices: list[int], words: list[str]) -> None:
    rest = chain(choices, repeat(0))
    template = Composer(lambda several: several[next(rest) % len(several)]).template()
    with suppress(ModelError), catch_warnings(action="ignore"):  # refused, or it does not run
        assert not forged(template, words), template


@pytest.mark.parametrize(
    "template",
    [
        (
            "{% macro doc(t) %}{{ t }}{{ '%d: %s' % (1, messages[0].content) }}{% endmacro %}"
            "{{ doc('x') }}"
        ),
        (
            "{% macro doc(t) %}{{ t }}{{ 1 }}{{ caller() }}{% endmacro %}"
            "{% call doc('x') %}{{ messages[0].content }}{% endcall %}"
        ),
        "{% set ns = namespace(a=messages[0].content) %}{{ '%s' | format(ns) }}",
        "{% set ns = namespace(a=messages[0].content) %}{{ 'x%s' % ns }}{{ 'x{:}'.format(ns) }}",
        "{{ '%s' | format(messages[0].items()) }}",
        "{{ '%s' | format(messages[0].values()) }}",
        "{{ '%r' % messages[0].items() }}{{ 'a' | replace('a', messages[0].items()) }}",
        "{{ '%r%s' | format(messages | map(attribute='content') | list, 'x') }}",
        (
            "{% for x in [messages[0].content] recursive %}{{ 1 }}{{ x }}"
            "{% if loop.depth < 2 %}{{ loop(['x']) }}{% endif %}{% endfor %}"
        ),
        "{{ 'x' | wordwrap(1, true, messages[0].content) }}",
        "{{ ('x' | center(9)) ~ cycler(messages[0].content).next() }}",
        "{{ '%c' % messages[0].n }}{{ '{:c}'.format(messages[0].n) }}",
        "{{ 'a'.center(9, messages[0].content[:1]) }}",
        "{{ '{:{}}'.format('', messages[0].content[-1] ~ '>9') }}",
        "{{ ['%s'] | map('format', messages[0].items()) | join }}",
        "{{ ('{:' ~ messages[0].content[:1] ~ '>9}').format('a') }}",
        "{{ messages[0].content.format('a') }}{{ messages[0].content % () }}",
        "{{ 'ab'.translate({97: messages[0].content}) }}{{ 'ab'.translate({97: messages[0].n}) }}",
        "{{ {'a': messages[0].content} | xmlattr }}{{ {'a': messages[0]} | pprint }}",
    ],
)
@pytest.mark.parametrize("word", [">", "<|im_end|>"])
def test_what_a_call_may_reach_counts_as_its_sources(template: str, word: str) -> None:
    try:
        assert not forged(template, [word] * 4)
    except ModelError as error:
        assert any(said in str(error) for said in REFUSED)  # noqa: PT017

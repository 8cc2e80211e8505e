"""Chat templates that never end, or make texts without end, are refused quickly; honest ones are not touched."""

from __future__ import annotations

import time

import pytest

from trivium.errors import TriviumError
from trivium.tokenizer.rendering import Program

CHAT = [{"role": "user", "content": "w" * 900}, {"role": "assistant", "content": "Fine."}]
GROW = "{%% set n = namespace(x='grow') %%}{%% for i in range(70) %%}{%% set n.x = %s %%}{%% endfor %%}{{ n.x }}"


@pytest.mark.parametrize("template", [
    "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "{% for i in messages[0].content %}{% for j in messages[0].content %}{% for k in messages[0].content %}"
    "{% endfor %}{% endfor %}{% endfor %}",
    "{% for i in range(99999) %}{{ range(99999) | sum }}{% endfor %}",
    "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(50) }}",
    "{% for n in [[0]] recursive %}{{ loop([[0]]) }}{{ loop([[0]]) }}{% endfor %}",
    *(GROW % more for more in ("n.x + n.x", "n.x ~ n.x", "[n.x, n.x] | join", "n.x.replace('g', 'gg')",
                               "n.x | replace('g', 'ggg')", "n.x * 3", "[n.x, n.x]| tojson")),
    "{% for i in range(99999) %}" + "text " * 900 + "{% endfor %}",
    "{{ 'wide' * 10**9 }}", "{{ 'wide'.rjust(10**10) }}", "{{ '%999999999s' % 1 }}", "{{ '%999999999s' | format(1) }}",
    "{{ [1] | tojson(indent=999999999) }}", "{{ 'wide' | indent(10**10, true) }}", "{{ 7**77777777 }}",
    "{{ lipsum(n=100000) }}",
])
def test_a_template_without_end_is_refused_within_seconds(template):
    started = time.process_time()
    with pytest.raises(TriviumError, match="the chat template (refuses|fails on) this chat"):
        Program(template, "it", {})(CHAT, False, None)
    assert time.process_time() - started < 5


def test_each_chat_has_its_own_account_and_long_ones_more():
    template = "{% for m in messages %}{% for word in m.content.split(' ') %}{{ word + ' ' }}{% endfor %}{% endfor %}"
    program = Program(template, "it", {})
    chat = [{"role": "user", "content": "to be " * 2000}] * 50
    for _ in range(2):
        assert program(chat, False, None) == ("to be " * 2000 + " ") * 50


def test_what_fails_inside_a_template_is_told_in_plain_words():
    with pytest.raises(TriviumError, match="joins values, that are not as it expects$"):
        Program("{{ 'a' + 1 }}", "it", {})(CHAT, False, None)

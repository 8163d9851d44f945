"""The sandbox: templates get what they are written for, cost no more than the limits, and read no clock."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmcrdt.exceptions import TemplateFailed
from llmcrdt.prompt.chat_template import render
from llmcrdt.prompt.dates import moment, strftime

DATE = datetime(2026, 3, 5, 9, 8, 7, tzinfo=UTC)


def rendered(source: str, **more: Any) -> str:
    said = [{"role": "user", "content": "<é'>"}]
    return render(source, said, date=DATE, add_generation_prompt=True, bos="<s>", max_steps=20_000, **more)


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("{{ messages[0] | tojson }}", '{"role": "user", "content": "<é\'>"}'),
        ("{{ {'b': 1, 'a': [true, none]} | tojson(indent=1) }}", '{\n "b": 1,\n "a": [\n  true,\n  null\n ]\n}'),
        ("{% if true %}\n  a\n  {% endif %}\nb", "  a\nb"),
        (
            "{% for i in range(9) %}{% if i == 2 %}{% break %}{% endif %}{{ i }}{{ loop.last }}{% endfor %}",
            "0False1False",
        ),
        ("{% for i in range(9) if i % 4 == 0 %}{{ loop.index }}{{ i }} {% endfor %}", "10 24 38 "),
        ("{% macro f(x, y=2) %}{{ x ~ (y + 1) }}{% endmacro %}{{ f('a') }}", "a3"),
        ("{% generation %}{{ bos_token }}{% endgeneration %}{{ add_generation_prompt }}", "<s>True"),
        (
            "{{ strftime_now('%d %b %Y, %-d %B %A %I:%M %p %%c %q') }}",
            "05 Mar 2026, 5 March Thursday 09:08 AM %c %q",
        ),
        ("{% filter upper %}a{% endfilter %}{{ 'a,b' | replace(',', ' ') | indent(2) | center(7) }}", "A  a b  "),
        ("{{ tools is none }}{{ documents is none }}{{ nothing is defined }}", "TrueTrueFalse"),
        ("{{ ['b', 'a'] | map('upper') | tojson }}", '["B", "A"]'),
        ("{% set q = [] %}{% set _ = q.append(1) %}{% set _ = q.append(2) %}{{ q.pop(0) }}{{ q }}", "1[2]"),
    ],
)
def test_what_templates_are_written_for(source: str, text: str) -> None:
    assert rendered(source) == text


def test_a_template_changes_no_list_of_the_caller() -> None:
    said, tools = [{"role": "user", "content": "x"}], [{"name": "f"}]
    source = "{% set _ = messages.append(1) %}{% set _ = tools.pop() %}{{ messages | length }}{{ tools | length }}"
    assert render(source, said, tools=tools, date=DATE, add_generation_prompt=True) == "20"
    assert (len(said), len(tools)) == (1, 1)


def test_arguments_reach_the_template_but_replace_nothing_of_ours() -> None:
    given = {
        "style": "calm",
        "messages": [],
        "bos_token": "x",
        "strftime_now": 1,
        "raise_exception": 1,
        "not a name": 1,
    }
    assert rendered("{{ style }}{{ messages | length }}{{ bos_token }}{{ strftime_now('%Y') }}", arguments=given) == (
        "calm1<s>2026"
    )


@pytest.mark.parametrize(
    "name", ["namespace", "range", "dict", "cycler", "joiner", "__llmcrdt_bound", "__llmcrdt_meter"]
)
def test_arguments_replace_nothing_that_templates_are_made_of(name: str) -> None:
    source = (
        "{% set n = namespace(a=1) %}{% for i in range(3) %}{% set n.a = n.a + i %}{% endfor %}"
        "{{ n.a }}{{ dict(a=1).a }}{{ ('x' * 2000) | length }}{{ joiner()() }}"
    )
    assert rendered(source, arguments={name: 7}) == "412000"


GROW = "{% set ns = namespace(x='ab' * 999) %}{% for i in range(99) %}{% set ns.x = @ %}{% endfor %}"


@pytest.mark.parametrize(
    "source",
    [
        "{% for a in range(999) %}{% for b in range(999) %}{% endfor %}{% endfor %}",
        "{% for a in range(999) %}{% for b in range(999) if false %}{% endfor %}{% endfor %}",
        "{% macro f(n) %}{% if n %}{{ f(n-1) }}{{ f(n-1) }}{% endif %}{% endmacro %}{{ f(40) }}",
        "{% macro f(n) %}{{ f(n) }}{% endmacro %}{{ f(1) }}",
        "{% for a in range(100001) %}{% endfor %}",
        "{{ 'a' * 10000000000 }}",
        "{{ 10 ** (10 ** 10) }}",
        *(
            GROW.replace("@", grow)
            for grow in ("ns.x ~ ns.x", "ns.x + ns.x", "[ns.x, ns.x] | join", "ns.x.replace('a', ns.x)")
        ),
        GROW.replace("@", "ns.x | replace('a', ns.x)"),
        "{{ 'a'.ljust(10000000000) }}",
        "{{ 'a' | center(10000000000) }}",
        "{{ '%10000000000d' % 1 }}",
        "{{ '%10000000000d' | format(1) }}",
        "{{ '{:10000000000}'.format(1) }}",
        "{% for a in range(9999) %}{{ 'aaaaaaaaaa' * 1000 }}{% endfor %}",
    ],
)
def test_what_would_not_end_is_stopped(source: str) -> None:
    with pytest.raises(TemplateFailed):
        rendered(source)


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("{{ raise_exception('Only calm people!') }}", "Only calm people!"),
        ("{{ messages[4].content }}", "no element 4"),
        ("{% if %}", "can't be read"),
        ("{{ messages.clear() }}", "unsafe"),
        ("{{ messages[0].update({'role': 'system'}) }}", "unsafe"),
        ("{{ ''.__class__.__mro__ }}", "unsafe"),
        ("{{ 1 / 0 }}", "division"),
        ("{{ [1, 2] | random }}", "random"),
        ("{{ 'x' + 1 }}", "can only concatenate"),
    ],
)
def test_failures_are_template_failed_and_say_why(source: str, why: str) -> None:
    with pytest.raises(TemplateFailed, match=why) as raised:
        rendered(source)
    assert raised.value.hint


@given(st.datetimes(datetime(1900, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC)))
def test_dates_are_those_of_c_in_english(when: datetime) -> None:
    form = "%a %A %b %B %d %m %y %Y %H %I %M %S %f %p %j %z %u %w %G %V %% %c | %x | %X | %F | %T | %D"
    assert strftime(when, form) == when.strftime(form)


@pytest.mark.parametrize(
    ("date", "day"),
    [
        ("2026-05-01", "2026-05-01"),
        ("2026-05-01T23:30:00-02:00", "2026-05-02"),
        (86400, "1970-01-02"),
        (None, "1970-01-03"),
        ("soon", "1970-01-03"),
        (True, "1970-01-03"),
        (1e300, "1970-01-01"),
        (float("nan"), "1970-01-01"),
    ],
)
def test_the_date_is_the_settings_or_the_conversations(date: Any, day: str) -> None:
    assert strftime(moment(date, 2 * 86400.0), "%Y-%m-%d") == day


def test_without_jinja_the_error_names_the_extra() -> None:
    program = (
        "import sys; sys.modules['jinja2'] = None\n"
        "from llmcrdt.exceptions import EngineMissing\n"
        "import llmcrdt.prompt\n"
        "try:\n    import llmcrdt.prompt.chat_template\n"
        "except EngineMissing as error:\n    print(error)\n"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "llmcrdt[llama]" in run.stdout

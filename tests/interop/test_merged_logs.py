"""Logs that devices merged are valid requests in every format. ``make logs`` exports 100,000 of them."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from merged_logs import OPERATIONS, misplaced, prefix, run_schedule, signature_problems

USER = {"role": "user", "content": "go"}
SIGNED = {"role": "assistant", "content": [{"type": "thinking", "thinking": "Hm. #1#", "signature": "OPAQUE-1-"}]}


@pytest.mark.parametrize("first", range(1_000_000, 1_000_060, 10))
def test_merged_logs_are_valid_in_every_format(first: int) -> None:
    for seed in range(first, first + 10):
        run_schedule(seed)


def test_all_operations_are_drawn() -> None:
    """A schedule that never does a thing proves nothing of it."""
    done = sum((run_schedule(seed) for seed in range(1_000_100, 1_000_120)), start=Counter[str]())
    assert {name for name in done if name.startswith("do_")} == set(OPERATIONS)
    assert done["exports"] == 9 * done["logs"] > 900


def test_a_signature_after_another_list_is_seen() -> None:
    body: dict[str, Any] = {"system": "s", "tools": [{"name": "look"}], "messages": [USER, SIGNED]}
    made_on = {"OPAQUE-1-": prefix(body, [USER])}
    assert signature_problems(body, made_on) == []
    point = {"cache_control": {"type": "ephemeral"}}
    marked = {"role": "user", "content": "go", **point}
    assert signature_problems({**body, "messages": [marked, SIGNED]}, made_on) == [], "cache points don't count"
    for other in (
        {**body, "system": "t"},
        {**body, "tools": []},
        {**body, "messages": [USER, USER, SIGNED]},
        {**body, "messages": [{**USER, "content": "went"}, SIGNED]},
        {**body, "messages": [SIGNED]},
    ):
        assert len(signature_problems(other, made_on)) == 1, other


def test_an_opaque_value_in_another_block_is_seen() -> None:
    assert misplaced(SIGNED) == []
    for wrong in (
        {"type": "thinking", "thinking": "Hm. #2#", "signature": "OPAQUE-1-"},
        [{"functionCall": {"name": "look", "args": {"at": "#2#"}}, "thoughtSignature": "OPAQUE-1-"}],
        {"content": "Let me see. #2#", "reasoning_opaque": "OPAQUE-1-"},
    ):
        assert misplaced(wrong) == ["OPAQUE-1- stands beside #2#"]

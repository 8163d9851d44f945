"""A plain Yjs client can write anything (O1): the transcript stays total, and the sound part is undisturbed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pycrdt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import llmcrdt

OpenRepo = Callable[..., llmcrdt.Repo]
SESSION = "A" * 22
scalars = st.none() | st.booleans() | st.integers(-5, 2**53) | st.text(max_size=5) | st.binary(max_size=5)
ids = st.sampled_from(["A" * 16, "B" * 16, "C" * 16])
HEAD = st.fixed_dictionaries(
    {},
    optional={
        "role": st.sampled_from(["user", "assistant", "wizard"]) | scalars,
        "author": st.just("x") | scalars,
        "session": st.just(SESSION) | scalars,
        "parents": st.lists(ids, max_size=3) | scalars,
        "lamport": st.integers(-1, 2**60) | scalars,
        "created_at": st.just(1) | scalars,
        "alternative_of": ids | scalars,
        "answers": st.tuples(ids, st.just("c")) | scalars,
        "frame": st.dictionaries(
            st.sampled_from(["base", "appended", "hash"]), scalars | st.lists(scalars), max_size=3
        ),
        "after": st.lists(ids) | scalars,
        "model": scalars,
    },
)


def other_json(value: Any) -> str:
    import json

    return json.dumps(value, default=str)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.dictionaries(
        ids | st.text(max_size=4),
        scalars | st.dictionaries(st.sampled_from(["head", "version:x", "live:0:text", "live:a:b", "hidden:h"]),
                                  scalars | HEAD.map(other_json)),
        max_size=4,
    ),
    st.dictionaries(st.text(max_size=3) | st.just(f"select:g:{SESSION}"), scalars | st.just('{"entry":1}'), max_size=3),
)  # fmt: skip
def test_the_transcript_is_total(open_repo: OpenRepo, entries: dict[str, Any], acts: dict[str, Any]) -> None:
    conversation = open_repo("laptop").create()
    conversation.append("user", "sound")
    answer = conversation.append("assistant", "too", frame=conversation.transcript())
    stranger = pycrdt.Doc()
    stranger.apply_update(conversation.diff())
    shared = stranger.get("entries", type=pycrdt.Map)
    for key, value in entries.items():
        shared[key] = pycrdt.Map(value) if isinstance(value, dict) else value
    more = stranger.get("acts", type=pycrdt.Map)
    for key, value in acts.items():
        more[key] = value
    conversation.apply(stranger.get_update())
    transcript = conversation.transcript()
    assert [e.text for e in transcript][:2] == ["sound", "too"]
    assert answer.id in transcript.ids
    assert set(transcript.malformed) | set(transcript.ids) >= set(entries)
    conversation.append("user", "and on")
    assert conversation.transcript()[-1].text == "and on"


def test_roots_of_another_shape_are_as_good_as_empty(open_repo: OpenRepo) -> None:
    stranger = pycrdt.Doc()
    stranger.get("entries", type=pycrdt.Array).append("x")
    stranger.get("meta", type=pycrdt.Text).insert(0, "y")
    conversation = open_repo("laptop").create()
    conversation.apply(stranger.get_update())
    conversation.append("user", "fine")
    assert [e.text for e in conversation.transcript()] == ["fine"]


@pytest.mark.parametrize("change", ["text", "role", "frame"])
def test_verify_names_the_entry_that_was_tampered_with(open_repo: OpenRepo, change: str) -> None:
    conversation = open_repo("laptop").create()
    user = conversation.append("user", "what was said")
    answer = conversation.append("assistant", "an answer", frame=conversation.transcript())
    stranger = pycrdt.Doc()
    stranger.apply_update(conversation.diff())
    shared = stranger.get("entries", type=pycrdt.Map)
    if change == "text":
        name = f"version:{user.hash}"
        shared[user.id][name] = shared[user.id][name].replace("was", "was never")
    elif change == "role":
        shared[user.id]["head"] = shared[user.id]["head"].replace('"user"', '"system"')
    else:
        shared[answer.id]["head"] = shared[answer.id]["head"].replace(str(user.hash), "A" * 32)
    conversation.apply(stranger.get_update())
    problems = conversation.verify()
    assert problems
    assert problems[0].entry == (answer.id if change == "frame" else user.id)

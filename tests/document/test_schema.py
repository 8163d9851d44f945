"""Byte formats of the document: frozen vectors, round trips, and decoders that raise only what they say.

The vectors in tests/vectors/document.json were written by ``python tests/document/test_schema.py``; a change of any of
them is a change of the format.
"""

from __future__ import annotations

import contextlib
import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmcrdt.document import schema
from llmcrdt.document.acts import read_selection
from llmcrdt.document.canonical import canonical_json, parse_json
from llmcrdt.document.encryption import NOWHERE
from llmcrdt.document.entry import (
    Config,
    HiddenField,
    Reasoning,
    Text,
    ToolCall,
    ToolResult,
    Unknown,
    content_hash,
    part_from_json,
    part_to_json,
)
from llmcrdt.document.entry_fields import field_digest, read_hidden, read_version, write_hidden, write_version
from llmcrdt.document.frame import EMPTY_FRAME, Frame, extend_frame_hash
from llmcrdt.document.head import Head, read_head, write_head
from llmcrdt.exceptions import InvalidContent
from llmcrdt.ids import document_bytes, document_id, is_document_id

VECTORS = Path(__file__).parents[1] / "vectors" / "document.json"
VALUES: list[Any] = [
    {"b": 1, "a": 1.0, "é": "é", "": ""},
    {"n": 2**53 + 1, "m": 2**64, "f": 1e16, "tiny": 5e-324, "zero": -0.0},
    ["", " ", "\u2028", "\x00\x1f\x7f", '"\\/', "😀", None, True, False, [], {}],
]
SESSION = "A" * 22
PINS = [("A" * 16, "B" * 32), ("C" * 16, "D" * 32)]


def vectors() -> dict[str, Any]:
    name, text = write_version(
        "user",
        (Text("Hello"), Unknown({"type": "x", "n": 2**64})),
        status="stopped",
        lamport=7,
        by=SESSION,
        nonce=bytes(12),
    )  # type: ignore[arg-type]
    frame = extend_frame_hash(EMPTY_FRAME, PINS)
    head = Head(
        role="assistant", author="m", session=SESSION, parents=("A" * 16,), lamport=8, created_at=1, after=("C" * 16,),
        alternative_of="E" * 16, answers=("A" * 16, "call 1"), model={"seed": 2**53 + 1},
        frame=Frame(PINS[0], (PINS[1],), frame, "r", "s", True, True),
    )  # type: ignore[arg-type] # fmt: skip
    hidden = write_hidden(HiddenField(b"\x00\xffdata", {"provider": "p"}))
    digest = field_digest(hidden, NOWHERE._replace(name="p/é"))
    vouching, vouches = write_version(
        "assistant", (), status="complete", lamport=8, by=SESSION, nonce=bytes(12), hidden={"p/é": digest}
    )  # type: ignore[arg-type]
    return {
        "canonical_json": [canonical_json(value) for value in VALUES],
        "version": {"text": text, "hash": name},
        "content_hash_of_empty": content_hash("user", ""),
        "frame_hash": {"empty": EMPTY_FRAME, "two": frame},
        "head": write_head(head),
        "hidden": hidden.hex(),
        "hidden_digest": {"name": "p/é", "digest": digest},
        "version_with_hidden": {"text": vouches, "hash": vouching},
        "document_id": {bytes(range(16)).hex(): document_id(bytes(range(16))), bytes(16).hex(): document_id(bytes(16))},
    }


def test_the_formats_are_the_frozen_ones() -> None:
    assert vectors() == json.loads(VECTORS.read_text(encoding="utf-8"))


def test_what_was_frozen_is_read_back() -> None:
    frozen = json.loads(VECTORS.read_text(encoding="utf-8"))
    assert [parse_json(text) for text in frozen["canonical_json"]] == VALUES
    assert write_head(read_head(frozen["head"])) == frozen["head"]
    version = read_version("user", frozen["version"]["hash"], frozen["version"]["text"])
    assert (version.status, version.lamport, version.parts[0]) == ("stopped", 7, Text("Hello"))
    assert version.hidden is None
    vouching = frozen["version_with_hidden"]
    digest = frozen["hidden_digest"]["digest"]
    assert read_version("assistant", vouching["hash"], vouching["text"]).hidden == {"p/é": digest}
    assert read_hidden(bytes.fromhex(frozen["hidden"])) == HiddenField(b"\x00\xffdata", {"provider": "p"})
    for raw, name in frozen["document_id"].items():
        assert document_bytes(name) == bytes.fromhex(raw)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
OWN = {"type", "text", "id", "name", "arguments", "error"}
extra = st.dictionaries(st.text(max_size=4).filter(lambda key: key not in OWN), json_values, max_size=2)
parts = (
    st.builds(Text, st.text(), extra)
    | st.builds(Reasoning, st.text(), extra)
    | st.builds(ToolCall, st.text(), st.text(), st.text(), extra)
    | st.builds(ToolResult, st.text(), st.booleans(), extra)
    | st.builds(Config, extra)
    | st.builds(Unknown, extra.map(lambda value: {**value, "type": "picture"}))
)


@given(json_values)
def test_canonical_json_keeps_the_value_and_is_its_own_canonical_form(value: Any) -> None:
    text = canonical_json(value)
    assert parse_json(text) == value
    assert canonical_json(parse_json(text)) == text


def test_numbers_that_differ_in_json_differ_in_canonical_json() -> None:
    assert canonical_json(1) != canonical_json(1.0)
    assert canonical_json(2**53) != canonical_json(2**53 + 1)


@given(parts)
def test_parts_survive_json(part: Any) -> None:
    assert part_from_json(parse_json(canonical_json(part_to_json(part)))) == part


@pytest.mark.parametrize("bad", ["\ud800", float("nan"), float("inf"), {1, 2}, b"bytes", {"a": object()}])
def test_what_json_can_t_hold_is_refused(bad: Any) -> None:
    with pytest.raises(InvalidContent):
        canonical_json({"value": bad})


def test_endless_nesting_is_refused_both_ways() -> None:
    with pytest.raises(InvalidContent):
        parse_json("[" * 100_000)
    value: list[Any] = []
    for _ in range(100_000):
        value = [value]
    with pytest.raises(InvalidContent):
        canonical_json(value)


@given(st.text(max_size=60) | json_values.map(lambda v: json.dumps(v)) | st.binary(max_size=20))
def test_decoders_raise_only_invalid_content(data: Any) -> None:
    for decode in (
        read_head,
        lambda d: read_version("user", "x" * 32, d),
        read_hidden,
        lambda d: read_selection(f"select:g:{SESSION}", d),
    ):
        with contextlib.suppress(InvalidContent):
            decode(data)


@given(st.binary(min_size=16, max_size=16), st.integers(0, 60), st.sampled_from("123ABCxyz0OIl "))
def test_a_slip_in_a_document_id_is_noticed(raw: bytes, at: int, character: str) -> None:
    name = document_id(raw)
    assert document_bytes(name) == raw
    at %= len(name)
    slipped = name[:at] + character + name[at + 1 :]
    assert slipped == name or not is_document_id(slipped)


def test_the_table_names_every_field_that_the_code_writes() -> None:
    source = "".join(path.read_text(encoding="utf-8") for path in Path(schema.__file__).parent.glob("*.py"))
    table = " ".join(field.path for field in schema.FIELDS)
    kinds = set(re.findall(r'f?"(head|version|hidden|live|erased|select|keep|stop|claim)[:"]', source))
    assert len(kinds) == 9
    assert [kind for kind in kinds if kind not in table] == []


if __name__ == "__main__":
    VECTORS.write_text(json.dumps(vectors(), indent=2, ensure_ascii=True) + "\n", encoding="utf-8")

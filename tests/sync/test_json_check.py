"""The check takes what JSON is and nothing else: held against Python's decoder."""

from __future__ import annotations

import json
from typing import NoReturn

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from llmcrdt.sync.json_check import is_object


def no_constant(name: str) -> NoReturn:
    raise ValueError(name)


def by_python(data: bytes) -> bool:
    try:
        return isinstance(json.loads(data.decode(), parse_constant=no_constant), dict)
    except ValueError:
        return False


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=4),
    max_leaves=30,
)
texts = st.builds(
    lambda value, spaced, plain: json.dumps(value, indent=spaced, ensure_ascii=plain),
    st.dictionaries(st.text(max_size=3), values, max_size=4) | values,
    st.sampled_from([None, 0, 1]),
    st.booleans(),
)


@settings(max_examples=1500)
@given(texts.map(str.encode), st.data())
def test_json_that_was_changed_is_taken_where_it_still_is_json(text: bytes, data: st.DataObject) -> None:
    assert is_object(text, 0, len(text)) == by_python(text)
    changed = bytearray(text)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(changed)))
        changed[at : at + data.draw(st.integers(0, 2))] = data.draw(
            st.sampled_from(
                [b"", b",", b"[", b"]", b"{", b"}", b'"', b":", b"0", b"\\", b" ", b"-", b".", b"e", b"\xc3"]
            )
        )
    assert is_object(bytes(changed), 0, len(changed)) == by_python(bytes(changed))


@settings(max_examples=3000)
@given(st.lists(st.sampled_from([*'[]{},:"01 ', '"a"', '"":', "[[", "]]", "{}", "[]", "null", '{"":']), max_size=24))
@example(["{", '"":', "[[", "]", "}", "]"])
@example(["{", '"":', "[", "{", "]", "}", "}"])
@example(["{", '"":', "[[", ",", "]]", "}"])
def test_brackets_in_any_order(pieces: list[str]) -> None:
    for text in ("".join(pieces), '{"":' + "".join(pieces) + "}"):
        assert is_object(text.encode(), 0, len(text)) == by_python(text.encode()), text


@pytest.mark.parametrize(
    "text",
    [
        b'{"a":"\x00"}', b'{"a":"\\x"}', b'{"a":"\\u12g4"}', b'{"a":NaN}', b'{"a":Infinity}', b'{"a":01}', b'{"a":+1}',
        b'{"a":.5}', b'{"a":1.}', b'{"a":1e}', b"{'a':1}", b'{"a":1,}', b'{"a"}', b'{"a":}', b"{a:1}", b"", b" ", b"{",
        b'{"a":tru}', b'{"a":"\xff"}', b'{"a":"\xc0\x80"}', b'{"a":"\xed\xa0\x80"}', b'{"a":"\xf4\x90\x80\x80"}',
        b'{"a":"\xe2\x82"}', b"\xef\xbb\xbf{}", b"{}{}", b"{} x", b"[]", b'{"a":[1 2]}', b'{"a":1 "b":2}',
    ],
)  # fmt: skip
def test_what_is_no_json_object(text: bytes) -> None:
    assert not is_object(text, 0, len(text)) and not by_python(text)


def test_depth_has_no_limit_and_only_the_bytes_named_count() -> None:
    for text in (b'{"":' * 100_000 + b"0" + b"}" * 100_000, b'{"":' + b"[" * 100_000 + b"]" * 100_000 + b"}"):
        assert is_object(text, 0, len(text))
        assert not is_object(text, 0, len(text) - 1) and is_object(b"]" + text + b"}", 1, 1 + len(text))

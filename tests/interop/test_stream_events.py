"""Server-sent events and lines of JSON from bytes, however they are cut."""

from __future__ import annotations

import random
import re

import pytest

from llmcrdt.exceptions import FormatError
from llmcrdt.interop.streams import events
from llmcrdt.interop.streams.events import EventParser, LineParser, Parser


def read(parser: Parser, pieces: list[bytes]) -> list[str]:
    made = [text for piece in pieces for text in parser.feed(piece)]
    return [*made, *parser.close()]


def cut(data: bytes, rng: random.Random) -> list[bytes]:
    marks = sorted(rng.randrange(len(data) + 1) for _ in range(rng.randrange(12)))
    return [data[a:b] for a, b in zip([0, *marks], [*marks, len(data)], strict=True)]


def data_of(body: bytes) -> list[str]:
    """The data of the events in a whole body, by the grammar of the HTML standard."""
    text = body.decode("utf-8", "replace").removeprefix("\ufeff")
    found: list[str] = []
    lines: list[str] = []
    for line in re.split("\r\n|\n|\r", text)[:-1]:
        if line == "":
            found += ["\n".join(lines)] if lines else []
            lines = []
        elif line == "data":
            lines.append("")
        elif line.startswith("data:"):
            lines.append(line[6:] if line[5:6] == " " else line[5:])
    return found


@pytest.mark.parametrize(
    ("body", "wanted"),
    [
        (b"data: YHOO\ndata: +2\ndata: 10\n\n", ["YHOO\n+2\n10"]),
        (b": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\n", ["first event", "second event"]),
        (b"data: whole\n\ndata:  third event\n", ["whole"]),
        (b"data: third event\n\n", ["third event"]),
        (b"data\n\ndata\ndata\n\ndata:", ["", "\n"]),
        (b"data:test\n\ndata: test\n\n", ["test", "test"]),
        (b"\xef\xbb\xbfdata: a\r\rdata: b\r\n\r\ndata: c\n\r", ["a", "b", "c"]),
        (b"data: a\n\n\xef\xbb\xbfdata: b\n\n", ["a"]),
        (b"data : a\nDATA: b\ndatax: c\n data: d\n\n", []),
        (b"data: \xf0\x9f\x98\x80\xff\n\n", ["\U0001f600\ufffd"]),
        (b"event: x\n\ndata: {}\nevent: y\n\n", ["{}"]),
        ("data: a\u2028b\x0b\x85c\n\n".encode(), ["a\u2028b\x0b\x85c"]),
        (b"", []),
    ],
)  # fmt: skip
def test_events_are_read_as_the_standard_says(body: bytes, wanted: list[str]) -> None:
    assert read(EventParser(), [body]) == wanted == data_of(body)
    assert read(EventParser(), [body[i : i + 1] for i in range(len(body))]) == wanted


def test_any_bytes_cut_anywhere_are_the_events_of_the_whole_body() -> None:
    pieces = [
        b"data",
        b":",
        b" ",
        b"\r",
        b"\n",
        b"\r\n",
        b"\n\n",
        b"\xf0\x9f",
        b"\x98\x80",
        b"\xef\xbb\xbf",
        b"x",
        b"\xff",
        b"id",
    ]
    for seed in range(3000):
        rng = random.Random(seed)
        body = b"".join(rng.choice(pieces) for _ in range(rng.randrange(30)))
        assert read(EventParser(), cut(body, rng)) == data_of(body), (seed, body)


def test_lines_are_read_as_they_come_also_a_last_one_without_an_end() -> None:
    for seed in range(500):
        rng = random.Random(seed)
        lines = [rng.choice(("{}", "ä", "x y", "")) for _ in range(rng.randrange(6))]
        body = rng.choice(("\n", "\r\n")).join(lines).encode()
        assert read(LineParser(), cut(body, rng)) == [line for line in lines if line]


@pytest.mark.parametrize("parser", [EventParser, LineParser])
def test_an_event_without_an_end_is_refused(parser: type[Parser], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "MAX_EVENT", 1000)
    reading = parser()
    for _ in range(50):
        assert len(list(reading.feed(b": comment\ndata: 12345\n\n"))) >= 1  # many small ones are none
    with pytest.raises(FormatError) as told:
        for _ in range(50):
            list(reading.feed(b"data: " + b"x" * 30 + (b"\n" if parser is EventParser else b"")))
    assert told.value.hint

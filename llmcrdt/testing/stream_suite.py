"""The contract of interop/streams/stream.py as tests: subclass ``StreamSuite`` in a test module, and say which format
it is, which whole answers there are, how the API streams one, and where its recorded streams are."""

from __future__ import annotations

import random
import time
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..document.canonical import exact_json
from ..document.deltas import (
    AnswerEnded,
    AnswerFailed,
    CallArguments,
    CallBegun,
    CallEnded,
    Delta,
    ReasoningDelta,
    TextDelta,
    UsageDelta,
)
from ..document.entry import Reasoning, Text, ToolCall
from ..exceptions import FormatError
from ..interop.export import export
from ..interop.format import Draft, Format, Outline
from ..interop.json_input import check_json, parse
from ..interop.streams.stream import ResponseStream
from .format_suite import NOW, bent, opaque_values, said_by, stored

SEEDS = 30
"""So many random streams, cuts and damages each test tries."""


@dataclass
class Told:
    """All that the deltas of a stream say."""

    text: str = ""
    reasoning: str = ""
    calls: list[dict[str, Any]] | None = None
    ended: list[str | None] | None = None
    failed: list[str] | None = None
    usage: Mapping[str, Any] | None = None

    def add(self, deltas: Sequence[Delta]) -> None:
        self.calls = self.calls if self.calls is not None else []
        for delta in deltas:
            match delta:
                case TextDelta(text):
                    assert text
                    self.text += text
                case ReasoningDelta(text):
                    assert text
                    self.reasoning += text
                case CallBegun(call, id_, name):
                    assert call == len(self.calls)
                    self.calls.append({"id": id_, "name": name, "arguments": "", "whole": False})
                case CallArguments(call, text):
                    assert text
                    self.calls[call]["arguments"] += text
                case CallEnded(call):
                    self.calls[call]["whole"] = True
                case UsageDelta(usage):
                    self.usage = usage
                case AnswerEnded(finish):
                    self.ended = [*(self.ended or []), finish]
                case AnswerFailed(message, _):
                    self.failed = [*(self.failed or []), message]


def pieces_of(data: bytes, rng: random.Random) -> Iterator[bytes]:
    """The bytes, cut anywhere; a piece may be empty."""
    longest = rng.choice((1, 3, 20, 200, len(data) + 1))
    at = 0
    while at < len(data):
        size = rng.randrange(longest + 1)
        yield data[at : at + size]
        at += size


def as_events(events: Sequence[Any], rng: random.Random) -> bytes:
    """Events as a server may write them: any line ends, comments and other fields, data on several lines."""
    out = b"\xef\xbb\xbf" if rng.random() < 0.2 else b""
    for event in events:
        end = rng.choice(("\n", "\r", "\r\n"))
        text = event if isinstance(event, str) else exact_json(event)
        lines = [f"data:{rng.choice(('', ' '))}{text}"]
        if rng.random() < 0.1 and text[0] == "{":
            lines = ["data: {", f"data: {text[1:]}"]
        if rng.random() < 0.2:
            lines.insert(0, rng.choice((": a comment", "event: any", "id: 1", "retry: 9", "data-like: x", ":")))
        out += "".join(line + end for line in [*lines, ""]).encode()
    return out


def as_lines(events: Sequence[Any], rng: random.Random) -> bytes:
    """Events, a line each; the last line may have no end."""
    out = b""
    for event in events:
        out += exact_json(event).encode() + rng.choice((b"\n", b"\r\n", b"\n\n"))
    return out.rstrip() if rng.random() < 0.5 else out


def words_of(text: str, rng: random.Random) -> list[str]:
    """A text in pieces, some of them empty."""
    made: list[str] = []
    at = 0
    while at < len(text):
        size = rng.choice((0, 1, 2, 5, len(text)))
        made.append(text[at : at + size])
        at += size
    return made


class StreamSuite:
    """Each test says one sentence of the contract. Opaque strings have the letters OPAQUE in them."""

    @property
    @abstractmethod
    def format(self) -> Format:
        """The format."""

    @property
    @abstractmethod
    def recorded(self) -> Path:
        """The folder of recorded streams: of each the bytes (NAME.sse or NAME.ndjson), and NAME.json, which says the
        answer that it makes, whether it is ended, the provider's error, and what the deltas say."""

    @property
    @abstractmethod
    def answers(self) -> Sequence[Any]:
        """Whole answers, as the API gives them without streaming."""

    @abstractmethod
    def events(self, answer: Any, rng: random.Random) -> list[Any]:
        """The events in which the API streams an answer, some of them of unknown kinds. Text stands for data that is
        no JSON."""

    @abstractmethod
    def problems(self, body: Any) -> list[str]:
        """Why the API would refuse a request; written apart from the format."""

    def encoded(self, events: Sequence[Any], rng: random.Random) -> bytes:
        """Events as the bytes of a body."""
        return as_events(events, rng)

    # ---------------------------------------------------------------- helpers

    def read(self, pieces: Sequence[Any] | Iterator[Any]) -> tuple[ResponseStream, Told]:
        stream, told = self.format.stream(), Told()
        for piece in pieces:
            told.add(stream.feed(piece))
        told.add(stream.close())
        return stream, told

    def draft(self, answer: Any) -> Draft | None:
        """The entry that an answer is; None where it is none."""
        said = self.format.answer(answer)
        reader = self.format.reader(Outline(None, self.format.provider))
        drafts = [draft for path, item in said.items for draft in reader.read(item, path)]
        drafts += reader.end()
        return drafts[0] if [draft.role for draft in drafts] == ["assistant"] else None

    def sampled(self, seed: int) -> tuple[random.Random, Any, list[Any]]:
        rng = random.Random(seed)
        answer = self.answers[seed % len(self.answers)]
        return rng, answer, self.events(answer, rng)

    def recordings(self) -> list[tuple[str, bytes, Any]]:
        files = [path for path in sorted(self.recorded.iterdir()) if path.suffix in (".sse", ".ndjson")]
        return [(path.stem, path.read_bytes(), parse(path.with_suffix(".json").read_text("utf-8"))) for path in files]

    # ---------------------------------------------------------------- the same answer

    def test_a_whole_stream_makes_the_whole_answer_however_its_bytes_are_cut(self) -> None:
        for seed in range(max(SEEDS, 2 * len(self.answers))):
            rng, answer, events = self.sampled(seed)
            stream, told = self.read(pieces_of(self.encoded(events, rng), rng))
            assert exact_json(stream.response()) == exact_json(answer), seed
            assert stream.ended and stream.error is None and told.ended is not None and len(told.ended) == 1
            assert told.ended == [said] if isinstance(said := self.format.answer(answer).finish, str) else True
            again, _ = self.read([event for event in events if isinstance(event, dict)])
            assert exact_json(again.response()) == exact_json(answer), seed

    def test_the_deltas_say_what_the_answer_says(self) -> None:
        for seed in range(len(self.answers)):
            rng, answer, events = self.sampled(seed)
            _, told = self.read(pieces_of(self.encoded(events, rng), rng))
            draft = self.draft(answer)
            assert draft is not None
            calls = [part for part in draft.parts if isinstance(part, ToolCall)]
            assert told.text == "".join(part.text for part in draft.parts if isinstance(part, Text))
            assert told.reasoning == "".join(part.text for part in draft.parts if isinstance(part, Reasoning))
            assert told.calls is not None and all(call["whole"] for call in told.calls)
            self.check_calls(told.calls, calls)

    def check_calls(self, told: Sequence[Mapping[str, Any]], calls: Sequence[ToolCall]) -> None:
        """The deltas told of these calls."""
        assert [(one["id"], one["name"]) for one in told] == [(call.id, call.name) for call in calls]
        for one, call in zip(told, calls, strict=True):
            if one["arguments"] != call.arguments:
                assert exact_json(parse(one["arguments"] or "{}")) == exact_json(parse(call.arguments))

    def test_recorded_streams_make_what_is_written_beside_them(self) -> None:
        assert len(self.recordings()) >= 3
        for name, data, wanted in self.recordings():
            for seed in range(10):
                stream, told = self.read(pieces_of(data, random.Random(seed)))
                made = {
                    "response": stream.response(),
                    "ended": stream.ended,
                    "error": stream.error and stream.error.message,
                    "text": told.text,
                    "reasoning": told.reasoning,
                    "calls": told.calls,
                }
                assert exact_json(made) == exact_json(wanted), name
                with suppress(FormatError):  # it may be no answer, but nothing else
                    self.draft(stream.response() or {})

    # ---------------------------------------------------------------- cut anywhere

    def test_of_a_stream_that_is_cut_what_was_complete_stays_and_nothing_else(self) -> None:
        for seed in range(4 * SEEDS):
            rng, answer, events = self.sampled(seed)
            whole = self.draft(answer)
            assert whole is not None
            data = self.encoded(events, rng)
            stream, told = self.format.stream(), Told()
            for piece in pieces_of(data[: rng.randrange(len(data))], rng):
                told.add(stream.feed(piece))
            before = exact_json(stream.response())
            assert exact_json(stream.response()) == before
            if stream.ended:
                continue
            part = stream.response()
            draft = self.draft(part) if part is not None else None
            if draft is None:
                assert not told.text
                continue
            words = [part.text for part in draft.parts if isinstance(part, Text)]
            assert "".join(words) == told.text
            assert "".join(part.text for part in whole.parts if isinstance(part, Text)).startswith(told.text)
            calls = {(c.id, c.name, c.arguments) for c in whole.parts if isinstance(c, ToolCall)}
            assert {(c.id, c.name, c.arguments) for c in draft.parts if isinstance(c, ToolCall)} <= calls
            entries = stored([draft])
            assert opaque_values(entries) <= opaque_values(stored([whole]))
            entries = [said_by("user", "Hello", 1), replace(entries[0], status="stopped")]
            made = export(self.format, entries, self.format.target(), now=NOW)
            assert self.problems(made.body) == [], (seed, exact_json(made.body))

    def test_cuts_keep_each_call_and_each_opaque_value_that_was_complete(self) -> None:
        kept = 0
        for seed in range(len(self.answers)):
            _, _, events = self.sampled(seed)
            stream = self.format.stream()
            for event in events:
                if stream.ended or not isinstance(event, dict):
                    break
                before = self.kept(stream)
                stream.feed(event)
                assert before <= self.kept(stream)
            kept += len(self.kept(stream))
        assert kept

    def kept(self, stream: ResponseStream) -> set[str]:
        """The calls and the opaque values of the answer so far."""
        part = stream.response()
        draft = self.draft(part) if part is not None else None
        if draft is None:
            return set()
        calls = {f"{call.name} {call.arguments}" for call in draft.parts if isinstance(call, ToolCall)}
        return calls | opaque_values(stored([draft]))

    # ---------------------------------------------------------------- any bytes

    def test_events_of_unknown_kinds_are_passed_over(self) -> None:
        for seed in range(len(self.answers)):
            rng, answer, events = self.sampled(seed)
            for _ in range(3):
                events.insert(rng.randrange(len(events)), {"type": "of_the_future", "event_type": "of_the_future"})
            stream, _ = self.read(pieces_of(self.encoded(events, rng), rng))
            assert exact_json(stream.response()) == exact_json(answer)

    def test_damaged_events_are_told_and_never_anything_else(self) -> None:
        for seed in range(5 * SEEDS):
            rng, _, events = self.sampled(seed)
            damaged: Any = [event for event in events if isinstance(event, dict)]
            for _ in range(rng.randrange(1, 4)):
                damaged = bent(damaged, rng)
            self.survives(damaged if isinstance(damaged, list) else [damaged])

    def test_damaged_bytes_are_told_and_never_anything_else(self) -> None:
        recordings = [data for _, data, _ in self.recordings()]
        for seed in range(5 * SEEDS):
            rng = random.Random(seed)
            data = bytearray(rng.choice(recordings))
            for _ in range(rng.randrange(1, 6)):
                at, size = rng.randrange(len(data) + 1), rng.randrange(40)
                match rng.randrange(4):
                    case 0:
                        del data[at : at + size]
                    case 1:
                        data[at:at] = rng.randbytes(size)
                    case 2:
                        other = rng.choice(recordings)
                        data[at : at + size] = other[(begin := rng.randrange(len(other))) : begin + 3 * size]
                    case _:
                        data[at : at + 1] = rng.choice((b"\n", b"\r", b'"', b"{", b"}", b"\x00", b"null", b"\xff"))
            self.survives(list(pieces_of(bytes(data), rng)))

    def survives(self, pieces: Sequence[Any]) -> None:
        """FormatError is all that is raised, whatever comes, and the answer so far is one that can be read or not."""
        stream = self.format.stream()
        refused: FormatError | None = None
        try:
            for piece in pieces:
                stream.feed(piece)
            stream.close()
        except FormatError as error:
            refused = error
        if refused is not None:
            assert refused.message and refused.hint
            assert stream.feed({"type": "error", "error": {"message": "x"}}) == []
        part = stream.response()
        if part is None:
            return
        try:
            check_json(part)
            draft = self.draft(part)
        except FormatError:
            return
        if draft is not None:
            stored([draft])

    def test_time_is_linear_in_what_comes(self) -> None:
        growing = [(sum(map(self.only_grows, self.grown(one, 0))), at) for at, one in enumerate(self.answers)]
        answer = self.answers[max(growing)[1]]
        longer = {size: self.grown(answer, size) for size in (2_000, 64_000)}

        def seconds(size: int) -> float:
            stream = self.format.stream()
            begun = time.process_time()
            for event in longer[size]:
                stream.feed(event)
            stream.response()
            return time.process_time() - begun

        most = 3 * 32 * min(seconds(2_000) for _ in range(3))
        assert any(seconds(64_000) < most for _ in range(2))

    def grown(self, answer: Any, times: int) -> list[Any]:
        """The events of an answer, those that only grow something ``times`` times."""
        events = [event for event in self.events(answer, random.Random(0)) if isinstance(event, dict)]
        last = max((i for i, event in enumerate(events) if self.only_grows(event)), default=0)
        return [*events[: last + 1], *([events[last]] * times)]

    @abstractmethod
    def only_grows(self, event: Any) -> bool:
        """Whether an event brings more text, and may come any number of times."""

"""The contract of interop/format.py as tests: subclass ``FormatSuite`` in a test module, and say which format it is,
which requests its API takes, and where its vectors are."""

from __future__ import annotations

import random
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..document.binding import Target
from ..document.canonical import exact_json, parse_json
from ..document.entry import Entry, Reasoning, Text, ToolCall, ToolResult, Unknown, part_to_json
from ..document.entry_state import entry_of, entry_state_of
from ..document.frame import EMPTY_FRAME, Frame
from ..document.imported import ImportChain
from ..exceptions import FormatError
from ..ids import ContentHash, DocumentId, EntryId, SessionId, tagged_hash, text_of
from ..interop.export import Export, export
from ..interop.format import Draft, Format, Outline, survey
from ..interop.json_input import members_of, parse
from ..interop.registry import STREAMED, detect, format_of, names

NOW = 1_800_000_000.0
"""The time of every export here, in seconds since 1970."""


def stored(drafts: Sequence[Draft]) -> list[Entry]:
    """Drafts as a document gives them back: an imported history, through the text that stands in the document."""
    chain = ImportChain(DocumentId("c"))
    entries: list[Entry] = []
    for draft in drafts:
        answers = (entries[draft.answers[0]].id, draft.answers[1]) if draft.answers else None
        made = chain.make(
            draft.role,
            draft.parts,
            author=draft.author,
            answers=answers,
            hidden=draft.hidden,
            frame_bound=draft.frame_bound,
        )
        chain.add(made)
        entries.append(entry_of(made.id, entry_state_of(made.id, dict(made.fields)), None, "local"))
    return entries


def opaque_values(entries: Sequence[Entry]) -> set[str]:
    """The opaque strings of all hidden fields that are long enough to be told apart."""
    found: set[str] = set()
    todo: list[Any] = [parse_json(field.data.decode()) for entry in entries for field in entry.hidden.values()]
    while todo:
        value = todo.pop()
        if isinstance(value, str) and "OPAQUE" in value:
            found.add(exact_json(value)[1:-1])
        elif isinstance(value, dict):
            todo += value.values()
        elif isinstance(value, list):
            todo += value
    return found


class FormatSuite:
    """Each test says one sentence of the contract. Opaque strings in the vectors have the letters OPAQUE in them, so
    that they are found wherever they turn up."""

    @property
    @abstractmethod
    def format(self) -> Format:
        """The format."""

    @property
    @abstractmethod
    def vectors(self) -> Path:
        """The folder with a folder of vectors for each format; a vector is a file of the format."""

    @abstractmethod
    def problems(self, body: Any) -> list[str]:
        """Why the API would refuse a request; written apart from the format."""

    @property
    @abstractmethod
    def broken(self) -> Mapping[str, Any]:
        """For each of the format's rules that prevents an error, by its name, a request that breaks it."""

    def log_problems(self, messages: list[Any]) -> list[str]:
        """The same of a log, which may end with any turn."""
        return self.problems({self.format.member: messages})

    def comparable(self, messages: Any) -> Any:
        """Messages without what stands beside the content and may change later, as cache points."""
        return messages

    # ---------------------------------------------------------------- helpers

    def values(self, name: str | None = None) -> list[tuple[str, Any]]:
        folder = self.vectors / (name or self.format.name)
        return [(path.stem, parse(path.read_text("utf-8"))) for path in sorted(folder.glob("*.json"))]

    def outline(self, value: Any, format: Format | None = None) -> Outline:
        return (format or self.format).outline(survey(members_of(value, STREAMED)))

    def own_target(self, value: Any) -> Target:
        return self.format.target(model=self.outline(value).model)

    def put(self, entries: Sequence[Entry], target: Target | None = None) -> Export:
        """The export, which is valid: as a log, and as a request."""
        made = export(self.format, entries, target or self.format.target(), now=NOW)
        assert self.log_problems(made.messages) == [], exact_json(made.messages)
        assert self.problems(made.body) == [], exact_json(made.body)
        exact_json(made.body)
        return made

    # ---------------------------------------------------------------- round trip

    def test_there_are_enough_vectors(self) -> None:
        assert len(self.values()) >= 15

    def test_what_is_read_and_written_again_is_the_same(self) -> None:
        for name, value in self.values():
            entries = stored(self.format.read(value))
            made = export(self.format, entries, self.own_target(value), now=NOW)
            assert [str(line) for line in made.left_out] == [], name
            messages = value if isinstance(value, list) else value[self.format.member]
            if isinstance(messages, list):
                assert exact_json(made.messages) == exact_json(messages), name
                assert self.log_problems(made.messages) == [], name
            if isinstance(value, dict) and self.problems(value) == []:
                assert exact_json(made.body) == exact_json(value), name

    def test_its_files_are_known_for_what_they_are(self) -> None:
        for name, value in self.values():
            assert detect(survey(members_of(value, STREAMED))).name == self.format.name, name

    def test_bad_input_is_told_and_never_anything_else(self) -> None:
        for seed in range(150):
            rng = random.Random(seed)
            _, value = rng.choice(self.values())
            for _ in range(rng.randrange(1, 4)):
                value = bent(value, rng)
            try:
                entries = stored(self.format.read(value))
            except FormatError as error:
                refused = error
            else:
                self.put(entries)
                continue
            assert refused.message and refused.hint

    # ---------------------------------------------------------------- hidden state

    def test_opaque_values_stand_in_hidden_fields_alone(self) -> None:
        found = 0
        for name, value in self.values():
            entries = stored(self.format.read(value))
            shown = exact_json([part_to_json(part) for entry in entries for part in entry.parts])
            assert "OPAQUE" not in shown, name
            for entry in entries:
                assert entry.hidden.keys() <= set(self.format.hidden_names), name
                assert all(field.binding.get("provider") for field in entry.hidden.values()), name
            found += len(opaque_values(entries))
        assert found or not self.format.hidden_names

    def test_fields_go_out_only_where_their_bindings_hold(self) -> None:
        for name, value in self.values():
            entries = stored(self.format.read(value))
            made = self.put(entries, replace(self.own_target(value), provider="nobody"))
            assert "OPAQUE" not in exact_json(made.body), name
            fields = sum(len(entry.hidden) for entry in entries)
            assert len(made.left_out) == fields, name
            self.put([_forged(entry) for entry in entries], self.own_target(value))

    def test_another_format_gets_nothing_and_coming_back_brings_all_back(self) -> None:
        for name, value in self.values():
            entries = stored(self.format.read(value))
            before = export(self.format, entries, self.own_target(value), now=NOW)
            for other in names():
                if other == self.format.name:
                    continue
                there = format_of(other)
                said = export(there, entries, there.target(), now=NOW)
                assert "OPAQUE" not in exact_json(said.body), (name, other)
            more = [*entries, said_by("assistant", "from elsewhere", 1), said_by("user", "back again", 2)]
            after = self.put(more, self.own_target(value))
            assert after.report[: len(before.report)] == before.report, name
            sent = opaque_values(entries)
            text = exact_json(after.body)
            assert all(one in text for one in sent), name

    def test_what_other_formats_brought_is_valid_here(self) -> None:
        for other in names():
            if other == self.format.name or not (self.vectors / other).exists():
                continue
            for _, value in self.values(other):
                made = self.put(stored(format_of(other).read(value)))
                assert "OPAQUE" not in exact_json(made.body)

    # ---------------------------------------------------------------- valid requests

    def test_whatever_stands_in_whatever_order_is_written_as_a_valid_request(self) -> None:
        pool = self._pool()
        for seed in range(400):
            rng = random.Random(seed)
            entries = _history(rng, pool)
            target = rng.choice([self.format.target(), Target("other")])
            self.put(entries, target)

    def test_a_history_that_merged_into_another_is_valid(self) -> None:
        pool = self._pool()
        histories = [stored(self.format.read(value)) for _, value in self.values()]
        for seed in range(200):
            rng = random.Random(seed)
            entries = list(rng.choice(histories))
            for entry in _history(rng, pool)[: rng.randrange(1, 6)]:
                entries.insert(rng.randrange(len(entries) + 1), entry)
            if rng.random() < 0.3 and len(entries) > 1:
                del entries[rng.randrange(len(entries))]
            self.put(list({entry.id: entry for entry in entries}.values()))

    def test_what_was_sent_for_a_generation_stays_the_beginning(self) -> None:
        pool = self._pool()
        for seed in range(200):
            entries = _history(random.Random(seed), pool)
            whole = self.put(entries).messages
            for at, entry in enumerate(entries):
                if entry.role == "assistant" and entry.frame and not entry.frame.assumed:
                    made = export(self.format, entries[:at], self.format.target(), now=NOW)
                    sent = made.body[self.format.member]
                    wrote = export(self.format, entries[: at + 1], self.format.target(), now=NOW).messages
                    if len(wrote) > len(made.messages):  # else the answer says nothing that is sent
                        told = self.comparable(sent)
                        assert self.comparable(whole)[: len(told)] == told

    def test_every_rule_fires(self) -> None:
        assert {rule.name for rule in self.format.rules if rule.prevents} == set(self.broken)
        for rule in self.format.rules:
            if rule.prevents:
                found = self.problems(self.broken[rule.name])
                assert any(rule.prevents in problem for problem in found), (rule, found)

    def _pool(self) -> list[Entry]:
        """Entries of all formats that have vectors here."""
        pool: list[Entry] = []
        for name in names():
            if (self.vectors / name).exists():
                for _, value in self.values(name):
                    pool += stored(format_of(name).read(value))
        return pool


def _forged(entry: Entry) -> Entry:
    """The entry with values in its hidden fields that no format wrote: of another kind, and at places that aren't
    there."""
    forged = {}
    for key, field in entry.hidden.items():
        values = parse_json(field.data.decode())
        paths = [path for path, _ in values] if isinstance(values, list) else []
        made = [[path, 5] for path in paths] + [[[0, "x"], []], [["x"], 1], 7]
        forged[key] = replace(field, data=exact_json(made).encode())
    return replace(entry, hidden=forged)


_NO_SESSION = SessionId("A" * 22)
_ALPHABET = ("", " ", "one", "zwei\n", "\u2028", '{"a": 1}')


def _id(rng: random.Random) -> EntryId:
    return EntryId(text_of(rng.randbytes(12)))


def said_by(role: Any, text: str, seed: int) -> Entry:
    rng = random.Random(seed)
    return _entry(rng, role, (Text(text),))


def _entry(rng: random.Random, role: Any, parts: tuple[Any, ...], **more: Any) -> Entry:
    hash_ = ContentHash(tagged_hash("test", rng.randbytes(8)))
    entry = Entry(_id(rng), role, parts, "complete", hash_, "", _NO_SESSION, (), rng.randrange(99), 0.0)
    return replace(entry, **more)


def _history(rng: random.Random, pool: Sequence[Entry]) -> list[Entry]:
    """Any entries in any order, as no API ever wrote them."""
    entries: list[Entry] = []
    for _ in range(rng.randrange(1, 12)):
        if pool and rng.random() < 0.5:
            made = rng.choice(pool)
            answers = made.answers
            calls = [(e.id, call.id) for e in entries for call in e.tool_calls]
            if made.role == "tool" and calls and rng.random() < 0.8:
                answers = rng.choice(calls)
            frame = made.frame and replace(made.frame, assumed=rng.random() < 0.3)
            entries.append(replace(made, id=_id(rng), answers=answers, frame=frame, lamport=rng.randrange(99)))
        else:
            entries.append(_random_entry(rng, entries))
        if rng.random() < 0.1:
            status: Any = rng.choice(("stopped", "failed", "erased"))
            entries[-1] = replace(entries[-1], status=status, parts=() if status == "erased" else entries[-1].parts)
        if rng.random() < 0.05:
            entries[-1] = replace(entries[-1], hash=None, status="streaming")
    return entries


def _random_entry(rng: random.Random, entries: Sequence[Entry]) -> Entry:
    role = rng.choice(("system", "user", "user", "assistant", "assistant", "tool", "tool"))
    text = rng.choice(_ALPHABET)
    more: dict[str, Any] = {}
    parts: list[Any] = [Text(text)]
    if role == "assistant":
        if rng.random() < 0.8:
            more["frame"] = Frame(None, (), EMPTY_FRAME)
        if rng.random() < 0.4:
            parts.insert(0, Reasoning(rng.choice(_ALPHABET)))
        for _ in range(rng.randrange(3)):
            call = rng.choice(("c1", "c1", "", "call|2", "c" * 80, f"c{rng.randrange(9)}"))
            parts.append(
                ToolCall(call, rng.choice(("look", "", "a b")), rng.choice(("{}", "", '{"a": 1.10}', "[", "5")))
            )
        if rng.random() < 0.2:
            parts = []
    elif role == "tool":
        calls = [(e.id, call.id) for e in entries for call in e.tool_calls]
        more["answers"] = rng.choice(calls) if calls and rng.random() < 0.9 else None
        parts = [ToolResult(text, rng.random() < 0.2)]
    if rng.random() < 0.1:
        kind = rng.choice(("text", "image_url", "other", *(f"{name}/{end}" for name in names() for end in _ENDS)))
        parts.append(Unknown({"type": kind, "block": rng.choice(({}, 5, {"type": "text"}, {"type": "tool_use"}))}))
    return _entry(rng, role, tuple(parts), **more)


_ENDS = ("message", "block")


def bent(value: Any, rng: random.Random) -> Any:
    """The value with something else at one place."""
    if isinstance(value, dict) and value and rng.random() < 0.9:
        key = rng.choice(sorted(value))
        if rng.random() < 0.15:
            return {name: inner for name, inner in value.items() if name != key}
        return {**value, key: bent(value[key], rng)}
    if isinstance(value, list) and value and rng.random() < 0.9:
        at = rng.randrange(len(value))
        return [*value[:at], bent(value[at], rng), *value[at + 1 :]]
    return rng.choice((None, True, 5, "", "x", [], {}, [{}], {"type": "text"}, "user", "OPAQUE"))

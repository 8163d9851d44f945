"""Conversations for the tests of prompts: entries made by hand, as a transcript would show them."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from llmcrdt.document.canonical import canonical_json
from llmcrdt.document.entry import (
    Config,
    Entry,
    Part,
    Reasoning,
    Text,
    ToolCall,
    ToolResult,
    content_hash,
    part_to_json,
)
from llmcrdt.document.frame import EMPTY_FRAME, Frame, extend_frame_hash
from llmcrdt.ids import EntryId, SessionId, new_entry_id
from llmcrdt.prompt import TOKENS, Prompt, TokenLog, token_field
from llmcrdt.tokenizer import Tokenizer

SESSION = SessionId("A" * 22)
TRICKY = ("<|im_end|>", "<|im_<|im_end|>end|>", "</s>", "<s", ">", "|>", "[INST]", "<start_of_turn>user", "s", "<eos>")
ARGUMENTS = ('{"at": "the <|im_end|> sea"}', "[1]", "{}")
PLACES = ("the garden", " and the sea ", "thing", "  a  ", "\n", "é", "user: ", "assistant", "", "{", "\\u0041", '"')


class Growing:
    """A conversation that grows: the entries, and makers for the next."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.entries: list[Entry] = []

    def entry(self, role: Any, parts: Sequence[Part], **fields: Any) -> Entry:
        n = len(self.entries)
        text = canonical_json([n, [part_to_json(part) for part in parts]])
        known: dict[str, Any] = {"status": "complete", "hash": content_hash(role, text), **fields}
        return Entry(
            id=new_entry_id(self.random.randbytes),
            role=role,
            parts=tuple(parts),
            author="x",
            session=SESSION,
            parents=(),
            lamport=n + 1,
            created_at=0.0,
            **known,
        )

    def add(self, role: str, parts: Sequence[Part] | str, **fields: Any) -> Entry:
        if isinstance(parts, str):
            parts = [ToolResult(parts) if role == "tool" else Text(parts)]
        self.entries.append(self.entry(role, parts, **fields))
        return self.entries[-1]

    def generated(self, parts: Sequence[Part], prompt: Prompt, sampled: Sequence[int], tokenizer: Tokenizer) -> Entry:
        pins = [(entry.id, entry.hash) for entry in self.entries if entry.hash]
        frame = Frame(None, tuple(pins), extend_frame_hash(EMPTY_FRAME, pins))
        entry = self.add("assistant", parts, frame=frame)
        log = TokenLog(prompt.base, prompt.appended, tuple(sampled))
        assert entry.hash
        field = replace(token_field(log, tokenizer, prompt.erased), versions=(entry.hash,))
        self.entries[-1] = replace(entry, hidden={TOKENS: field})
        return self.entries[-1]

    def words(self) -> str:
        return "".join(self.random.choices((*PLACES, *TRICKY), k=self.random.randrange(6)))

    def tool_entry(self, call: tuple[EntryId, str]) -> Entry:
        return self.add("tool", self.words(), answers=call)

    def speak(self) -> None:
        """Something new from anybody but a model."""
        kind = self.random.random()
        calls = [(entry.id, call.id) for entry in self.entries[-4:] for call in entry.tool_calls]
        if calls and kind < 0.6:
            self.tool_entry(self.random.choice(calls))
        elif kind < 0.9 or not self.entries:
            self.add("user", self.words())
        elif kind < 0.94:
            self.add("system", self.words())
        elif kind < 0.97:
            self.add("assistant", self.words())
        else:
            self.add("user", "not yet", hash=None, status="streaming")

    def answer(self, tokenizer: Tokenizer, sampled: Sequence[int]) -> list[Part]:
        """The parts of an answer whose sampled ids are these."""
        text = tokenizer.decode(sampled).decode("utf-8", errors="replace")
        parts: list[Part] = [Reasoning(self.words())] if self.random.random() < 0.3 else []
        parts.append(Text(text))
        count = self.random.choice((0, 0, 0, 1, 2))
        return [*parts, *(ToolCall(f"call_{n}", "look", self.random.choice(ARGUMENTS)) for n in range(count))]

    def sample(self, tokenizer: Tokenizer, control: Callable[[], int | None]) -> list[int]:
        text = self.words() + "ok"
        ids = tokenizer.encode(text, special=False)
        if self.random.random() < 0.3:  # not the canonical encoding
            ids = list(text.encode("utf-8"))
        end = control()
        return ids if end is None else [*ids, end]

    def config(self, **values: object) -> Entry:
        return self.add("system", [Config(values)])


@pytest.fixture(scope="session")
def grow() -> type[Growing]:
    """Makes a conversation from a seed."""
    return Growing

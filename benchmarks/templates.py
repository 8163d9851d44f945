"""Chat templates of real models: is what a model saw the beginning of its next prompt, without and with the token log?

For each template and each kind of answer a conversation is made, with the ids that a model would have sampled, and its
next prompt is rendered twice: anew, as chat APIs do, and by the token log. A template's tags are one token each here,
its words are bytes and a few longer tokens.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import llmcrdt
from llmcrdt.document.entry import Entry, Part, Reasoning, Text, ToolCall
from llmcrdt.exceptions import TemplateFailed
from llmcrdt.prompt import TOKENS, Prompt, Settings, TokenLog, prompt_ids, token_field
from llmcrdt.prompt.adapt import Level
from llmcrdt.prompt.guard import Guard
from llmcrdt.prompt.render import Renderer
from llmcrdt.testing.templates import WORDS
from llmcrdt.testing.tokenizer import ByteTokenizer

from .report import Report
from .sdist import models_folder

BOS, EOS = "<|bos|>", "<|eos|>"
ASKED, ANSWERED, THOUGHT, NEXT = "Where is the sea?", "In the north.", "The map shows it.", "And the castle?"
WORD, RESULT = "Qzjxq", "It is blue."
CALL = ToolCall("call00001", "look", '{"at":"sea"}')
TOOL = {
    "type": "function",
    "function": {
        "name": "look",
        "description": "Looks.",
        "parameters": {"type": "object", "properties": {"at": {"type": "string"}}, "required": ["at"]},
    },
}
KINDS: dict[str, tuple[Part, ...]] = {
    "text": (Text(ANSWERED),),
    "reasoning": (Reasoning(THOUGHT), Text(ANSWERED)),
    "tool call": (Text(""), CALL),
    "cut short": (Text(ANSWERED),),
    "other ids": (Text(ANSWERED),),
}
"""Kinds of answer. "cut short" has no end-of-turn token; "other ids": sampled as other tokens than its text has."""

LONG = ("text", "tool call", "reasoning", "cut short", "tool call", "text", "reasoning")
_ASKED = {"role": "user", "content": ASKED}
_WORD = {"role": "assistant", "content": WORD}
_BEGINS = re.compile("start|begin", re.IGNORECASE)
_TAG = re.compile(r"<[^\s<>'\"{}%#]{1,40}>|\[/?[A-Z_]+\]|\]~?[a-z!]+~?b?\[|\[e~\[|\]~b\]")


@dataclass(frozen=True)
class Found:
    """Of one template and one kind of answer: whether what the model saw begins the next prompt. ``why``: what breaks
    it without the log. ``alike``: with the log, what follows is what the template itself prints there."""

    template: str
    kind: str
    without: bool
    with_log: bool
    alike: bool
    why: str = ""


@dataclass
class TemplateReport(Report):
    found: list[Found] = field(default_factory=list)
    long: dict[str, list[bool]] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)

    def table(self) -> str:
        lines = [super().table(), "", "  without the log the next prompt begins otherwise:"]
        lines += [f"    {f.template}, {f.kind}: {f.why}" for f in self.found if not f.without and f.kind != "other ids"]
        lines += ["", "  with the log:"]
        lines += [f"    {f.template}, {f.kind}: begins otherwise" for f in self.found if not f.with_log]
        lines += [f"    {name}, in a long talk: begins otherwise" for name, held in self.long.items() if not all(held)]
        lines += [f"    {f.template}, {f.kind}: goes on otherwise" for f in self.found if f.with_log and not f.alike]
        lines += ["", "  not rendered:", *(f"    {name}: {why}" for name, why in self.refused.items())]
        return "\n".join(lines)

    def as_json(self) -> dict[str, Any]:
        found = [asdict(f) for f in self.found]
        return super().as_json() | {"found": found, "long": self.long, "refused": self.refused}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--sdist", type=Path, metavar="FILE_OR_DIR",
        help="llama-cpp-python's source package, or the folder it was unpacked to (default: pip downloads it, once)",
    )  # fmt: skip


def run(options: argparse.Namespace) -> Report:
    return look_at(sorted((models_folder(options.sdist, fetch=True) / "templates").glob("*.jinja")))


def look_at(files: Sequence[Path]) -> TemplateReport:
    """The report over template files."""
    report = TemplateReport("templates")
    with tempfile.TemporaryDirectory() as folder, llmcrdt.open(Path(folder) / "talks.db") as repo:
        for file in files:
            source = file.read_text(encoding="utf-8")
            for kind in KINDS:
                try:
                    report.found.append(_look(repo, file.stem, source, kind))
                except TemplateFailed as error:
                    report.refused[f"{file.stem}, {kind}"] = str(error).partition(" Use a model")[0]
            with contextlib.suppress(TemplateFailed):  # said above
                report.long[file.stem] = list(_long(repo, source))
    report.add("templates", len(files), "")
    report.add("templates that render", len({found.template for found in report.found}), "")
    for kind in KINDS:
        of_kind = [f for f in report.found if f.kind == kind]
        report.add(f"{kind}: what the model saw begins the next prompt, without the log", _sum(of_kind, "without"), "")
        held = _sum(of_kind, "with_log")
        report.add(f"{kind}: the same with the log", held, "", len(of_kind), "least")
    long = [held for talk in report.long.values() for held in talk]
    name = f"{len(LONG)} answers of all kinds in one talk: prompts that begin so, with the log"
    report.add(name, sum(long), "", len(long), "least")
    return report


def _sum(found: Sequence[Found], name: str) -> int:
    return sum(getattr(f, name) for f in found)


def _look(repo: llmcrdt.Repo, name: str, source: str, kind: str) -> Found:
    """One conversation: a question, an answer as it is sampled, and what comes next."""
    said, end = _Model(source).says(kind)
    tokenizer = _tokenizer(source, [end])
    sampled = tokenizer.encode(said, special=True)
    if kind == "other ids":
        sampled = [*said.removesuffix(end).encode(), *tokenizer.encode(end, special=True)]
    conv = repo.create()
    if kind == "tool call":
        conv.append("system", [llmcrdt.Config({"tools": [TOOL]})])
    conv.append("user", ASKED)
    first, anew = _answer(conv, tokenizer, KINDS[kind], sampled)
    logged, again = _prompts(list(conv.transcript()), tokenizer)
    seen, seen_anew = (*first.ids, *sampled), (*anew.ids, *sampled)
    without = again.ids[: len(seen_anew)] == seen_anew
    rest = _text(logged.ids[len(seen) :], tokenizer)
    whole = _text(again.ids, tokenizer)
    why = "" if without else _why(_text(anew.ids, tokenizer), _text(sampled, tokenizer), whole)
    alike = logged.ids == again.ids if without and kind != "other ids" else whole.endswith(rest)
    return Found(name, kind, without, logged.ids[: len(seen)] == seen, alike, why)


def _long(repo: llmcrdt.Repo, source: str) -> Iterator[bool]:
    """One conversation with tools and answers of all kinds: whether each prompt begins with what the model saw."""
    says = {kind: _Model(source).says(kind) for kind in LONG}
    tokenizer = _tokenizer(source, [end for _, end in says.values()])
    conv = repo.create()
    seen: tuple[int, ...] = ()
    conv.append("system", "Be brief.", tools=[TOOL])
    conv.append("user", ASKED)
    for n, kind in enumerate(LONG):
        sampled = tokenizer.encode(says[kind][0], special=True)
        parts = [replace(part, id=f"call{n:05}") if isinstance(part, ToolCall) else part for part in KINDS[kind]]
        prompt, _ = _answer(conv, tokenizer, parts, sampled)
        yield prompt.ids[: len(seen)] == seen
        seen = (*prompt.ids, *sampled)


def _tokenizer(source: str, ends: Iterable[str]) -> ByteTokenizer:
    ends = sorted({end for end in ends if end})
    tags = sorted({*_TAG.findall(source), BOS, EOS, *ends})
    return ByteTokenizer(source, tags, end=ends, bos=BOS, eos=EOS, words=WORDS)


def _answer(
    conv: llmcrdt.Conversation, tokenizer: ByteTokenizer, parts: Sequence[Part], sampled: Sequence[int]
) -> tuple[Prompt, Prompt]:
    """Answer as it is sampled, and append what comes next. The prompts for it, by the log and anew."""
    transcript = conv.transcript()
    first, anew = _prompts(list(transcript), tokenizer)
    log = TokenLog(first.base, first.appended, tuple(sampled))
    with conv.stream("assistant", frame=transcript) as stream:
        answer = stream.seal(parts=parts, hidden={TOKENS: token_field(log, tokenizer)})
    if answer.tool_calls:
        conv.append("tool", RESULT, call=answer.tool_calls[0])
    else:
        conv.append("user", NEXT)
    return first, anew


def _prompts(entries: Sequence[Entry], tokenizer: ByteTokenizer) -> tuple[Prompt, Prompt]:
    """By the log, and rendered anew."""
    return (
        prompt_ids(entries, tokenizer, created_at=0.0),
        prompt_ids(entries, tokenizer, created_at=0.0, use_log=False),
    )


def _why(prompt: str, said: str, now: str) -> str:
    """The change that the template made to the text that the model saw."""
    if now.startswith(prompt + said):
        return "the same text is other tokens"
    at = len(_common(prompt + said, now))
    if at < len(prompt):
        cause = "the prompt itself is printed otherwise"
    elif THOUGHT in said and THOUGHT not in now:
        cause = "reasoning is left out"
    else:
        cause = "the answer is printed otherwise"
    return f"{cause}: {(prompt + said)[at : at + 24]!r} became {now[at : at + 24]!r}"


class _Model:
    """The words of a model of this template: the answer as its template prints it in a history, up to the end of the
    turn."""

    def __init__(self, source: str) -> None:
        self._tokenizer = ByteTokenizer(source, (), end=(), bos=BOS, eos=EOS)

    def says(self, kind: str) -> tuple[str, str]:
        """The text of an answer, and the tag at its end that ends the turn ("": none)."""
        if kind == "tool call":
            return self._call()
        after = {"role": "user", "content": NEXT}
        closing, end = self._closing(_WORD, after)
        if kind != "reasoning":
            said = self._new(self._render(_ASKED, _WORD, after)).rpartition(WORD)[0] + ANSWERED
            return (said, end) if kind == "cut short" else (said + closing, end)
        turn = self._new(self._render(_ASKED, {**_WORD, "reasoning_content": THOUGHT})).rpartition(WORD)[0]
        if THOUGHT not in turn:  # this template prints no reasoning
            opened = self._render(_ASKED, generating=True).rstrip().endswith("<think>")
            turn = ("" if opened else "<think>\n") + THOUGHT + "\n</think>\n\n"
        return turn + ANSWERED + closing, end

    def _call(self) -> tuple[str, str]:
        function = {"name": CALL.name, "arguments": {"at": "sea"}}
        call = {"type": "function", "id": CALL.id, "function": function}
        message = {"role": "assistant", "content": "", "tool_calls": [call]}
        result = {"role": "tool", "content": RESULT, "tool_call_id": CALL.id, "name": CALL.name}
        closing, end = self._closing(_WORD, {"role": "user", "content": NEXT})
        untold = '{"name": "look", "arguments": {"at": "sea"}}' + closing, end
        try:
            words = self._new(self._render(_ASKED, message, tools=True), tools=True)
            if end not in words:
                end = self._closing(message, result, tools=True)[1]
        except TemplateFailed:
            return untold
        if CALL.name not in words:  # this template prints no calls
            return untold
        return (words[: words.rindex(end) + len(end)] if end and end in words else words + end), end

    def _new(self, turn: str, *, tools: bool = False) -> str:
        """The text that a rendered turn has beyond the prompt for it, in whole tags."""
        at = len(_common(self._render(_ASKED, generating=True, tools=tools), turn))
        return turn[next((tag.start() for tag in _TAG.finditer(turn) if tag.start() < at < tag.end()), at) :]

    def _closing(self, answer: dict[str, Any], after: dict[str, Any], *, tools: bool = False) -> tuple[str, str]:
        """The end of a turn: the text from the answer's words to the tag that says so, and that tag.

        It is the last tag that stands both before what comes after and where nothing does; or else the first.
        """
        last, amid = (self._render(_ASKED, *rest, tools=tools) for rest in ([answer], [answer, after]))
        if WORD in last:
            last, amid = last.rpartition(WORD)[2], amid.rpartition(WORD)[2]
        both = _common(last, amid)
        for text, which in ((both, -1), (last if WORD in str(answer) else "", -1), (amid[len(both) :], 0)):
            tags = list(_TAG.finditer(text))
            if which and (ends := [tag for tag in tags if not _BEGINS.search(tag[0])]):
                tags = ends
            if tags:
                return text[: tags[which].end()], tags[which][0]
        return "", ""

    def _render(self, *messages: dict[str, Any], generating: bool = False, tools: bool = False) -> str:
        return Renderer(self._tokenizer, Guard([], []), 0.0).text(
            messages, Settings(tools=(TOOL,) if tools else None), level=Level.PLAIN, generating=generating
        )


def _text(ids: Sequence[int], tokenizer: ByteTokenizer) -> str:
    tokens = (tokenizer.token_text(i).encode() if i >= 256 else bytes([i]) for i in ids)
    return b"".join(tokens).decode("utf-8", "replace")


def _common(one: str, other: str) -> str:
    return os.path.commonprefix([one, other])  # noqa: RUF071 - characters are what is compared

"""The cost of each turn of one client: what it sends, and what is evaluated for it, beside resending the history."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import llmcrdt

from ..interop import openai_chat
from .plot import Curves

MEASURED, COMPUTED = 2, 3
"""Figures of a turn: those that are measured, and those that are computed from the same prompt."""

SYSTEM = "You are a friendly guide to Lisbon. Answer in a few words."
QUESTIONS = (
    "Where do we have breakfast?",
    "Which tram goes up to the castle?",
    "Is it far on foot?",
    "What can we see there?",
    "Where is a good view over the river?",
    "What do people eat for lunch?",
    "Does it rain in May?",
    "Where can we hear music tonight?",
    "How do we get to the sea?",
    "What shall we bring home?",
)


@dataclass(frozen=True)
class TurnCost:
    """``sent``: bytes that the device sent to the relay, question and answer, measured at the socket. ``evaluated``:
    tokens that llama.cpp evaluated, those of the prompt and those that were settled after the answer, measured there.

    Computed: ``resent``, the bytes of a chat-completions request with the whole history; ``whole``, the tokens of the
    whole prompt, which a server without a prefix cache evaluates; ``beyond``, those that the prompt and answer before
    didn't have, which one with a prefix cache evaluates that never forgets.
    """

    sent: int
    evaluated: int
    resent: int
    whole: int
    beyond: int


def measure(
    repo: llmcrdt.Repo,
    link: llmcrdt.Link,
    engine: llmcrdt.LlamaEngine,
    turns: int,
    *,
    max_tokens: int,
    timeout: float,
    crdt: str | None = None,
    tell: Callable[[int], None] = lambda turn: None,
) -> list[TurnCost]:
    """Talk for so many turns in a new conversation, and measure each. ``tell`` is called after each turn."""
    conversation = repo.create(f"{turns} turns", crdt=crdt)
    conversation.append("system", SYSTEM)
    link.wait_synced(timeout)
    costs: list[TurnCost] = []
    had = 0  # tokens that a server has of the turn before
    for turn in range(turns):
        sent, evaluated = link.bytes_sent, _evaluated(engine)
        conversation.append("user", QUESTIONS[turn % len(QUESTIONS)])
        resent = request_bytes(conversation)
        generation = llmcrdt.generate(conversation, engine, max_tokens=max_tokens, seed=turn, temperature=0.5)
        generation.result(timeout)
        engine.settled(timeout)
        link.wait_synced(timeout)
        whole = int(generation.stats["total"])
        costs.append(
            TurnCost(link.bytes_sent - sent, _evaluated(engine) - evaluated, resent, whole, max(1, whole - had))
        )
        had = whole + int(generation.stats["sampled"])
        tell(turn + 1)
    return costs


def request_bytes(conversation: llmcrdt.Conversation) -> int:
    """The body that a chat-completions client would send for the next answer."""
    body = openai_chat.export(list(conversation.transcript()))
    return len(json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode("utf-8"))


def charts(costs: list[TurnCost]) -> dict[str, Curves]:
    """The two charts by their titles."""
    return {
        "bytes sent in each turn": {
            "llmcrdt, measured": [cost.sent for cost in costs],
            "the history resent, computed": [cost.resent for cost in costs],
        },
        "tokens evaluated in each turn": {
            "llmcrdt, measured": [cost.evaluated for cost in costs],
            "a server with a prefix cache, computed": [cost.beyond for cost in costs],
            "a server without one, computed": [cost.whole for cost in costs],
        },
    }


def figures(costs: list[TurnCost]) -> dict[str, Any]:
    """For ``--json``: each turn, and the sums."""
    turns = [asdict(cost) for cost in costs]
    return {"turns": turns, "sums": {name: sum(turn[name] for turn in turns) for name in turns[0]}}


def table(costs: list[TurnCost]) -> list[str]:
    """Lines of text: some turns, and the sums of all."""
    heads = ("", "sent", "resent", "evaluated", "prefix cache", "no cache")
    picked = [n for n in (1, 10, 25, 50, 100) if n < len(costs)] + [len(costs)]
    rows = [(f"turn {n}", *_row(costs[n - 1])) for n in dict.fromkeys(picked)]
    sums = figures(costs)["sums"]
    rows.append(("all turns", *_row(TurnCost(**sums))))
    widths = [max(len(row[column]) for row in (heads, *rows)) for column in range(len(heads))]
    return [
        "  ".join(
            f"{cell:<{w}}" if n == 0 else f"{cell:>{w}}" for n, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in (heads, *rows)
    ]


def notes(costs: list[TurnCost]) -> list[str]:
    """Lines of text: how the figures came about, and what they say."""
    sums = figures(costs)["sums"]
    turns = len(costs)
    text = f"""
        {MEASURED * turns} figures are measured: bytes at the socket, tokens where llama.cpp evaluates. The other
        {COMPUTED * turns} are computed from the same prompts: the body of a request, and the tokens of a prompt, all of
        them or those beyond the turn before. Resending sends {sums["resent"] / sums["sent"]:.0f} times as much in all,
        and more with every turn; without a cache {sums["whole"] / sums["evaluated"]:.0f} times as many tokens are
        evaluated. A server with a prefix cache evaluates fewest, as long as it keeps every client's state. llmcrdt
        evaluates up to a chunk of 64 tokens again, and what was sampled once more, so that state can be restored bit
        for bit.
    """
    return textwrap.wrap(" ".join(text.split()), 97)


def _row(cost: TurnCost) -> tuple[str, ...]:
    return tuple(f"{value:,}" for value in (cost.sent, cost.resent, cost.evaluated, cost.beyond, cost.whole))


def _evaluated(engine: llmcrdt.LlamaEngine) -> int:
    stats = engine.stats()
    return int(stats["prompt_tokens"]) + int(stats["settled_tokens"])

"""Arguments that name a conversation or an entry, and the ids that a shell offers for them."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import click
from click.shell_completion import CompletionItem

import llmcrdt
from llmcrdt.exceptions import LLMCRDTError
from llmcrdt.ids import is_entry_id

from .group import OpenRepos
from .options import MANY, find

_LAST = 200
"""So many entries are offered, the last ones."""
_SHIELD = "\0"
"""Stands before an id while options are looked for; no system passes it to a program."""


def complete_conversation(context: click.Context, parameter: click.Parameter, begun: str) -> list[CompletionItem]:
    """The ids of conversations that begin so, with their titles."""
    return _offer(context, begun, lambda repo: [(row.id, row.title) for row in repo.list(limit=MANY)])


def complete_entry(context: click.Context, parameter: click.Parameter, begun: str) -> list[CompletionItem]:
    """The ids of the conversation's last entries that begin so, with their first words."""

    def ids(repo: llmcrdt.Repo) -> list[tuple[str, str]]:
        id_ = context.params.get("id") or next(iter(context.args), "")  # after an option, click leaves it in args
        entries = find(repo, id_).entries(last=_LAST)
        return [(entry.id, entry.text[:60]) for entry in reversed(entries)]

    return _offer(context, begun, ids)


def _offer(
    context: click.Context, begun: str, ids: Callable[[llmcrdt.Repo], list[tuple[str, str]]]
) -> list[CompletionItem]:
    """A shell that completes shows no errors: nothing is offered then. Words stand in one line, for each line of the
    answer is something else to a shell."""
    from ..terminal_text import safe

    try:
        with OpenRepos(context.find_root().params.get("db"), None, "")() as repo:
            found = [(id_, safe(" ".join(words.split()))) for id_, words in ids(repo) if id_.startswith(begun)]
            return [CompletionItem(id_, help=words) for id_, words in found]
    except (LLMCRDTError, OSError):
        return []


class EntryCommand(click.Command):
    """A command with the id of an entry, which may begin with a dash: nothing that looks like one is an option, and
    nothing that looks like the beginning of one with a single dash, for options of one letter stand alone."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        rest = super().parse_args(ctx, [_SHIELD + each if _may_be_id(each) else each for each in args])
        ctx.params = {name: _unshielded(value) for name, value in ctx.params.items()}
        return rest


def _may_be_id(given: str) -> bool:
    return is_entry_id(given) or re.fullmatch(r"-[A-Za-z0-9_][A-Za-z0-9_-]+", given) is not None


def _unshielded(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(map(_unshielded, value))
    return value.removeprefix(_SHIELD) if isinstance(value, str) else value


conversation_id = click.argument("id", shell_complete=complete_conversation)
entry_id = click.argument("entry", shell_complete=complete_entry)

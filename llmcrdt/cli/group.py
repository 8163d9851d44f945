"""The command group: its options, and how errors are shown."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import click

import llmcrdt
from llmcrdt.exceptions import LLMCRDTError
from llmcrdt.files import make_folder

from .options import INTERRUPTED, there

HOMES: Final[Mapping[str, str]] = {
    "new": "conversations:new",
    "list": "conversations:list_",
    "search": "conversations:search",
    "show": "conversations:show",
    "rename": "conversations:rename",
    "convert": "conversations:convert",
    "archive": "conversations:archive",
    "share": "conversations:share",
    "syncing": "relays:syncing",
    "delete": "conversations:delete",
    "append": "entries:append",
    "edit": "entries:edit",
    "others": "entries:others",
    "select": "entries:select",
    "erase": "entries:erase",
    "fork": "entries:fork",
    "seal": "entries:seal",
    "attachments": "attachments:attachments",
    "generate": "answers:generate",
    "chat": "answers:chat",
    "ask": "asking:ask",
    "asks": "asking:asks",
    "serve": "asking:serve",
    "open": "page:open_",
    "mcp": "agents:mcp",
    "sync": "relays:sync",
    "pair": "relays:pair",
    "import": "files:import_",
    "export": "files:export",
    "verify": "files:verify",
    "backup": "backups:backup",
    "restore": "backups:restore",
    "kv": "kv:kv",
    "demo": "demo:demo",
}
"""The module and the function of each command: one is loaded when it is used."""


class Commands(click.Group):
    """The commands in ``HOMES``. Turns the library's errors into one line on stderr and exit code 1."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(HOMES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in HOMES:
            return None
        module, _, function = HOMES[cmd_name].partition(":")
        command: click.Command = getattr(import_module(f".{module}", __package__), function)
        return command

    def main(self, *args: Any, **kwargs: Any) -> Any:
        kwargs["standalone_mode"] = False
        try:
            code = super().main(*args, **kwargs)
            sys.exit(code if isinstance(code, int) else 0)
        except click.UsageError as error:
            error.show()
            sys.exit(error.exit_code)
        except click.ClickException as error:
            _complain(error.format_message())
        except (click.Abort, KeyboardInterrupt):
            click.echo("llmcrdt: interrupted", err=True)
            sys.exit(INTERRUPTED)
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(1)
        except LLMCRDTError as error:
            _complain(str(error))
        except OSError as error:
            named = error.filename is not None and error.strerror
            _complain(
                f"{error.filename}: {error.strerror}. Check the name, and what you may do there."
                if named
                else str(error)
            )


def _complain(message: str) -> None:
    from ..terminal_text import safe

    click.echo("llmcrdt: " + safe(" ".join(message.split())), err=True)
    sys.exit(1)


def default_db() -> Path:
    """``$LLMCRDT_DB``, else chats.db in the user's data directory."""
    if os.environ.get("LLMCRDT_DB"):
        return Path(os.environ["LLMCRDT_DB"])
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData/Local")
    elif sys.platform == "darwin":
        base = Path.home() / "Library/Application Support"
    else:
        base = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local/share")
    return base / "llmcrdt" / "chats.db"


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option(
    "--db", type=click.Path(path_type=Path), help="SQLite file [default: $LLMCRDT_DB, then the data directory]"
)
@click.option("--library", help="id of another device's library, to join it with a new file")
@click.option("--author", default="", help="the author of what this command writes")
@click.version_option(llmcrdt.__version__, prog_name="llmcrdt")
@click.pass_context
def main(context: click.Context, db: Path | None, library: str | None, author: str) -> None:
    """Conversations with language models as replicated documents."""

    context.obj = OpenRepos(db, library, author)


class OpenRepos:
    """The repo that the command's options name. Implements ``options.Repos``."""

    def __init__(self, db: Path | None, library: str | None, author: str) -> None:
        self._db, self._library, self._author = db, library, author

    def path(self, *, folder: bool = False) -> Path:
        """Its file. ``folder``: make the default's folder; one that a person names is there, or a slip."""
        path = self._db or default_db()
        if folder and self._db is None:
            make_folder(path.parent)
        return path

    @contextmanager
    def __call__(
        self, *, create: bool = False, join: bool = False, invite: str | None = None
    ) -> Iterator[llmcrdt.Repo]:
        create = create or (join and self._library is not None)
        path = self.path(folder=create)
        path = path if create else there(path)
        with llmcrdt.open(path, self._library, invite=invite, author=self._author) as opened:
            yield opened

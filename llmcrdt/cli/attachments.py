"""The command that lists the attachments of a conversation and fetches those that are not here."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from llmcrdt.exceptions import LLMCRDTError, SyncTimeout
from llmcrdt.terminal_text import safe

from .options import Repos, as_json, find, print_json, relay_token, trusted

if TYPE_CHECKING:
    from llmcrdt.repo.carrier import Transfer

_LOOK = 0.1


@click.command()
@click.argument("id", required=False)
@click.option("--fetch", is_flag=True, help="have those that are not here come from the relay")
@click.option("--relay", metavar="URL", help='ws://HOST:PORT [default: the one that "pair" remembered]')
@relay_token
@trusted
@click.option("--timeout", default=300.0, show_default=True, type=click.FloatRange(min=0), help="seconds to wait")
@click.option("--limit", type=click.IntRange(min=0), help="from now on fetch by itself what has at most so many bytes")
@as_json
@click.pass_obj
def attachments(
    repos: Repos,
    id: str | None,
    fetch: bool,
    relay: str | None,
    token: str | None,
    ca: Path | None,
    timeout: float,
    limit: int | None,
    as_json: bool,
) -> None:
    """List the attachments of a conversation: hash, size, type, whether it is here, and its name.

    With --fetch, get those that are not here; what came before it was stopped is not fetched again. --limit sets up to
    which size they come by themselves while a link is open; 0, the default, is none.
    """
    with repos() as repo:
        if limit is not None:
            repo.attachments.limit = limit
        if id is None:
            if fetch or limit is None:
                raise click.UsageError("Name a conversation, or give --limit alone.")
            if as_json:
                print_json({"limit": repo.attachments.limit})
            return
        conversation = find(repo, id)
        failed: dict[str, str] = {}
        if fetch:
            with repo.connect(relay, token, tls=ca):
                failed = _wait(repo.attachments.fetch_all(conversation.id), timeout)
        rows = [
            {
                "hash": found.blob.hash,
                "size": found.blob.size,
                "media_type": found.blob.media_type,
                "name": found.blob.name,
                "present": found.present,
                "path": str(found.blob.path) if found.present else None,
                **({"failed": failed[found.blob.hash]} if found.blob.hash in failed else {}),
            }
            for found in repo.attachments.list(conversation.id)
        ]
        if as_json:
            print_json({"conversation": conversation.id, "limit": repo.attachments.limit, "attachments": rows})
        else:
            for row in rows:
                here = "here" if row["present"] else "not here"
                columns = (row["hash"], row["size"], row["media_type"], here, row["name"])
                click.echo("\t".join(safe(str(column)) for column in columns))
            for hash_, why in failed.items():
                click.echo(f"llmcrdt: {hash_}: {safe(why)}", err=True)
        if failed:
            sys.exit(1)


def _wait(transfers: Sequence[Transfer], timeout: float) -> dict[str, str]:
    """Those that failed, by hash, and why. Transfers under way are shown on a terminal."""
    until, failed, shown = time.monotonic() + timeout, dict[str, str](), sys.stderr.isatty()
    for transfer in transfers:
        while True:
            try:
                transfer.wait(max(0.0, min(_LOOK, until - time.monotonic())))
            except SyncTimeout as error:
                if shown:
                    done, size = sum(each.done for each in transfers), sum(each.size for each in transfers)
                    click.echo(f"\r{done} of {size} bytes\x1b[K", nl=False, err=True)
                if time.monotonic() < until:
                    continue
                failed[transfer.hash] = f"{error.message} What came is kept."
            except LLMCRDTError as error:
                failed[transfer.hash] = str(error)
            break
    if shown:
        click.echo("\r\x1b[K", nl=False, err=True)
    return failed

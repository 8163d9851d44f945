"""Commands about conversations and their entries."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import click

import llmcrdt
from llmcrdt.cli.terminal import print_entry, safe

from .options import MANY, Repos, as_json, decode, entry_json, find, print_id, print_json


@click.command()
@click.argument("title", default="")
@as_json
@click.pass_obj
def new(repos: Repos, title: str, as_json: bool) -> None:
    """Make a conversation; print its id."""
    with repos(create=True) as repo:
        print_id(repo.create(title).id, as_json)


@click.command("list")
@click.option("--limit", default=50, show_default=True, type=click.IntRange(1, MANY))
@click.option("--before", help="the last id of the page before")
@as_json
@click.pass_obj
def list_(repos: Repos, limit: int, before: str | None, as_json: bool) -> None:
    """List conversations, youngest first."""
    with repos() as repo:
        found = repo.list(limit, find(repo, before).id if before else None)
        if as_json:
            rows = [row._asdict() for row in found]
            print_json({"library": repo.library, "conversations": rows})
            return
        for row in found:
            made = time.strftime("%Y-%m-%d %H:%M", time.localtime(row.created_at))
            mark = "  (archived)" if row.archived else ""
            click.echo(f"{row.id}  {made}  {safe(row.title) or '(no title)'}{mark}")
        if not found and not before:
            click.echo('No conversations yet. Make one with "llmcrdt new TITLE".', err=True)


@click.command()
@click.argument("text")
@click.option("--limit", default=20, show_default=True, type=click.IntRange(min=1))
@click.option("--elsewhere", is_flag=True, help="include entries that are not shown: alternatives and their branches")
@as_json
@click.pass_obj
def search(repos: Repos, text: str, limit: int, elsewhere: bool, as_json: bool) -> None:
    """Find entries that hold all words of TEXT; "words in quotes" stand together."""
    with repos() as repo:
        hits = repo.search(text, limit, elsewhere=elsewhere, wait=None)
        if as_json:
            print_json([hit._asdict() for hit in hits])
            return
        for hit in hits:
            made = time.strftime("%Y-%m-%d %H:%M", time.localtime(hit.created_at))
            place = "" if hit.shown else "  (elsewhere)"
            click.echo(click.style(f"{hit.conversation}  {made}  {safe(hit.title) or '(no title)'}{place}", dim=True))
            click.echo(f"  {hit.role}: {safe(' '.join(hit.snippet.split()))}")
        if not hits:
            click.echo("Nothing found.", err=True)


@click.command()
@click.argument("id")
@click.option("--last", type=click.IntRange(min=1), help="show so many entries only, the last ones")
@click.option("--elsewhere", is_flag=True, help="include entries that are not shown: alternatives and their branches")
@as_json
@click.pass_obj
def show(repos: Repos, id: str, last: int | None, elsewhere: bool, as_json: bool) -> None:
    """Print a conversation. Hidden fields are named, never shown."""
    with repos() as repo:
        conversation = find(repo, id)
        if last and not as_json and not elsewhere:
            for entry in conversation.entries(last=last):  # from the tables: the rest is not loaded
                print_entry(entry)
            return
        transcript = conversation.transcript()
        entries = transcript[-last:] if last else tuple(transcript)
        if as_json:
            body: dict[str, Any] = {
                "id": conversation.id,
                "title": conversation.title,
                "hash": transcript.hash,
                "entries": [entry_json(entry) for entry in entries],
                "malformed": dict(transcript.malformed),
            }
            if elsewhere:
                body["elsewhere"] = [
                    {**entry_json(e.entry), "unseen": e.unseen, "way": e.way, "hidden_by": e.hidden_by}
                    for e in transcript.elsewhere
                ]
            print_json(body)
            return
        for entry in entries:
            print_entry(entry)
        for other in transcript.elsewhere if elsewhere else ():
            why = ", withheld" if other.way == "withheld" else ", unseen" if other.unseen else ""
            click.echo(click.style(f"── elsewhere{why}", dim=True))
            print_entry(other.entry)
        hidden = len(transcript.elsewhere)
        click.echo(
            click.style(f"{len(transcript)} entries, {hidden} elsewhere, transcript {transcript.hash}", dim=True)
        )


@click.command()
@click.argument("id")
@click.argument("text")
@click.option("--role", default="user", type=click.Choice(["system", "user", "assistant"]), show_default=True)
@click.option(
    "--attach",
    multiple=True,
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="a file to attach; may be given several times",
)
@as_json
@click.pass_obj
def append(repos: Repos, id: str, text: str, role: Any, attach: tuple[Path, ...], as_json: bool) -> None:
    """Add an entry; print its id. TEXT "-" is stdin; put -- before a text that begins with a dash."""
    content = decode(sys.stdin.buffer.read(), "stdin") if text == "-" else text
    blobs = [llmcrdt.Blob(file) for file in attach]
    with repos() as repo:
        words = [llmcrdt.Text(content)] if content else []
        print_id(find(repo, id).append(role, [*words, *blobs] if blobs else content).id, as_json)


@click.command()
@click.argument("id")
@as_json
@click.pass_obj
def seal(repos: Repos, id: str, as_json: bool) -> None:
    """End entries that somebody began to write and left unfinished, after a crash for instance; print their ids."""
    with repos() as repo:
        conversation = find(repo, id)
        sealed = [conversation.seal(entry).id for entry in conversation.unsealed()]
        if as_json:
            print_json({"sealed": sealed})
        else:
            for entry in sealed:
                click.echo(entry)

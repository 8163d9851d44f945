"""Commands about whole conversations."""

from __future__ import annotations

import time
from typing import Any

import click

from ..terminal_text import safe
from .completion import conversation_id
from .options import (
    MANY,
    Repos,
    as_json,
    confirm,
    confirmed,
    entry_json,
    find,
    kept_local,
    of_kind,
    print_id,
    print_json,
)
from .progress import percent, quiet


@click.command()
@click.argument("title", default="")
@of_kind
@kept_local
@as_json
@click.pass_obj
def new(repos: Repos, title: str, crdt: str | None, local: bool, as_json: bool) -> None:
    """Make a conversation; print its id."""
    with repos(create=True) as repo:
        print_id(repo.create(title, crdt=crdt, local=local).id, as_json)


@click.command()
@conversation_id
@click.pass_obj
def share(repos: Repos, id: str) -> None:
    """Have a conversation that is on this device alone be synced from now on. There is no way back."""
    with repos() as repo:
        repo.share(find(repo, id).id)


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
            mark = "  (archived)" * row.archived + "  (local)" * row.local
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
@conversation_id
@click.option("--last", type=click.IntRange(min=1), help="show so many entries only, the last ones")
@click.option("--elsewhere", is_flag=True, help="include entries that are not shown: alternatives and their branches")
@as_json
@click.pass_obj
def show(repos: Repos, id: str, last: int | None, elsewhere: bool, as_json: bool) -> None:
    """Print a conversation. Hidden fields are named, never shown."""
    from llmcrdt.providers.costs import total_costs

    from .terminal import print_entry  # loads more than the other commands need

    with repos() as repo:
        conversation = find(repo, id)
        if last and not as_json and not elsewhere:
            for entry in conversation.entries(last=last):  # from the tables: the rest is not loaded
                print_entry(entry)
            return
        transcript = conversation.transcript()
        entries = transcript[-last:] if last else tuple(transcript)
        costs = total_costs(answer.usage for answer in conversation.generations())
        if as_json:
            body: dict[str, Any] = {
                "id": conversation.id,
                "title": conversation.title,
                "hash": transcript.hash,
                "entries": [entry_json(entry) for entry in entries],
                "malformed": dict(transcript.malformed),
                "costs": costs,
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
        shown, hidden = len(transcript), len(transcript.elsewhere)
        count = f"{shown} {'entry' if shown == 1 else 'entries'}, {hidden} elsewhere"
        spent = "".join(f", {amount:.6f} {safe(currency)}" for currency, amount in costs.items())
        click.echo(click.style(f"{count}{spent}, transcript {transcript.hash}", dim=True))


@click.command()
@conversation_id
@click.option("--crdt", required=True, help="the other kind of document")
@quiet
@as_json
@click.pass_obj
def convert(repos: Repos, id: str, crdt: str, quiet: bool, as_json: bool) -> None:
    """Make a conversation anew in a document of another kind; print the new id. The old one stays."""
    with repos() as repo:
        with percent("converting", quiet, as_json) as progress:
            made = repo.convert(find(repo, id), crdt, progress=progress)
        print_id(made.id, as_json)


@click.command()
@conversation_id
@click.argument("title")
@click.pass_obj
def rename(repos: Repos, id: str, title: str) -> None:
    """Give a conversation another title, on every device."""
    with repos() as repo:
        repo.rename(find(repo, id).id, title)


@click.command()
@conversation_id
@click.option("--undo", is_flag=True, help="bring it back")
@click.pass_obj
def archive(repos: Repos, id: str, undo: bool) -> None:
    """Put a conversation away, on every device; nothing of it is lost."""
    with repos() as repo:
        repo.archive(find(repo, id).id, not undo)


@click.command()
@conversation_id
@confirmed
@click.pass_obj
def delete(repos: Repos, id: str, yes: bool) -> None:
    """Delete a conversation on every device and the relay, for good."""
    with repos() as repo:
        conversation = find(repo, id)
        confirm(f"Delete {safe(conversation.title) or conversation.id!r} on every device, for good?", yes)
        repo.delete(conversation.id)

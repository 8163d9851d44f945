"""Commands that write entries of one conversation, or decide between them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

import llmcrdt

from .completion import EntryCommand, complete_entry, conversation_id, entry_id
from .options import Repos, as_json, confirm, confirmed, decode, entry_json, find, find_entry, print_id, print_json
from .progress import percent, quiet
from .terminal import print_entry


@click.command()
@conversation_id
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
@conversation_id
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


@click.command(cls=EntryCommand)
@conversation_id
@entry_id
@click.argument("text")
@as_json
@click.pass_obj
def edit(repos: Repos, id: str, entry: str, text: str, as_json: bool) -> None:
    """Say something else in the place of ENTRY, which stays as an alternative; print the new entry's id. TEXT "-" is
    stdin; put -- before a text that begins with a dash."""
    content = decode(sys.stdin.buffer.read(), "stdin") if text == "-" else text
    with repos() as repo:
        conversation = find(repo, id)
        print_id(conversation.edit(find_entry(conversation, entry), content).id, as_json)


@click.command(cls=EntryCommand)
@conversation_id
@entry_id
@as_json
@click.pass_obj
def others(repos: Repos, id: str, entry: str, as_json: bool) -> None:
    """Show all entries that stand for the same turn as ENTRY, oldest first; "select" shows another one of them."""
    with repos() as repo:
        conversation = find(repo, id)
        found = conversation.alternatives(find_entry(conversation, entry))
        shown = set(conversation.transcript().ids)
        if as_json:
            print_json([{**entry_json(other), "shown": other.id in shown} for other in found])
            return
        for other in found:
            if other.id in shown:
                click.echo(click.style("── shown", dim=True))
            print_entry(other)


@click.command(cls=EntryCommand)
@conversation_id
@entry_id
@click.pass_obj
def select(repos: Repos, id: str, entry: str) -> None:
    """Show ENTRY in the place of what stands there, with everything on the way to it."""
    with repos() as repo:
        conversation = find(repo, id)
        conversation.select(find_entry(conversation, entry))


@click.command(cls=EntryCommand)
@conversation_id
@entry_id
@click.option(
    "--also",
    multiple=True,
    shell_complete=complete_entry,
    help="another entry to erase with it; may be given several times",
)
@confirmed
@as_json
@click.pass_obj
def erase(repos: Repos, id: str, entry: str, also: tuple[str, ...], yes: bool, as_json: bool) -> None:
    """Remove the words of ENTRY for good, on every device; list what still holds them."""
    with repos() as repo:
        conversation = find(repo, id)
        target, *more = (find_entry(conversation, each) for each in (entry, *also))
        confirm(f"Erase {len(more) + 1} on every device, for good?", yes)
        erased = conversation.erase(target, also=more)
        if as_json:
            still = [each._asdict() for each in erased.still_held]
            print_json({"erased": list(erased.entries), "still_held": still})
            return
        for each in erased.entries:
            click.echo(each)
        for held in erased.still_held:
            place = "" if held.conversation == conversation.id else f" in {held.conversation}"
            click.echo(f"still held by {held.entry}{place} ({held.kind})", err=True)


@click.command()
@conversation_id
@click.option(
    "--at", shell_complete=complete_entry, help="the last entry that the new one has [default: the last of all]"
)
@click.option("--title", help="[default: the old title]")
@click.option("--local/--shared", default=None, help="keep it on this device, or don't [default: as the old one is]")
@quiet
@as_json
@click.pass_obj
def fork(
    repos: Repos, id: str, at: str | None, title: str | None, local: bool | None, quiet: bool, as_json: bool
) -> None:
    """Make a conversation that begins as this one stands at an entry; print its id."""
    with repos() as repo:
        conversation = find(repo, id)
        ids = conversation.transcript().ids
        if at is None and not ids:
            raise llmcrdt.exceptions.EntryNotFound("Nothing was said here yet.", hint='Make an empty one with "new".')
        last = find_entry(conversation, at) if at is not None else ids[-1]
        with percent("forking", quiet, as_json) as progress:
            made = repo.fork(conversation, at=last, title=title, local=local, progress=progress)
        print_id(made.id, as_json)

"""Commands that read and write whole files."""

from __future__ import annotations

import sys
from pathlib import Path

import click

import llmcrdt
from llmcrdt.cli.terminal import safe

from .options import MANY, Repos, as_json, decode, find, print_id, print_json, read, there

template = click.option(
    "--format", "form", default="openai-chat", type=click.Choice(["openai-chat"]), show_default=True
)


@click.command("import")
@click.argument("file", type=click.Path(path_type=Path))
@template
@click.option("--title", help="[default: the file's own, else its name]")
@as_json
@click.pass_obj
def import_(repos: Repos, file: Path, form: str, title: str | None, as_json: bool) -> None:
    """Make a conversation from a file; print its id. FILE "-" is stdin."""
    from llmcrdt.repo.importer import import_openai_chat

    text = decode(sys.stdin.buffer.read(), "stdin") if str(file) == "-" else read(file)
    with repos(create=True) as repo:
        name = title if title is not None else ("" if str(file) == "-" else file.stem)
        print_id(import_openai_chat(repo, text, title=title, default_title=name).id, as_json)


@click.command()
@click.argument("id")
@template
@click.pass_obj
def export(repos: Repos, id: str, form: str) -> None:
    """Print a conversation as JSON in another format."""
    from llmcrdt.interop import openai_chat

    with repos() as repo:
        conversation = find(repo, id)
        entries = list(conversation.transcript())
        print_json(openai_chat.export(entries, title=conversation.title or None, read_blob=_content))


@click.command()
@click.argument("file", type=click.Path(path_type=Path, exists=True), required=False)
@as_json
@click.pass_obj
def verify(repos: Repos, file: Path | None, as_json: bool) -> None:
    """Derive every hash and frame again; exit code 1 if one does not hold. FILE is a database in place of --db."""
    with llmcrdt.open(there(file)) if file else repos() as repo:
        ids = [row.id for row in repo.list(limit=MANY)]
        problems = [(id_, problem) for id_ in ids for problem in repo.get(id_).verify()]
        if as_json:
            rows = [{"conversation": id_, "entry": p.entry, "what": p.what} for id_, p in problems]
            print_json({"conversations": len(ids), "problems": rows})
        else:
            for id_, problem in problems:
                click.echo(safe(f"{id_} entry {problem.entry}: {problem.what}"))
            click.echo(f"{len(ids)} conversations, {len(problems)} problems")
        if problems:
            sys.exit(1)


def _content(blob: llmcrdt.Blob) -> bytes | None:
    path = blob.path
    return path.read_bytes() if path else None

"""Commands that read and write whole files."""

from __future__ import annotations

import io
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

import llmcrdt
from llmcrdt.exceptions import FormatError
from llmcrdt.interop.registry import names, sources
from llmcrdt.terminal_text import safe

from .completion import conversation_id
from .options import INTERRUPTED, MANY, Repos, as_json, decode, find, kept_local, of_kind, print_json, there
from .progress import progress_shown, quiet

if TYPE_CHECKING:
    from llmcrdt.repo.importer import Imported, NotImported

for_provider = click.option("--provider", help="whom opaque fields are for [default: the format's own]")


@click.command("import")
@click.argument("files", metavar="PATH...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--format", "form", type=click.Choice([*names(), *sources()]), help="of all files [default: found out for each]"
)
@for_provider
@click.option("--title", help="[default: the file's own, else its name]")
@of_kind
@kept_local
@quiet
@as_json
@click.pass_obj
def import_(
    repos: Repos,
    files: tuple[Path, ...],
    form: str | None,
    provider: str | None,
    title: str | None,
    crdt: str | None,
    local: bool,
    quiet: bool,
    as_json: bool,
) -> None:
    """Import conversations; print their ids.

    PATH is a file in the format of an API, or one that another program keeps: sessions of Claude Code and Codex, the
    database of llm, exports of accounts (docs/interop.md). "-" is stdin; of a folder, all *.json, *.jsonl, *.db and
    *.zip in it are imported. A conversation that was imported before, on whatever device, is the same again: what is
    new in it is added. Parts that can't be shown are kept, and told on stderr, as are lines that can't be read. Ctrl-C
    leaves what was imported, and nothing of the conversation that is just being read.
    """
    from llmcrdt.repo.importer import Imported, ImportProgress, import_files

    if [str(file) for file in files] == ["-"]:
        if form in sources():
            raise FormatError(f"Files of {form} are not read from stdin.", hint="Give their names.")
        _print_one(_import_stdin(repos, title, form, provider, crdt, local), as_json)
        return
    for file in files:
        file.stat()  # before a database is made for a slip in a name
    shown = progress_shown(quiet, as_json)
    one = len(files) == 1 and not files[0].is_dir()
    done: list[Imported] = []
    failed: list[NotImported] = []
    interrupted = False

    def show(progress: ImportProgress) -> None:
        if stopping():
            raise KeyboardInterrupt
        if shown:
            part = f"{100 * progress.done // max(1, progress.total)} %"
            file = f", file {min(progress.files_done + 1, progress.files):,} of {progress.files:,}"
            click.echo(f"\r\033[Kimporting: {part}{'' if one else file}", nl=False, err=True)

    with repos(create=True) as repo, _interrupts() as stopping:
        try:
            for result in import_files(
                repo, files, title=title, progress=show, format=form, provider=provider, crdt=crdt, local=local
            ):
                if isinstance(result, Imported):
                    done.append(result)
                else:
                    failed.append(result)
        except KeyboardInterrupt:
            interrupted = True
        finally:
            if shown:
                click.echo("\r\033[K", nl=False, err=True)
    if one and failed and not done:
        raise failed[0].error
    if one and len(done) == 1 and not failed:
        _print_one(done[0], as_json)
    else:
        _print_all(done, failed, interrupted, as_json)
    if not as_json:
        _tell_kept(done)
    if interrupted or failed or any(result.refused for result in done):
        sys.exit(INTERRUPTED if interrupted else 1)


@contextmanager
def _interrupts() -> Iterator[Callable[[], bool]]:
    """Ctrl-C is only noted, and is to be obeyed where nothing is half done; a second one ends the command at once."""
    noted = False

    def note(number: int, frame: object) -> None:
        nonlocal noted
        if noted:
            raise KeyboardInterrupt
        noted = True

    before = signal.signal(signal.SIGINT, note)
    try:
        yield lambda: noted
    finally:
        signal.signal(signal.SIGINT, before)


def _import_stdin(
    repos: Repos, title: str | None, form: str | None, provider: str | None, crdt: str | None, local: bool
) -> Imported:
    from llmcrdt.repo.importer import ImportFile, import_file

    text = decode(sys.stdin.buffer.read(), "stdin")
    with repos(create=True) as repo:
        source = ImportFile("stdin", len(text), lambda: io.StringIO(text))
        return import_file(repo, source, title=title, format=form, provider=provider, crdt=crdt, local=local)


def _result(result: Imported) -> dict[str, object]:
    return {
        "id": result.conversation,
        "file": result.file,
        "title": result.title,
        "entries": result.entries,
        "added": result.added,
        "diverged": result.diverged,
        "kept": dict(result.kept),
        "refused": list(result.refused),
    }


def _print_one(result: Imported, as_json: bool) -> None:
    if as_json:
        print_json(_result(result))
    else:
        click.echo(result.conversation)


def _print_all(done: Sequence[Imported], failed: Sequence[NotImported], interrupted: bool, as_json: bool) -> None:
    if as_json:
        errors = [{"file": f.file, "where": f.where, "error": f.error.message} for f in failed]
        print_json({"conversations": [_result(r) for r in done], "failed": errors, "interrupted": interrupted})
        return
    for result in done:
        click.echo(safe(f"{result.conversation}  {result.title}"))
    for left_out in failed:
        where = f"{left_out.where}: " if left_out.where else ""
        click.echo(safe(f"llmcrdt: {left_out.file}: {where}{left_out.error.message}"), err=True)
    if interrupted:
        click.echo(f"llmcrdt: interrupted after {len(done)} files", err=True)


def _tell_kept(done: Sequence[Imported]) -> None:
    """Say on stderr what of each conversation is not shown, and what was left out."""
    for result in done:
        if result.kept:
            kept = ", ".join(f"{n} {kind}" for kind, n in sorted(result.kept.items()))
            click.echo(safe(f"llmcrdt: {result.file}: {result.conversation}: kept, not shown: {kept}"), err=True)
        for line in result.refused:
            click.echo(safe(f"llmcrdt: {result.file}: {result.conversation}: can't be read: {line}"), err=True)


@click.command()
@conversation_id
@click.option("--format", "form", type=click.Choice(names()), help="print the list that this API takes")
@click.option("--request", is_flag=True, help="print the whole body of a request")
@for_provider
@click.option("--model", help="the one that the request is for [default: the one that the import named]")
@click.option("--account", help="opaque fields of this account go out as well")
@click.option(
    "--since",
    metavar="HANDLE",
    help="print only what is new since the state that the provider keeps by this name (resp_...), or after this entry",
)
@as_json
@click.pass_obj
def export(
    repos: Repos,
    id: str,
    form: str | None,
    request: bool,
    provider: str | None,
    model: str | None,
    account: str | None,
    since: str | None,
    as_json: bool,
) -> None:
    """Print a conversation as JSON in another format.

    Without --format and --request it is a file that "import" takes: openai-chat, with the title. Opaque fields of a
    provider go out where their bindings say so; what stays here is told on stderr. With --since everything is printed
    where what is new alone would not say the same, and stderr says why. --json: all of that in one object.
    """
    from llmcrdt.interop.export import export
    from llmcrdt.interop.handles import find_handle
    from llmcrdt.interop.registry import DEFAULT, format_of
    from llmcrdt.interop.requests import check_says_something, content_of

    with repos() as repo:
        conversation = find(repo, id)
        entries = list(conversation.transcript())
        into = format_of(form or DEFAULT)
        target = into.target(provider=provider, model=model or into.model_of(entries), account=account)
        asked = None if since is None else find_handle(into.name, entries, since)
        made = export(into, entries, target, now=time.time(), read_blob=content_of, since=asked)
        if form or request or since or as_json:
            check_says_something(into, entries, made.body)
        if as_json:
            left = [{"entry": r.entry, "name": r.name, "reason": r.reason, "why": r.why} for r in made.left_out]
            told = {
                "since": made.since,
                "whole_because": made.whole_because or None,
                "why_whole": made.why_whole or None,
            }
            whole = {"messages": made.messages, "body": made.body, "left_out": left}
            print_json({"format": into.name, **told, **whole}, exact=True)
            return
        if since is not None:
            count = len(made.messages)
            said = (
                f"only what is new since {since}: {count}" if made.since else f"everything, {made.why_whole}: {count}"
            )
            click.echo(safe(f"llmcrdt: {said} {into.member}"), err=True)
        title = {"title": conversation.title} if conversation.title else {}
        whole = made.body if request else {**title, **made.body, into.member: made.messages}
        print_json(made.messages if (form or since) and not request else whole, exact=True)
        for line in made.left_out:
            click.echo(safe(f"llmcrdt: {line}"), err=True)


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

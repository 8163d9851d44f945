"""The ``llmcrdt`` command. Thin: it parses, calls the library, and prints.

Results go to stdout, as text for people or with ``--json`` as one JSON document; errors go to stderr as one line. Exit
codes: 0 done, 1 it failed, 2 wrong usage, 130 interrupted.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import click

import llmcrdt
from llmcrdt.exceptions import (
    ConversationNotFound,
    FormatError,
    LLMCRDTError,
    NotADatabase,
    RelayUnreachable,
    SyncError,
    SyncTimeout,
)
from llmcrdt.ids import is_document_id
from llmcrdt.sync.address import is_loopback
from llmcrdt.terminal import print_entry, progress_line, qr_code, safe

if TYPE_CHECKING:
    from llmcrdt.kvcache.disk import DiskCache
    from llmcrdt.sync.client import Link

INTERRUPTED = 130


class Errors(click.Group):
    """Turns the library's errors into one line on stderr and exit code 1."""

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
        except (LLMCRDTError, OSError) as error:
            _complain(str(error))


def _complain(message: str) -> None:
    click.echo("llmcrdt: " + " ".join(message.split()), err=True)
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


@click.group(cls=Errors, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option(
    "--db", type=click.Path(path_type=Path), help="SQLite file [default: $LLMCRDT_DB, then the data directory]"
)
@click.option("--library", help="id of another device's library, to join it with a new file")
@click.option("--author", default="", help="who signs what this command writes")
@click.version_option(llmcrdt.__version__, prog_name="llmcrdt")
@click.pass_context
def main(context: click.Context, db: Path | None, library: str | None, author: str) -> None:
    """Conversations with language models as replicated documents."""

    @contextlib.contextmanager
    def repo(*, create: bool = False, invite: str | None = None) -> Iterator[llmcrdt.Repo]:
        path = db or default_db()
        if create and db is None:
            path.parent.mkdir(parents=True, exist_ok=True)
        with llmcrdt.open(path if create else _there(path), library, invite=invite, author=author) as opened:
            yield opened

    context.obj = repo


class Repos(Protocol):
    """Opens the repo of ``--db``; makes one only where asked to, so that a slip in a name makes no file."""

    def __call__(
        self, *, create: bool = False, invite: str | None = None
    ) -> contextlib.AbstractContextManager[llmcrdt.Repo]: ...


MANY = 1_000_000  # conversations
as_json = click.option("--json", "as_json", is_flag=True, help="print one JSON document")
model_file = click.option("--model", required=True, type=click.Path(path_type=Path), help="GGUF file")
cache_dir = click.option("--cache", type=click.Path(path_type=Path), help="KV cache directory [default: user cache]")
trusted = click.option(
    "--ca", type=click.Path(path_type=Path, exists=True), help="certificates to trust (PEM), for wss://"
)
relay_token = click.option("--token", envvar="LLMCRDT_TOKEN", help="access token [default: $LLMCRDT_TOKEN]")
max_tokens = click.option("--max-tokens", default=512, show_default=True, type=click.IntRange(min=1))
temperature = click.option("--temperature", default=0.8, show_default=True, type=click.FloatRange(min=0))
template = click.option(
    "--format", "form", default="openai-chat", type=click.Choice(["openai-chat"]), show_default=True
)


@main.command()
@click.argument("title", default="")
@as_json
@click.pass_obj
def new(repos: Repos, title: str, as_json: bool) -> None:
    """Make a conversation; print its id."""
    with repos(create=True) as repo:
        _print_id(repo.create(title).id, as_json)


@main.command("list")
@click.option("--limit", default=50, show_default=True, type=click.IntRange(1, MANY))
@click.option("--before", help="the last id of the page before")
@as_json
@click.pass_obj
def list_(repos: Repos, limit: int, before: str | None, as_json: bool) -> None:
    """List conversations, youngest first."""
    with repos() as repo:
        found = repo.list(limit, _find(repo, before).id if before else None)
        if as_json:
            rows = [row._asdict() for row in found]
            _print_json({"library": repo.library, "conversations": rows})
            return
        for row in found:
            made = time.strftime("%Y-%m-%d %H:%M", time.localtime(row.created_at))
            click.echo(f"{row.id}  {made}  {safe(row.title) or '(no title)'}")
        if not found and not before:
            click.echo('No conversations yet. Make one with "llmcrdt new TITLE".', err=True)


@main.command()
@click.argument("text")
@click.option("--limit", default=20, show_default=True, type=click.IntRange(min=1))
@click.option("--elsewhere", is_flag=True, help="also what is not shown: alternatives and their branches")
@as_json
@click.pass_obj
def search(repos: Repos, text: str, limit: int, elsewhere: bool, as_json: bool) -> None:
    """Find entries that hold all words of TEXT; "words in quotes" stand together."""
    with repos() as repo:
        hits = repo.search(text, limit, elsewhere=elsewhere)
        if as_json:
            _print_json([hit._asdict() for hit in hits])
            return
        for hit in hits:
            made = time.strftime("%Y-%m-%d %H:%M", time.localtime(hit.created_at))
            place = "" if hit.shown else "  (elsewhere)"
            click.echo(click.style(f"{hit.conversation}  {made}  {hit.title or '(no title)'}{place}", dim=True))
            click.echo(f"  {hit.role}: {' '.join(hit.snippet.split())}")
        if not hits:
            click.echo("Nothing found.", err=True)


@main.command()
@click.argument("id")
@click.option("--last", type=click.IntRange(min=1), help="only the last so many entries")
@click.option("--elsewhere", is_flag=True, help="also what is not shown: alternatives and their branches")
@as_json
@click.pass_obj
def show(repos: Repos, id: str, last: int | None, elsewhere: bool, as_json: bool) -> None:
    """Print a conversation. Hidden fields are named, never shown."""
    with repos() as repo:
        conversation = _find(repo, id)
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
                "entries": [_entry_json(entry) for entry in entries],
                "malformed": dict(transcript.malformed),
            }
            if elsewhere:
                body["elsewhere"] = [{**_entry_json(e.entry), "unseen": e.unseen} for e in transcript.elsewhere]
            _print_json(body)
            return
        for entry in entries:
            print_entry(entry)
        for other in transcript.elsewhere if elsewhere else ():
            click.echo(click.style(f"── elsewhere{', unseen' if other.unseen else ''}", dim=True))
            print_entry(other.entry)
        hidden = len(transcript.elsewhere)
        click.echo(
            click.style(f"{len(transcript)} entries, {hidden} elsewhere, transcript {transcript.hash}", dim=True)
        )


@main.command()
@click.argument("id")
@click.argument("text")
@click.option("--role", default="user", type=click.Choice(["system", "user", "assistant"]), show_default=True)
@click.option(
    "--attach",
    multiple=True,
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="a file; may be given several times",
)
@as_json
@click.pass_obj
def append(repos: Repos, id: str, text: str, role: Any, attach: tuple[Path, ...], as_json: bool) -> None:
    """Add an entry; print its id. TEXT "-" is stdin; put -- before a text that begins with a dash."""
    content = _decode(sys.stdin.buffer.read(), "stdin") if text == "-" else text
    blobs = [llmcrdt.Blob(file) for file in attach]
    with repos() as repo:
        words = [llmcrdt.Text(content)] if content else []
        _print_id(_find(repo, id).append(role, [*words, *blobs] if blobs else content).id, as_json)


@main.command()
@click.argument("id")
@model_file
@cache_dir
@max_tokens
@temperature
@click.option("--seed", type=int)
@click.option("--stop", multiple=True, help="text that ends the answer; may be given several times")
@as_json
@click.pass_obj
def generate(
    repos: Repos,
    id: str,
    model: Path,
    cache: Path | None,
    max_tokens: int,
    temperature: float,
    seed: int | None,
    stop: tuple[str, ...],
    as_json: bool,
) -> None:
    """Let a local model answer, and print the answer as it comes. Ctrl-C stops it and keeps what was said."""
    with repos() as repo, llmcrdt.LlamaEngine(model, cache=cache) as engine:
        conversation = _find(repo, id)
        generation = llmcrdt.generate(
            conversation, engine, max_tokens=max_tokens, temperature=temperature, seed=seed, stop=stop
        )
        interrupted = False
        try:
            for piece in generation:
                if not as_json:
                    click.echo(safe(piece), nl=False)
        except KeyboardInterrupt:
            interrupted = True
            generation.cancel()
        entry = generation.result()
        if as_json:
            _print_json({**_entry_json(entry), "stats": generation.stats})
        else:
            click.echo()
            stats = generation.stats
            click.echo(
                f"{stats.get('reused', 0)} of {stats.get('total', 0)} prompt tokens reused,"
                f" {stats.get('evaluated', 0)} evaluated, {stats.get('sampled', 0)} sampled ({stats.get('finish')})",
                err=True,
            )
        engine.settled(30)
        if interrupted:
            sys.exit(INTERRUPTED)


@main.command()
@click.argument("id", required=False)
@model_file
@cache_dir
@click.option("--title", default="", help="of a new conversation")
@click.option("--system", help="what the model is told first, in a new conversation")
@click.option("--sync", "relay", metavar="URL", help="stay in step with a relay meanwhile (ws://HOST:PORT)")
@relay_token
@trusted
@max_tokens
@temperature
@click.pass_obj
def chat(
    repos: Repos,
    id: str | None,
    model: Path,
    cache: Path | None,
    title: str,
    system: str | None,
    relay: str | None,
    token: str | None,
    ca: Path | None,
    max_tokens: int,
    temperature: float,
) -> None:
    """Talk with a local model in the conversation ID, or in a new one. /help says what else can be typed."""
    from llmcrdt.chat import Chat, typed_lines

    answer = functools.partial(llmcrdt.generate, max_tokens=max_tokens, temperature=temperature)
    with contextlib.ExitStack() as stack:
        repo = stack.enter_context(repos(create=id is None))
        conversation = _find(repo, id) if id else None
        engine = stack.enter_context(llmcrdt.LlamaEngine(model, cache=cache))
        link = stack.enter_context(repo.connect(relay, token, tls=ca)) if relay else None

        def begin(words: str) -> llmcrdt.Conversation:
            def fill(made: llmcrdt.Conversation) -> None:
                if system:
                    made.append("system", system)
                made.append("user", words)

            return repo.create(title, fill=fill)

        talk = Chat(conversation or begin, engine, answer)
        talk.run(typed_lines())
        if link is not None and talk.begun is not None:
            try:
                link.wait_synced(5)
            except SyncError as error:
                click.echo(f"llmcrdt: {safe(error.message)} {_what_to_do(link, error)}", err=True)
        if id is None and talk.begun is not None:
            click.echo(f'Go on with "llmcrdt chat {talk.begun.id}".', err=True)


@main.command()
@click.argument("url", required=False)
@relay_token
@click.option("--only", multiple=True, help="a document id; may be given several times [default: the whole library]")
@trusted
@click.option("--watch", is_flag=True, help="stay connected until Ctrl-C")
@click.option("--timeout", default=30.0, show_default=True, type=click.FloatRange(min=0), help="seconds")
@as_json
@click.pass_obj
def sync(
    repos: Repos,
    url: str | None,
    token: str | None,
    only: tuple[str, ...],
    ca: Path | None,
    watch: bool,
    timeout: float,
    as_json: bool,
) -> None:
    """Exchange everything with a relay (ws://HOST:PORT); without URL, with the one that "pair" remembered."""
    with repos(create=True) as repo, repo.connect(url, token, _ids(repo, only), tls=ca) as link:
        shown = not as_json and sys.stderr.isatty()
        if shown:
            link.observe_progress(lambda progress: click.echo(f"\r{progress_line(progress)}\x1b[K", nl=False, err=True))
        try:
            link.wait_synced(timeout)
        except SyncTimeout as error:
            raise SyncTimeout(error.message, hint=f"{_what_to_do(link, error)} Or give a longer --timeout.") from None
        except RelayUnreachable as error:
            raise RelayUnreachable(error.message, hint=_what_to_do(link, error)) from None
        finally:
            if shown:
                click.echo("\r\x1b[K", nl=False, err=True)
        progress = link.progress
        result = {
            "library": repo.library,
            "conversations": len(repo.list(limit=MANY)),
            "bytes_sent": link.bytes_sent,
            "bytes_received": link.bytes_received,
            "records_sent": progress.sent,
            "records_received": progress.received,
            "kept_there": list(link.kept_there),
        }
        if as_json:
            _print_json(result)
        else:
            for refused in link.kept_there.values():
                click.echo(f"llmcrdt: {refused}", err=True)
            click.echo(
                f"In step with {link.url}: {result['conversations']} conversations,"
                f" {link.bytes_sent} bytes sent, {link.bytes_received} received. Library {repo.library}"
            )
        with contextlib.suppress(KeyboardInterrupt):
            while watch:
                time.sleep(1)


@main.command()
@click.argument("url", required=False)
@relay_token
@click.option("--join", metavar="INVITE", help='join with an invite; "-" reads it from stdin')
@click.option("--keys/--no-keys", default=True, show_default=True, help="put the keys of sealed fields in")
@click.option("--qr/--no-qr", default=None, help="draw it as a QR code too [default: on a terminal]")
@click.option("--reveal", is_flag=True, help="with --json: print the invite, which is a secret")
@as_json
@click.pass_obj
def pair(
    repos: Repos,
    url: str | None,
    token: str | None,
    join: str | None,
    keys: bool,
    qr: bool | None,
    reveal: bool,
    as_json: bool,
) -> None:
    """Print an invite for another device: the relay URL, token, library and keys in one string. Or join with one.

    URL is remembered: "sync" then needs none. Whoever has the invite can read and write everything here.
    """
    if join is not None:
        if url or token:
            raise click.UsageError("An invite brings relay and token along.")
        invite = _decode(sys.stdin.buffer.read(), "stdin") if join == "-" else join
        with repos(create=True, invite=invite) as repo:
            relay = repo.relay.url if repo.relay else ""
            if as_json:
                _print_json({"library": repo.library, "relay": relay})
            else:
                click.echo(f'Joined library {repo.library} at {safe(relay)}. "llmcrdt sync" fetches what is in it.')
        return
    with repos(create=True) as repo:
        text = repo.invite(url, token, keys=keys)
        relay = url or (repo.relay.url if repo.relay else "")
        if as_json:
            _print_json({"library": repo.library, "relay": relay, **({"invite": text} if reveal else {})})
        else:
            code = qr_code(text) if qr or (qr is None and sys.stdout.isatty()) else None
            if code:
                click.echo(code)
            click.echo(text)
            click.echo("This is a secret: whoever has it can read and write everything in this library.", err=True)
        if is_loopback(relay):
            click.echo(f"Only this device reaches {relay}; give the address that others see.", err=True)


@main.command()
@click.argument("id")
@as_json
@click.pass_obj
def seal(repos: Repos, id: str, as_json: bool) -> None:
    """End the entries that somebody began to write and left unfinished, after a crash say. Prints their ids."""
    with repos() as repo:
        conversation = _find(repo, id)
        sealed = [conversation.seal(entry).id for entry in conversation.unsealed()]
        if as_json:
            _print_json({"sealed": sealed})
        else:
            for entry in sealed:
                click.echo(entry)


@main.command("import")
@click.argument("file", type=click.Path(path_type=Path))
@template
@click.option("--title", help="[default: the file's own, else its name]")
@as_json
@click.pass_obj
def import_(repos: Repos, file: Path, form: str, title: str | None, as_json: bool) -> None:
    """Make a conversation from a file; print its id. FILE "-" is stdin."""
    from llmcrdt.importing import import_openai_chat

    text = _decode(sys.stdin.buffer.read(), "stdin") if str(file) == "-" else _read(file)
    with repos(create=True) as repo:
        name = title if title is not None else ("" if str(file) == "-" else file.stem)
        _print_id(import_openai_chat(repo, text, title=title, default_title=name).id, as_json)


@main.command()
@click.argument("id")
@template
@click.pass_obj
def export(repos: Repos, id: str, form: str) -> None:
    """Print a conversation as JSON in another format."""
    from llmcrdt.interop import openai_chat

    with repos() as repo:
        conversation = _find(repo, id)
        entries = list(conversation.transcript())
        _print_json(openai_chat.write(entries, title=conversation.title or None, read_blob=_content))


@main.command()
@click.argument("file", type=click.Path(path_type=Path, exists=True), required=False)
@as_json
@click.pass_obj
def verify(repos: Repos, file: Path | None, as_json: bool) -> None:
    """Re-derive every hash and frame of every conversation; exit code 1 if one does not hold. FILE: instead of --db."""
    with llmcrdt.open(_there(file)) if file else repos() as repo:
        ids = [row.id for row in repo.list(limit=1_000_000)]
        problems = [(id_, problem) for id_ in ids for problem in repo.get(id_).verify()]
        if as_json:
            rows = [{"conversation": id_, "entry": p.entry, "what": p.what} for id_, p in problems]
            _print_json({"conversations": len(ids), "problems": rows})
        else:
            for id_, problem in problems:
                click.echo(f"{id_} entry {problem.entry}: {problem.what}")
            click.echo(f"{len(ids)} conversations, {len(problems)} problems")
        if problems:
            sys.exit(1)


@main.group()
def kv() -> None:
    """The KV cache of the local engine."""


@kv.command()
@cache_dir
@as_json
def stats(cache: Path | None, as_json: bool) -> None:
    """What the cache directory holds."""
    chunks = _chunks(cache)
    _print_counts({"folder": str(chunks.directory.parent), **chunks.stats()}, as_json)


@kv.command("verify")
@cache_dir
@as_json
def kv_verify(cache: Path | None, as_json: bool) -> None:
    """Read every chunk and check it to the last bit; bad ones are set aside. Exit code 1 if there were any."""
    found = _chunks(cache).verify()
    _print_counts(found, as_json)
    if found["bad"]:
        sys.exit(1)


@kv.command("prune")
@click.option("--keep", type=click.IntRange(0), default=0, show_default=True, help="bytes of chunks to keep")
@cache_dir
@as_json
def kv_prune(keep: int, cache: Path | None, as_json: bool) -> None:
    """Delete KV state that isn't pinned, what is worth least first. It can always be computed again."""
    _print_counts(_chunks(cache).prune(keep), as_json)


@kv.command("pin")
@click.argument("id")
@model_file
@cache_dir
@click.pass_obj
def kv_pin(repos: Repos, id: str, model: Path, cache: Path | None) -> None:
    """Keep a conversation's KV state as of now: it is not evicted until "unpin". Evaluates what isn't stored yet."""
    with repos() as repo, llmcrdt.LlamaEngine(model, cache=cache) as engine:
        llmcrdt.pin(_find(repo, id), engine)
        engine.settled()


@kv.command("unpin")
@click.argument("id")
@cache_dir
@click.pass_obj
def kv_unpin(repos: Repos, id: str, cache: Path | None) -> None:
    """Let a conversation's KV state be evicted again, of whatever model."""
    with repos() as repo:
        _chunks(cache).unpin(_find(repo, id).id)


@kv.command("pins")
@cache_dir
@as_json
@click.pass_obj
def kv_pins(repos: Repos, cache: Path | None, as_json: bool) -> None:
    """Which conversations are pinned, and how many chunks and recurrent states each keeps."""
    from llmcrdt.kvcache.owners import owner_name

    found = _chunks(cache).pins()
    with repos() as repo:
        known = {owner_name(row.id): row.id for row in repo.list(MANY)}
    _print_counts({str(known.get(name, name)): len(keys) for name, keys in sorted(found.items())}, as_json)


@kv.command("plan")
@click.argument("id")
@model_file
@cache_dir
@as_json
@click.pass_obj
def kv_plan(repos: Repos, id: str, model: Path, cache: Path | None, as_json: bool) -> None:
    """What the next answer would cost: tokens in all, reused, to evaluate, and why; whether this model is exact here.

    Waits until the model's file is hashed and it was probed, which is remembered.
    """
    with repos() as repo, llmcrdt.LlamaEngine(model, cache=cache) as engine:
        engine.settled()
        planned = llmcrdt.plan(_find(repo, id), engine)
        if as_json:
            why = {**asdict(planned.why), "text": str(planned.why)}
            _print_json({**asdict(planned), "why": why, "exactness": engine.exactness})
        else:
            seconds = f", about {planned.seconds:.1f} s" if planned.seconds is not None else ""
            counts = f"{planned.total} tokens: {planned.reused} reused, {planned.evaluate} to evaluate{seconds}"
            click.echo(f"{counts}. {planned.why}")
            click.echo(f"State of this model is {engine.exactness} here.")


@main.command()
@click.option(
    "--model", type=click.Path(path_type=Path), help="GGUF file [default: a tiny random one that speaks noise]"
)
@click.option(
    "--conversation",
    type=click.Path(path_type=Path),
    help="OpenAI chat-completions JSON [default: one that comes along]",
)
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="write the figures to this file")
@click.option("--keep", type=click.Path(path_type=Path), help="leave databases, model and caches in this folder")
def demo(model: Path | None, conversation: Path | None, json_file: Path | None, keep: Path | None) -> None:
    """Two devices, one relay, one local model: the main job from end to end."""
    from llmcrdt.demo import run

    text = _read(conversation) if conversation else None
    if not run(model=model, conversation=text, json_file=json_file, keep=keep, say=click.echo):
        sys.exit(1)


def _find(repo: llmcrdt.Repo, id: str) -> llmcrdt.Conversation:
    """The conversation with this id, or with the only id that begins so."""
    try:
        return repo.get(id)
    except ConversationNotFound:
        found = [row.id for row in repo.list(limit=MANY) if id and row.id.startswith(id)]
        if len(found) == 1:
            return repo.get(found[0])
        what = f"{len(found)} conversations begin with {id!r}" if found else f"There is no conversation {id!r}"
        raise ConversationNotFound(f"{what}.", hint='"llmcrdt list" shows what is there; "sync" brings more.') from None


def _what_to_do(link: Link, error: SyncError) -> str:
    """After waiting for a link in vain, in a command that ends. The error's own hint may say that the link goes on."""
    if not isinstance(error, (RelayUnreachable, SyncTimeout)):
        return error.hint
    asked = "Is a relay running there?" if isinstance(error, RelayUnreachable) else ""
    do = (link.last_error and link.last_error.hint) or asked
    return f"{do} Nothing is lost; sync again.".lstrip()


def _there(path: Path) -> Path:
    """The path of a database that is there. Opening would make one of an empty or missing file."""
    if not path.exists() or (path.is_file() and not path.stat().st_size):
        raise NotADatabase(f"There is no database at {path}.", hint='Make one with "new" or "import", or give --db.')
    return path


def _ids(repo: llmcrdt.Repo, only: tuple[str, ...]) -> list[str] | None:
    """Document ids from what was typed: whole ones, also of what isn't here yet, or beginnings of those that are."""
    return [id_ if is_document_id(id_) else _find(repo, id_).id for id_ in only] or None


def _content(blob: llmcrdt.Blob) -> bytes | None:
    path = blob.path
    return path.read_bytes() if path else None


def _chunks(cache: Path | None) -> DiskCache:
    from llmcrdt.kvcache.disk import DiskCache
    from llmcrdt.kvcache.places import chunk_folder, user_cache

    return DiskCache(chunk_folder(cache or user_cache()))


def _print_counts(counts: Mapping[str, object], as_json: bool) -> None:
    if as_json:
        _print_json(counts)
    else:
        for name, value in counts.items():
            click.echo(f"{name:16} {value}")


def _read(file: Path) -> str:
    return _decode(file.read_bytes(), str(file))


def _decode(data: bytes, name: str) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise FormatError(f"{name} is not UTF-8 text.", hint="Save it as UTF-8.") from None


def _entry_json(entry: llmcrdt.Entry) -> dict[str, Any]:
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
    }


def _print_id(id: str, as_json: bool) -> None:
    if as_json:
        _print_json({"id": id})
    else:
        click.echo(id)


def _print_json(value: Any) -> None:
    click.echo(json.dumps(value, ensure_ascii=False, indent=2))


if __name__ == "__main__":
    main()

"""Commands about answers of models elsewhere: ask for one, see what was asked, and be the one who answers."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

import llmcrdt
from llmcrdt.document.asks import ENDED, fits
from llmcrdt.document.checks import whole_number
from llmcrdt.exceptions import AskFailed, InvalidContent, NeverSyncs, RelayUnreachable, SyncError
from llmcrdt.providers.base import Provider
from llmcrdt.providers.names import is_named, named

from ..terminal_text import safe
from .completion import conversation_id
from .models import needed_model
from .options import (
    INTERRUPTED,
    Repos,
    Token,
    as_json,
    cache_dir,
    entry_json,
    find,
    find_entry,
    print_json,
    relay_token,
    trusted,
)

if TYPE_CHECKING:
    from llmcrdt.serve.http.server import HttpServer
    from llmcrdt.sync.link import Link

_SEEN = 2.0  # seconds to wait for a worker to say that it is there

relay_url = click.option("--relay", metavar="URL", help='a relay (ws://HOST:PORT) [default: the one of "pair"]')


@click.command()
@conversation_id
@click.argument("text", required=False)
@click.option("--model", default="", help='name of a model, or a pattern such as "smol*" [default: any]')
@click.option("--max-tokens", type=click.IntRange(min=1), help="of the answer, at most")
@click.option("--temperature", type=click.FloatRange(min=0), help="0 always takes the likeliest token")
@click.option("--seed", type=int, help="of the random numbers")
@click.option("--instead-of", metavar="ENTRY", help="ask again for this answer")
@click.option("--always", is_flag=True, help="it counts whatever is said or changed before it is answered")
@click.option("--wait/--no-wait", default=True, show_default=True, help="for the answer")
@click.option("--timeout", type=click.FloatRange(min=0), help="seconds without a word after which to wait no more")
@relay_url
@relay_token
@trusted
@as_json
@click.pass_obj
def ask(
    repos: Repos,
    id: str,
    text: str | None,
    model: str,
    max_tokens: int | None,
    temperature: float | None,
    seed: int | None,
    instead_of: str | None,
    always: bool,
    wait: bool,
    timeout: float | None,
    relay: str | None,
    token: Token,
    ca: Path | None,
    as_json: bool,
) -> None:
    """Say TEXT, and ask a model to answer, wherever one serves this library ("llmcrdt serve"); print the answer as it
    comes.

    Without TEXT it is asked on what stands there. The ask is kept, and goes out when this device is online. Ctrl-C
    stops it.
    """
    given = {"max_tokens": max_tokens, "temperature": temperature, "seed": seed}
    with repos() as repo, contextlib.ExitStack() as stack:
        conversation = find(repo, id)
        asked = conversation.ask(
            text,
            model=model,
            settings={name: value for name, value in given.items() if value is not None},
            valid_while="always" if always else "frame",
            instead_of=find_entry(conversation, instead_of) if instead_of else None,
        )
        link = None
        if relay is not None or repo.relay is not None:
            link = stack.enter_context(repo.connect(relay, token, tls=ca))
        elif wait:
            click.echo("llmcrdt: No relay is known here; only a worker on this database sees this.", err=True)
        if not wait:
            if link is not None:
                with contextlib.suppress(SyncError):
                    link.wait_synced(5)
            _print_ask(asked, as_json)
            return
        try:
            answer = _follow(asked, timeout, as_json)
        except KeyboardInterrupt:
            asked.cancel()
            if link is not None:
                with contextlib.suppress(SyncError):
                    link.wait_synced(5)
            click.echo("llmcrdt: stopped; what was said is kept.", err=True)
            sys.exit(INTERRUPTED)
        except TimeoutError:
            raise AskFailed(
                f"Nothing came for {timeout:g} s.", "timeout", hint=f'It goes on waiting; "llmcrdt asks {id}" shows it.'
            ) from None
        if as_json:
            print_json({"ask": asked.id, **entry_json(answer)})


def _follow(asked: llmcrdt.Ask, timeout: float | None, as_json: bool) -> llmcrdt.Entry:
    """Print the answer as it grows; anew where another worker began again."""
    shown, entry = "", None
    for answer in asked.follow(timeout):
        if as_json:
            continue
        if entry is not None and (answer.id != entry.id or not answer.text.startswith(shown)):
            click.echo("\n--- another worker answers ---", err=True)
            shown = ""
        click.echo(safe(answer.text[len(shown) :]), nl=False)
        shown, entry = answer.text, answer
    if not as_json:
        click.echo()
    return asked.result(0)


@click.command()
@conversation_id
@relay_url
@relay_token
@trusted
@as_json
@click.pass_obj
def asks(repos: Repos, id: str, relay: str | None, token: Token, ca: Path | None, as_json: bool) -> None:
    """List what models were asked in the conversation ID, oldest first, and what became of it; with the workers that
    are there for those that wait, and how busy they are, as far as a relay knows."""
    with repos() as repo, contextlib.ExitStack() as stack:
        conversation = find(repo, id)
        workers: list[dict[str, Any]] = []
        if any(each.state not in ENDED for each in conversation.asks()) and (relay is not None or repo.relay):
            with contextlib.suppress(SyncError):
                stack.enter_context(repo.connect(relay, token, tls=ca)).wait_synced(5)
                workers = _workers(conversation)
        found = conversation.asks()
        if as_json:
            print_json([{**_ask_json(each), "workers": _fit(each, workers)} for each in found])
            return
        for each in found:
            _print_ask(each, False)
            for worker in _fit(each, workers):
                name = safe(", ".join(worker["models"]))
                click.echo(f"    {name}: {worker['busy']} of {worker['slots']} busy, {worker['waiting']} waiting there")


def _workers(conversation: llmcrdt.Conversation) -> list[dict[str, Any]]:
    """The workers that say that they are there; nobody vouches for that."""
    found = threading.Event()

    def look(present: Sequence[llmcrdt.Present]) -> None:
        if any("worker" in each.state for each in present):
            found.set()

    stop = conversation.observe_presence(look)
    look(conversation.presence())
    found.wait(_SEEN)
    stop()
    return [told for each in conversation.presence() if (told := _told(each.state)) is not None]


def _told(state: Mapping[str, Any]) -> dict[str, Any] | None:
    counts = {name: whole_number(state.get(name)) for name in ("slots", "busy", "waiting")}
    models = state.get("models")
    if not isinstance(state.get("worker"), str) or not isinstance(models, list) or None in counts.values():
        return None
    return {"models": [name for name in models if isinstance(name, str)], **counts}


def _fit(asked: llmcrdt.Ask, workers: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those of the workers that have such a model, for an ask that is not over."""
    if asked.state in ENDED:
        return []
    return [each for each in workers if any(fits(name, asked.model) for name in each["models"])]


def _print_ask(asked: llmcrdt.Ask, as_json: bool) -> None:
    if as_json:
        print_json(_ask_json(asked))
        return
    status = asked.status()
    why = f"  {safe(status.text or status.code)}" if status.state == "failed" else ""
    answer = f"  {status.answer.id}" if status.answer else ""
    click.echo(f"{asked.id}  {status.state:9} {safe(asked.model) or 'any model'}{answer}{why}")


def _ask_json(asked: llmcrdt.Ask) -> dict[str, Any]:
    status = asked.status()
    return {
        "id": asked.id,
        "state": status.state,
        "model": asked.model,
        "settings": dict(asked.settings),
        "author": asked.author,
        "asked_at": asked.asked_at,
        "valid_while": asked.valid_while,
        "answer": status.answer.id if status.answer else None,
        "code": status.code or None,
        "text": status.text or None,
    }


@click.command()
@click.option(
    "--model",
    "models",
    multiple=True,
    metavar="[NAME=]MODEL",
    help="GGUF file, or a provider's (anthropic/NAME, openai/NAME, ...), and the name that asks use; may be given"
    " several times [default: as for chat]",
)
@click.option("--slots", default=1, show_default=True, type=click.IntRange(1, 16), help="answers of one model at once")
@click.option("--max-tokens", default=4096, show_default=True, type=click.IntRange(min=1), help="of an answer, at most")
@click.option(
    "--drain", default=30.0, show_default=True, type=click.FloatRange(min=0), help="seconds for answers to end"
)
@click.option(
    "--patience", default=30.0, show_default=True, type=click.FloatRange(min=0.1),
    help="seconds of silence after which another worker counts as dead",
)  # fmt: skip
@click.option("--invite", help='join a library with an invite; "-" reads it from stdin')
@click.option("--http", metavar="[HOST:]PORT", help="also serve the HTTP APIs of OpenAI and Anthropic there")
@click.option(
    "--http-keys",
    type=click.Path(path_type=Path),
    help="file with the keys that are let in, a line each: KEY, or NAME KEY [also: $LLMCRDT_HTTP_KEY]",
)
@click.option("--http-origin", "origins", multiple=True, metavar="ORIGIN", help="a page that may ask from a browser")
@click.option("--offer-kv", metavar="[HOST:]PORT", help="hand KV state to workers that have the key")
@click.option(
    "--kv-rate", default=256.0, show_default=True, type=click.FloatRange(min=0.001),
    help="megabytes of KV state handed over per second, at most",
)  # fmt: skip
@click.option("--kv-from", "sources", multiple=True, metavar="URL", help="a worker that hands KV state over")
@click.option(
    "--kv-keys",
    type=click.Path(path_type=Path),
    help="file with the keys of KV state, one a line; questions show the first [also: $LLMCRDT_KV_KEY]",
)
@cache_dir
@relay_url
@relay_token
@trusted
@click.pass_obj
def serve(
    repos: Repos,
    models: tuple[str, ...],
    slots: int,
    max_tokens: int,
    drain: float,
    patience: float,
    invite: str | None,
    http: str | None,
    http_keys: Path | None,
    origins: tuple[str, ...],
    offer_kv: str | None,
    kv_rate: float,
    sources: tuple[str, ...],
    kv_keys: Path | None,
    cache: Path | None,
    relay: str | None,
    token: Token,
    ca: Path | None,
) -> None:
    """Answer what is asked in this library, on whatever device, with local models, or with those of providers. Ctrl-C
    or SIGTERM ends it: answers under way have --drain seconds, then they are handed over to other workers.

    With --http, clients of OpenAI's and Anthropic's APIs are answered too, on the same conversations (docs/serve.md),
    and the page of "llmcrdt open" is at /, for this machine alone; its token is printed, or that of
    $LLMCRDT_PAGE_TOKEN. Beyond this machine (--http 0.0.0.0:8080) that needs a key.

    With --offer-kv, workers that have a key of --kv-keys, and name this one with --kv-from, take KV state from here
    where that is faster than to evaluate (docs/kv.md, "Handed over").
    """
    from llmcrdt.serve import Worker

    web = _http(http, http_keys, origins, max_tokens)
    offer, peers = _handover(offer_kv, kv_rate, sources, kv_keys, cache)
    text = sys.stdin.read().strip() if invite == "-" else invite
    chosen: dict[str, Path | Provider] = dict(served_model(each) for each in models) or {
        needed_model(None).stem: needed_model(None)
    }
    ending = threading.Event()
    with contextlib.ExitStack() as stack:
        repo = stack.enter_context(repos(create=True, join=True, invite=text))
        engines = {
            name: stack.enter_context(llmcrdt.LlamaEngine(model, cache=cache, slots=slots, peers=peers()))
            if isinstance(model, Path)
            else model
            for name, model in chosen.items()
        }
        try:
            link = stack.enter_context(repo.connect(relay, token, tls=ca))
            where = link.url
        except (NeverSyncs, RelayUnreachable):
            if relay is not None:
                raise
            link, where = None, "this database alone, for no relay is known here, or it never syncs"
        worker = Worker(repo, engines, slots=slots, most_tokens=max_tokens, patience=patience).start()
        for name in (signal.SIGINT, signal.SIGTERM):
            signal.signal(name, lambda *_: ending.set())
        click.echo(f"Serving {', '.join(safe(name) for name in engines)} to library {repo.library}, at {safe(where)}")
        server = None
        if web is not None:
            front, secret = _page(web.keywords["host"], repo, link, engines, ending)
            server = stack.enter_context(web(repo, engines, front=front))
            click.echo(f"HTTP APIs at {server.url}/v1")
            if secret is not None:
                click.echo(f"The page is at {server.url}/{secret}")
        if offer is not None:
            click.echo(f"KV state at {stack.enter_context(offer()).url}")
        while not ending.wait(0.5):
            pass
        if worker.busy:
            click.echo(f"Ending: {worker.busy} answers under way", err=True)
        until = time.monotonic() + drain
        if server is not None:
            server.stop(drain)
        worker.stop(max(0.0, until - time.monotonic()))


def _page(
    host: str,
    repo: llmcrdt.Repo,
    link: Link | None,
    engines: Mapping[str, llmcrdt.Engine | Provider],
    ending: threading.Event,
) -> tuple[Callable[[Any, int], Any], str | None]:
    """Puts the page at / of the HTTP server, and the end of its address: with the token, unless $LLMCRDT_PAGE_TOKEN
    says one. Without it, where others reach the server, or its packages are not installed."""
    from llmcrdt.serve.http.server import is_loopback

    try:
        from llmcrdt.page.access import Tokens
        from llmcrdt.page.app import PageApp
        from llmcrdt.page.beside import beside
    except ImportError:
        return lambda app, port: app, None
    if not is_loopback(host):
        return lambda app, port: app, None
    chosen = os.environ.get("LLMCRDT_PAGE_TOKEN")
    tokens = Tokens(chosen)
    here = {name: None if isinstance(model, Provider) else model for name, model in engines.items()}
    page = PageApp(repo, link=link, models=here, stopping=ending.is_set)
    secret = "" if chosen else f"#token={tokens.token}"
    return lambda app, port: beside(app, page, tokens, port), secret


def _http(http: str | None, keys: Path | None, origins: tuple[str, ...], max_tokens: int) -> partial[HttpServer] | None:
    """Makes the HTTP server of a repo and its engines; None if none is wanted. Wrong options are refused before any
    model is loaded."""
    if http is None:
        if keys is not None or origins:
            raise click.UsageError("--http-keys and --http-origin are for --http.")
        return None
    try:
        from llmcrdt.serve.http.keys import read_keys
        from llmcrdt.serve.http.limits import HttpLimits
        from llmcrdt.serve.http.server import HttpServer, address, check_reach
    except ImportError as error:
        raise InvalidContent(
            f"The HTTP APIs need {error.name}, which is not installed.", hint='pip install "llmcrdt[serve]"'
        ) from None
    host, port = address(http)
    known = read_keys(keys)
    check_reach(host, known)
    limits = HttpLimits(tokens=max_tokens)
    return partial(HttpServer, host=host, port=port, keys=known, origins=origins, limits=limits)


def _handover(
    offer: str | None, rate: float, sources: tuple[str, ...], keys: Path | None, cache: Path | None
) -> tuple[Callable[[], Any] | None, Callable[[], list[Any]]]:
    """Makes the server that hands KV state over, None if none is wanted; and, for each engine, those that it takes it
    from. Wrong options are refused before any model is loaded."""
    from llmcrdt.kvcache import HttpPeer
    from llmcrdt.kvcache.handover import read_handover_keys

    if offer is None and not sources:
        if keys is not None:
            raise click.UsageError("--kv-keys is for --offer-kv and --kv-from.")
        return None, list
    known = read_handover_keys(keys)

    def peers() -> list[Any]:
        return [HttpPeer(url, known[0]) for url in sources]

    peers()
    if offer is None:
        return None, peers
    try:
        from llmcrdt.serve.http.kv_app import KvLimits
        from llmcrdt.serve.http.kv_server import KvServer
        from llmcrdt.serve.http.server import address
    except ImportError as error:
        raise InvalidContent(
            f"--offer-kv needs {error.name}, which is not installed.", hint='pip install "llmcrdt[serve]"'
        ) from None
    host, port = address(offer)
    return partial(KvServer, cache, known, host=host, port=port, limits=KvLimits(rate=1e6 * rate)), peers


def served_model(given: str) -> tuple[str, Path | Provider]:
    """A model's name, and its file or its provider; its own name where none is given."""
    name, equals, rest = given.rpartition("=")
    if is_named(rest) and not Path(rest).exists() and (name or not equals):
        return name or rest, named(rest)
    return named_model(given)


def named_model(given: str) -> tuple[str, Path]:
    """A model's name and file; the file's own name where none is given."""
    name, equals, file = given.partition("=")
    path = Path(file if equals else given)
    if equals and not name:
        raise InvalidContent(f"{given!r} names no model.", hint="Give --model NAME=FILE.gguf, or FILE.gguf.")
    return (name if equals else path.stem), path

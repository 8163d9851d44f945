"""Commands that let a model answer, here or at a provider."""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click

import llmcrdt
from llmcrdt import providers
from llmcrdt.exceptions import SyncError
from llmcrdt.terminal_text import safe

from .completion import complete_conversation, conversation_id
from .options import (
    INTERRUPTED,
    Repos,
    Token,
    any_model,
    as_json,
    cache_dir,
    entry_json,
    find,
    kept_local,
    max_tokens,
    of_kind,
    print_json,
    relay_token,
    temperature,
    trusted,
)
from .relays import what_to_do


@click.command()
@conversation_id
@any_model
@cache_dir
@max_tokens
@temperature
@click.option("--seed", type=int, help="of the random numbers [default: a new one]")
@click.option("--stop", multiple=True, help="text that ends the answer; may be given several times")
@as_json
@click.pass_obj
def generate(
    repos: Repos,
    id: str,
    model: Path,
    cache: Path | None,
    max_tokens: int | None,
    temperature: float | None,
    seed: int | None,
    stop: tuple[str, ...],
    as_json: bool,
) -> None:
    """Let a model answer, and print the answer as it comes. Ctrl-C stops it and keeps what was said."""
    settings = chosen(max_tokens=max_tokens, temperature=temperature, seed=seed, stop=stop or None)
    with repos() as repo, opened(model, cache) as engine:
        conversation = find(repo, id)
        generation = llmcrdt.generate(conversation, engine, **settings)
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
            print_json({**entry_json(entry), "stats": generation.stats})
        else:
            click.echo()
            for line in generation.stats.get("left_out", []):
                click.echo(f"llmcrdt: {safe(line)}", err=True)
            click.echo(_counts(generation.stats), err=True)
        if not isinstance(engine, providers.Provider):
            engine.settled(30)
        if interrupted:
            sys.exit(INTERRUPTED)


@click.command()
@click.argument("id", required=False, shell_complete=complete_conversation)
@any_model
@cache_dir
@click.option("--title", help="title of a new conversation [default: its first words]")
@of_kind
@kept_local
@click.option("--system", help="the first thing that the model is told, in a new conversation")
@click.option("--sync", "relay", metavar="URL", help="stay in step with a relay meanwhile (ws://HOST:PORT)")
@click.option("--plain", is_flag=True, help="line by line, also on a whole terminal")
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
    title: str | None,
    crdt: str | None,
    local: bool,
    system: str | None,
    relay: str | None,
    plain: bool,
    token: Token,
    ca: Path | None,
    max_tokens: int | None,
    temperature: float | None,
) -> None:
    """Talk with a model in the conversation ID, or in a new one.

    On a terminal, with the extra "tui", it takes the whole screen: F1 lists the keys. Else, or with --plain, it goes
    line by line: /help lists what else can be typed.
    """
    from llmcrdt.cli.chat import Chat, typed_lines
    from llmcrdt.repo.titles import title_from

    answer = functools.partial(llmcrdt.generate, **chosen(max_tokens=max_tokens, temperature=temperature))
    with contextlib.ExitStack() as stack:
        repo = stack.enter_context(repos(create=id is None))
        conversation = find(repo, id) if id else None
        engine = stack.enter_context(opened(model, cache))
        link = stack.enter_context(repo.connect(relay, token, tls=ca)) if relay else None
        create = functools.partial(repo.create, crdt=crdt, local=local)
        if not plain and _whole_terminal():
            from llmcrdt.tui import ChatApp

            ChatApp(
                repo,
                engine,
                conversation=conversation,
                link=link,
                answer=answer,
                system=system,
                title=title,
                create=create,
            ).run()
            return

        def begin(words: str) -> llmcrdt.Conversation:
            def fill(made: llmcrdt.Conversation) -> None:
                if system:
                    made.append("system", system)
                made.append("user", words)

            return create(title_from(words) if title is None else title, fill=fill)

        def use(name: str) -> llmcrdt.Engine | providers.Provider:
            return stack.enter_context(opened(Path(name), cache))

        talk = Chat(conversation or begin, engine, answer, use)
        talk.run(typed_lines())
        if link is not None and talk.begun is not None:
            try:
                link.wait_synced(5)
            except SyncError as error:
                click.echo(f"llmcrdt: {safe(error.message)} {what_to_do(link, error)}", err=True)
        if id is None and talk.begun is not None:
            click.echo(f'Go on with "llmcrdt chat {talk.begun.id}".', err=True)


@contextlib.contextmanager
def opened(model: Path, cache: Path | None) -> Iterator[llmcrdt.Engine | providers.Provider]:
    """The model that a command names: a file, or a provider's."""
    if providers.is_named(model.as_posix()) and not model.exists():
        yield providers.named(model.as_posix())
        return
    with llmcrdt.LlamaEngine(model, cache=cache) as engine:
        yield engine


def chosen(**settings: Any) -> dict[str, Any]:
    """The settings that were given."""
    return {name: value for name, value in settings.items() if value is not None}


def _counts(stats: llmcrdt.GenerationStats) -> str:
    evaluated = f" {stats['evaluated']} evaluated," if "evaluated" in stats else ""
    return (
        f"{stats.get('reused', 0)} of {stats.get('total', 0)} prompt tokens reused,{evaluated}"
        f" {stats.get('sampled', 0)} sampled ({stats.get('finish')}){_cost(stats)}"
    )


def _cost(stats: llmcrdt.GenerationStats) -> str:
    cost = stats.get("cost")
    return "" if cost is None else f", {cost['amount']:.6f} {safe(cost['currency'])}"


def _whole_terminal() -> bool:
    """Whether somebody sits at a terminal, and the extra ``tui`` is installed."""
    return sys.stdin.isatty() and sys.stdout.isatty() and find_spec("textual") is not None

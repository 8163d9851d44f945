"""llmcrdt open: the page over the database, in a browser on this machine."""

from __future__ import annotations

import contextlib
import signal
import threading
import webbrowser
from pathlib import Path

import click

import llmcrdt
from llmcrdt.exceptions import LLMCRDTError, NeverSyncs, RelayUnreachable

from .asking import named_model, relay_url
from .models import named_model as default_model
from .options import Repos, Token, cache_dir, relay_token, trusted


@click.command("open")
@click.option(
    "--model",
    "models",
    multiple=True,
    metavar="[NAME=]FILE",
    help="GGUF file that answers here; may be given several times [default: as for chat, where there is one]",
)
@click.option("--no-model", is_flag=True, help="answer nothing here; workers elsewhere do")
@click.option("--port", default=0, type=click.IntRange(0, 65535), help="[default: a free one]")
@click.option("--browser/--no-browser", default=True, show_default=True, help="open a browser")
@cache_dir
@relay_url
@relay_token
@trusted
@click.pass_obj
def open_(
    repos: Repos,
    models: tuple[str, ...],
    no_model: bool,
    port: int,
    browser: bool,
    cache: Path | None,
    relay: str | None,
    token: Token,
    ca: Path | None,
) -> None:
    """Show all conversations on a page in the browser, until Ctrl-C. The page is for this machine alone: its address
    holds a token.

    Models that are given here answer, or workers elsewhere ("llmcrdt serve").
    """
    try:
        from llmcrdt.page import Page
    except ImportError as error:
        raise LLMCRDTError(
            f"The page needs packages that are not installed ({error.name}).", hint='pip install "llmcrdt[page]"'
        ) from None
    from llmcrdt.serve import Worker

    files = dict(named_model(each) for each in models)
    if not files and not no_model and (found := default_model()) is not None:
        files = {found.stem: found}
    ending = threading.Event()
    with contextlib.ExitStack() as stack:
        repo = stack.enter_context(repos(create=True))
        engines = {name: stack.enter_context(llmcrdt.LlamaEngine(file, cache=cache)) for name, file in files.items()}
        link = None
        try:
            link = stack.enter_context(repo.connect(relay, token, tls=ca))
        except (NeverSyncs, RelayUnreachable):
            if relay is not None:
                raise
        if engines:
            stack.enter_context(Worker(repo, engines))
        page = stack.enter_context(Page(repo, link=link, models=engines, port=port))
        for name in (signal.SIGINT, signal.SIGTERM):
            signal.signal(name, lambda *_: ending.set())
        click.echo(f"The page is at {page.url}\nCtrl-C ends it.")
        if browser:
            webbrowser.open(page.opening_url())
        while not ending.wait(0.5):
            pass

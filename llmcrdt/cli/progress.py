"""Progress of what takes long, on a terminal alone."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click

quiet = click.option("--quiet", "-q", is_flag=True, help="show no progress")


def progress_shown(quiet: bool, as_json: bool = False) -> bool:
    """Whether somebody sits there who wants to see it: nothing of it goes into files and pipes."""
    return not quiet and not as_json and sys.stderr.isatty()


@contextmanager
def percent(what: str, quiet: bool, as_json: bool = False) -> Iterator[Callable[[int, int], None]]:
    """Shows how much is done, in percent, on stderr: the function is told how much of how much. The line is gone at the
    end."""
    if not progress_shown(quiet, as_json):
        yield lambda done, of: None
        return

    def show(done: int, of: int) -> None:
        click.echo(f"\r\x1b[K{what}: {min(100, done * 100 // max(1, of))} %", err=True, nl=False)

    try:
        yield show
    finally:
        click.echo("\r\x1b[K", err=True, nl=False)

"""Commands that copy the whole database, and put a copy back."""

from __future__ import annotations

from pathlib import Path

import click

from ..exceptions import NotADatabase, StoreError
from ..store.backup import copy_repo
from .options import Repos
from .progress import percent, quiet


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--without-secrets", is_flag=True, help="leave out the keys of hidden fields and the relay's token")
@quiet
@click.pass_obj
def backup(repos: Repos, file: Path, without_secrets: bool, quiet: bool) -> None:
    """Copy the database to FILE, with attachments, keys and the relay's token beside it, while others use it."""
    with repos() as repo, percent("copying", quiet) as on_bytes:
        repo.backup(file, secrets=not without_secrets, on_bytes=on_bytes)


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@quiet
@click.pass_obj
def restore(repos: Repos, file: Path, quiet: bool) -> None:
    """Put a copy that "backup" made in the place of a database that is gone. One that is there is never replaced: move
    it away first, or give --db."""
    target = repos.path(folder=True)
    if not file.exists():
        raise NotADatabase(f"There is no database at {file}.", hint='Give one that "llmcrdt backup FILE" made.')
    if target.exists():
        raise StoreError(
            f"There is a database at {target} already.",
            hint="Move it away first, or restore elsewhere: llmcrdt --db NEW restore FILE. Nothing was written.",
        )
    with percent("copying", quiet) as on_bytes:
        copy_repo(file, target, on_bytes=on_bytes)
    click.echo(f"{target} is what {file} was. A relay brings back all that it got since.", err=True)

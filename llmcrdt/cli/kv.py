"""Commands about the KV cache of the local engine."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

import llmcrdt
from llmcrdt.ids import DocumentId
from llmcrdt.terminal_text import safe

from .completion import conversation_id
from .options import MANY, Repos, as_json, cache_dir, find, model_file, print_counts, print_json

if TYPE_CHECKING:
    from llmcrdt.kvcache.disk import DiskCache


@click.group()
def kv() -> None:
    """The KV cache of the local engine."""


@kv.command()
@cache_dir
@as_json
def stats(cache: Path | None, as_json: bool) -> None:
    """Show what the cache directory holds."""
    chunks = _chunks(cache)
    print_counts({"folder": str(chunks.directory.parent), **chunks.stats()}, as_json)


@kv.command("verify")
@cache_dir
@as_json
def kv_verify(cache: Path | None, as_json: bool) -> None:
    """Read every chunk and check it to the last bit; bad ones are set aside. Exit code 1 if there were any."""
    found = _chunks(cache).verify()
    print_counts(found, as_json)
    if found["bad"]:
        sys.exit(1)


@kv.command("prune")
@click.option("--keep", type=click.IntRange(0), default=0, show_default=True, help="bytes of chunks to keep")
@cache_dir
@as_json
def kv_prune(keep: int, cache: Path | None, as_json: bool) -> None:
    """Delete KV state that isn't pinned, beginning with what is worth least. It can always be computed again."""
    print_counts(_chunks(cache).prune(keep), as_json)


@kv.command("pin")
@conversation_id
@model_file
@cache_dir
@click.pass_obj
def kv_pin(repos: Repos, id: str, model: Path, cache: Path | None) -> None:
    """Keep a conversation's KV state as of now: it is not evicted until "unpin". Evaluates what isn't stored yet."""
    with repos() as repo, llmcrdt.LlamaEngine(model, cache=cache) as engine:
        llmcrdt.pin(find(repo, id), engine)
        engine.settled()


@kv.command("unpin")
@conversation_id
@cache_dir
@click.pass_obj
def kv_unpin(repos: Repos, id: str, cache: Path | None) -> None:
    """Let a conversation's KV state be evicted again, of all models."""
    with repos() as repo:
        _chunks(cache).pins.drop(find(repo, id).id)


@kv.command("pins")
@cache_dir
@as_json
@click.pass_obj
def kv_pins(repos: Repos, cache: Path | None, as_json: bool) -> None:
    """List the pinned conversations, and how many chunks and recurrent states each of them keeps.

    The cache knows conversations of other databases by a hash only; --json shows that hash.
    """
    from llmcrdt.kvcache.owners import owner_name
    from llmcrdt.repo.repo import repo_core

    found = _chunks(cache).pins.all()
    with repos() as repo:
        titles = {row.id: row.title for row in repo.list(MANY)}
        known = {owner_name(id_): id_ for id_ in (*titles, *repo_core(repo).store.catalog.documents("conversation"))}
    counts = {str(known.get(name, name)): len(keys) for name, keys in sorted(found.items())}
    if as_json:
        print_json(counts)
        return
    for name, count in counts.items():
        ours = safe(titles.get(DocumentId(name), "")) or "(no title)"
        click.echo(f"{name}  {count:6}  {ours}" if name not in found else f"(of another database)  {count:6}")
    if not counts:
        click.echo("Nothing is pinned.", err=True)


@kv.command("plan")
@conversation_id
@model_file
@cache_dir
@as_json
@click.pass_obj
def kv_plan(repos: Repos, id: str, model: Path, cache: Path | None, as_json: bool) -> None:
    """Show the cost of the next answer: tokens in all, reused, to evaluate, and why.

    Says also whether this model is exact here. Waits until the model's file is hashed and the model was probed, and
    remembers both.
    """
    with repos() as repo, llmcrdt.LlamaEngine(model, cache=cache) as engine:
        engine.settled()
        planned = llmcrdt.plan(find(repo, id), engine)
        if as_json:
            why = {**asdict(planned.why), "text": str(planned.why)}
            print_json({**asdict(planned), "why": why, "exactness": engine.exactness})
        else:
            seconds = f", about {planned.seconds:.1f} s" if planned.seconds is not None else ""
            counts = f"{planned.total} tokens: {planned.reused} reused, {planned.evaluate} to evaluate{seconds}"
            click.echo(safe(f"{counts}. {planned.why}"))
            click.echo(f"State of this model is {engine.exactness} here.")


def _chunks(cache: Path | None) -> DiskCache:
    from llmcrdt.kvcache.disk import DiskCache
    from llmcrdt.kvcache.paths import chunk_folder, user_cache

    return DiskCache(chunk_folder(cache or user_cache()))

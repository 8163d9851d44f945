"""The command that shows the main job from end to end."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from .options import read


@click.command()
@click.option(
    "--model", type=click.Path(path_type=Path), help="GGUF file [default: a tiny random one that speaks noise]"
)
@click.option(
    "--conversation",
    type=click.Path(path_type=Path),
    help="OpenAI chat-completions JSON [default: an example]",
)
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="write the figures to this file")
@click.option("--keep", type=click.Path(path_type=Path), help="leave databases, model and caches in this folder")
def demo(model: Path | None, conversation: Path | None, json_file: Path | None, keep: Path | None) -> None:
    """Show the main job from end to end: two devices, one relay, one local model."""
    from llmcrdt.cli.story import run

    text = read(conversation) if conversation else None
    if not run(model=model, conversation=text, json_file=json_file, keep=keep, say=click.echo):
        sys.exit(1)

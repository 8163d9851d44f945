"""``python -m llmcrdt.cli``: the ``llmcrdt`` command."""

from llmcrdt.cli import main

main()

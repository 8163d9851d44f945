"""``python -m llmcrdt``: the ``llmcrdt`` command."""

from llmcrdt.cli import main

if __name__ == "__main__":
    main(prog_name="llmcrdt")

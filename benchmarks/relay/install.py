"""``python -m benchmarks.relay.install``: put the servers to compare with into a folder that git ignores.

By name and version, from npm and PyPI. pycrdt-websocket gets an environment of its own: this project does not use it.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import venv
from collections.abc import Sequence
from pathlib import Path

from .servers import NODE, PYTHON

NODE_PACKAGES = (
    "y-websocket@2.1.0",
    "yjs@13.6.33",
    "@hocuspocus/server@4.7.0",
    "@automerge/automerge-repo-sync-server@0.2.8",
)
PYTHON_PACKAGES = ("pycrdt-websocket==0.16.5", "pycrdt==0.14.13", "websockets==17.4")


def main() -> int:
    if (npm := shutil.which("npm")) is None:
        print("Node.js and npm are not here: y-websocket and Hocuspocus are left out.")
    elif not _installed(NODE / "installed", NODE_PACKAGES):
        NODE.mkdir(parents=True, exist_ok=True)
        (NODE / "package.json").write_text('{"private": true}\n')
        subprocess.run([npm, "install", "--no-audit", "--no-fund", *NODE_PACKAGES], cwd=NODE, check=True)
        _note(NODE / "installed", NODE_PACKAGES)
    if not _installed(PYTHON / "installed", PYTHON_PACKAGES):
        venv.create(PYTHON, with_pip=True)
        command: list[str | Path] = [PYTHON / "bin" / "python", "-m", "pip", "install", "--quiet", *PYTHON_PACKAGES]
        subprocess.run(command, check=True)
        _note(PYTHON / "installed", PYTHON_PACKAGES)
    return 0


def _installed(note: Path, packages: Sequence[str]) -> bool:
    return note.exists() and note.read_text() == "\n".join(packages)


def _note(note: Path, packages: Sequence[str]) -> None:
    note.write_text("\n".join(packages))


if __name__ == "__main__":
    sys.exit(main())

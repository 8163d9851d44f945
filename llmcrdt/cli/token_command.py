"""--token-command: a command of the user's own that prints a token."""

from __future__ import annotations

import os
import subprocess

from llmcrdt.exceptions import RelayRefused, TokenUnavailable
from llmcrdt.sync.token import PATIENCE, TokenProvider

REFUSED = "LLMCRDT_TOKEN_REFUSED"
"""The variable that tells the command why the relay refused the token before; not set at first."""

_HINT = "Run it alone to see what it prints."


def token_printed_by(command: str) -> TokenProvider:
    """A provider that runs a shell command, and takes the first line of its output. Raises TokenUnavailable."""

    def run(refused: RelayRefused | None) -> str:
        told = {**os.environ, REFUSED: refused.message} if refused is not None else None
        try:
            done = subprocess.run(
                command, shell=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, env=told, timeout=PATIENCE
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise TokenUnavailable(f"--token-command failed: {error}.", hint=_HINT) from None
        if done.returncode:
            raise TokenUnavailable(f"--token-command ended with status {done.returncode}.", hint=_HINT)
        lines = done.stdout.decode("utf-8", "replace").splitlines()
        if not lines or not lines[0].strip():
            raise TokenUnavailable("--token-command printed no token.", hint=_HINT)
        return lines[0].strip()

    return run

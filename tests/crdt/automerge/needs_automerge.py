"""The mark of a test that needs the package automerge."""

from __future__ import annotations

import pytest

from llmcrdt.crdt.automerge import package

needs_automerge = pytest.mark.skipif(
    not package.installed(), reason=f"automerge {package.PIN} is not installed: pip install 'llmcrdt[automerge]'"
)

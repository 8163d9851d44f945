"""The package of another version, or none, is told apart before anything is loaded."""

from __future__ import annotations

from importlib import metadata

import pytest

from llmcrdt.crdt import registry
from llmcrdt.crdt.automerge.backend import AutomergeBackend
from llmcrdt.crdt.automerge.package import PIN
from llmcrdt.exceptions import CRDTMissing


@pytest.mark.parametrize(
    ("version", "words"),
    [(None, "not installed"), ("0.1.2", "unrelated package"), ("1.0.0rc1", "lacks what is needed")],
)
def test_another_package_is_refused(version: str | None, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def told(name: str) -> str:
        if version is None:
            raise metadata.PackageNotFoundError(name)
        return version

    monkeypatch.setattr(metadata, "version", told)
    assert registry.kinds() == {"yjs"}, "a relay carries such documents as they are"
    assert "automerge" in registry.known()
    for call in (lambda: registry.backend("automerge"), lambda: AutomergeBackend().make_replica(())):
        with pytest.raises(CRDTMissing, match=words) as caught:
            call()
        assert "pip install 'llmcrdt[automerge]'" in caught.value.hint


def test_the_one_version_that_is_taken_is_the_one_that_the_extra_installs() -> None:
    from pathlib import Path

    pyproject = (Path(__file__).parents[3] / "pyproject.toml").read_text()
    assert f'automerge = ["automerge=={PIN}"]' in pyproject

"""Schedules of devices that share one conversation: sealed fields, keys handed over, attachments, erase, collect."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import llmcrdt
from llmcrdt.document.encryption import EncryptedField
from llmcrdt.exceptions import KeyMissing
from llmcrdt.ids import EntryId

from ..replicas import version_of

Step = tuple[str, int, int]
DEVICES = 3


@contextmanager
def devices(folder: Path, seed: int) -> Iterator[list[tuple[llmcrdt.Repo, llmcrdt.Conversation]]]:
    rng = random.Random(seed)
    clocks = [1_000_000.0 + rng.randrange(-86400, 86400) for _ in range(DEVICES)]
    repos = [
        llmcrdt.open(folder / f"{n}.db", random=rng.randbytes, clock=lambda n=n: clocks[n])  # type: ignore[misc]
        for n in range(DEVICES)
    ]
    try:
        first = repos[0].create("x")
        yield [(repo, first if n == 0 else repo.join(first.id)) for n, repo in enumerate(repos)]
    finally:
        for repo in repos:
            repo.close()


def steps(*kinds: str) -> st.SearchStrategy[list[Step]]:
    return st.lists(
        st.tuples(st.sampled_from(kinds), st.integers(0, DEVICES - 1), st.integers(0, DEVICES - 1)), max_size=25
    )


def merge_all(all_: list[tuple[llmcrdt.Repo, llmcrdt.Conversation]]) -> None:
    for _ in range(2):
        for _, one in all_:
            for _, other in all_:
                other.apply(one.diff(since=other.version()))


@settings(max_examples=25, deadline=None)
@given(steps("append", "append", "rotate", "hand over", "merge", "merge"), st.integers(0, 99))
def test_a_sealed_field_opens_exactly_where_its_key_is(
    tmp_path_factory: pytest.TempPathFactory, schedule: list[Step], seed: int
) -> None:
    pytest.importorskip("nacl", reason='sealing needs PyNaCl: pip install "llmcrdt[seal]"')
    written: dict[EntryId, bytes] = {}
    with devices(tmp_path_factory.mktemp("sealed"), seed) as all_:
        for n, (kind, a, b) in enumerate(schedule):
            (repo, conversation), (other_repo, other) = all_[a], all_[b]
            match kind:
                case "append":
                    data = f"secret {n}".encode()
                    field = llmcrdt.HiddenField(data, {"n": n}, sealed=True)
                    before = version_of(conversation)
                    try:
                        written[conversation.append("user", "x", hidden={"f": field}).id] = data
                    except KeyMissing:
                        fields = [entry.hidden["f"] for entry in conversation.transcript()]
                        assert any(field.locked for field in fields), "a key is missing here"
                        assert version_of(conversation) == before
                case "rotate":
                    conversation.rotate_key()
                case "hand over":
                    other_repo.keyring.add(repo.keyring.export(conversation.id))
                case "merge":
                    other.apply(conversation.diff())
        merge_all(all_)
        for repo, conversation in all_:
            known = {key.id for key in repo.keyring.keys(conversation.id)}
            for entry, data in written.items():
                found = conversation.entry(entry).hidden["f"]
                assert isinstance(found, EncryptedField)
                assert found.locked == (found.key not in known)
                assert found.locked or found.data == data
            assert conversation.verify() == []
        for repo, conversation in all_:
            for other_repo, _ in all_:
                other_repo.keyring.add(repo.keyring.export(conversation.id))
        for _, conversation in all_:
            assert {entry: conversation.entry(entry).hidden["f"].data for entry in written} == written
        assert len({repo.keyring.keys(conversation.id) for repo, conversation in all_}) == 1


def on_disk(repo: llmcrdt.Repo) -> set[str]:
    return {path.name for path in repo.blobs.folder.glob("??/??/*")}


@settings(max_examples=25, deadline=None)
@given(
    steps("append", "append", "edit", "erase", "collect", "copy", "merge", "merge", "reopen", "other"),
    st.integers(0, 99),
)
def test_a_named_attachment_stays_where_it_is_and_an_erased_one_goes(
    tmp_path_factory: pytest.TempPathFactory, schedule: list[Step], seed: int
) -> None:
    rng = random.Random(seed)
    with devices(tmp_path_factory.mktemp("blobs"), seed) as all_:
        for n, (kind, a, b) in enumerate(schedule):
            (repo, conversation), (other_repo, other) = all_[a], all_[b]
            content = [llmcrdt.Text(f"words {n}"), llmcrdt.Blob(f"content {rng.randrange(4)}".encode())]
            shown = [entry for entry in conversation.transcript() if entry.status != "erased"]
            had = on_disk(repo)
            match kind:
                case "append":
                    conversation.append("user", content)
                case "other":
                    repo.create("y").append("user", content)
                case "edit" if shown:
                    conversation.edit(rng.choice(shown), rng.choice([f"edit {n}", content]))  # type: ignore[arg-type]
                case "erase" if shown:
                    conversation.erase(rng.choice(shown))
                    assert on_disk(repo) == had & (had - erased_of(had, repo))
                case "collect":
                    named = repo._core.documents.named_blobs()
                    repo.blobs.collect(keep=0)
                    assert on_disk(repo) == had & named
                case "copy":
                    for hash_ in other_repo.blobs.missing() & had:
                        with repo.blobs.open(hash_) as file:
                            other_repo.blobs.put(file)
                case "merge":
                    other.apply(conversation.diff())
                case "reopen":
                    conversation.close()
                    all_[a] = (repo, repo.get(conversation.id))
        merge_all(all_)
        for repo, conversation in all_:
            named = repo._core.documents.named_blobs()
            assert on_disk(repo) <= named, "what was erased, and nobody else names, is gone"
            assert repo.blobs.missing() == named - on_disk(repo)
            for entry in conversation.transcript():
                for part in entry.parts:
                    if isinstance(part, llmcrdt.Blob) and part.present:
                        assert hashlib.sha256(part.read()).hexdigest() == part.hash


def erased_of(had: set[str], repo: llmcrdt.Repo) -> set[str]:
    """All that an erase had to take: no conversation of the repo names it any more."""
    return had - repo._core.documents.named_blobs()

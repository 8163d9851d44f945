"""Fingerprints, and the names of tokenizers read from GGUF files."""

import contextlib
import json
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmcrdt.engine.llama import fingerprint as module
from llmcrdt.engine.llama.fingerprint import FileHashes, HeldFile, fingerprint, model_files
from llmcrdt.engine.llama.gguf_header import _Damaged, _hash_fields, _Short, tokenizer_hash
from llmcrdt.exceptions import NotAModel

settings_maps = st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=5) | st.none(), max_size=5)


@given(settings_maps, settings_maps)
def test_fingerprints_differ_exactly_when_settings_do(a, b):
    same = {k: str(v) for k, v in a.items()} == {k: str(v) for k, v in b.items()}
    assert (fingerprint(a) == fingerprint(b)) is same
    assert fingerprint(a) == fingerprint(dict(reversed(a.items())))
    assert len(fingerprint(a)) == 32


def test_all_parts_of_a_split_model_count(tmp_path):
    names = [path.name for path in model_files(tmp_path / "big-00002-of-00003.gguf")]
    assert names == ["big-00001-of-00003.gguf", "big-00002-of-00003.gguf", "big-00003-of-00003.gguf"]
    assert model_files(tmp_path / "one.gguf") == [tmp_path / "one.gguf"]


def digests(hashes, file):
    with contextlib.closing(HeldFile(file)) as held:
        return hashes.of([held])


def test_a_changed_file_is_hashed_again(tmp_path, monkeypatch):
    """Also one of the same size whose time was set back."""
    monkeypatch.setattr(module, "_known_here", {})
    file, hashes = tmp_path / "model", FileHashes(tmp_path / "memo" / "files.json")
    file.write_bytes(b"one")
    info = file.stat()
    (first,) = digests(hashes, file)
    assert digests(hashes, file) == [first]
    file.write_bytes(b"two")
    os.utime(file, ns=(info.st_atime_ns, info.st_mtime_ns))
    assert digests(hashes, file) != [first]


@pytest.mark.parametrize(
    "memo", [b"", b"{", b"[]", b'{"files": 7}', b'{"files": {"a": 7}}', b"\xff", b'{"files": {"x": "short"}}']
)
def test_a_spoilt_memo_only_costs_time(tmp_path, memo, monkeypatch):
    monkeypatch.setattr(module, "_known_here", {})
    (tmp_path / "model").write_bytes(b"weights")
    (tmp_path / "files.json").write_bytes(memo)
    (digest,) = digests(FileHashes(tmp_path / "files.json"), tmp_path / "model")
    assert digests(FileHashes(None), tmp_path / "model") == [digest]
    assert digest in json.loads((tmp_path / "files.json").read_text())["files"].values()


def test_a_memo_that_cannot_be_written_is_no_error(tmp_path):
    (tmp_path / "model").write_bytes(b"weights")
    (tmp_path / "file").write_text("in the way")
    assert digests(FileHashes(tmp_path / "file" / "files.json"), tmp_path / "model")


def test_quantisations_share_a_tokenizer_and_templates_do_not(lab):
    plain = tokenizer_hash(lab.model())
    assert tokenizer_hash(lab.model("llama", "Q8_0", seed=3)) == plain
    assert tokenizer_hash(lab.model("mamba2")) == plain
    assert tokenizer_hash(lab.model(chat_template="{{ messages }}")) != plain


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_damaged_metadata_is_refused_or_read_never_worse(tiny_head, data):
    head = bytearray(tiny_head)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, 2000))
        head[at : at + 8] = data.draw(st.binary(min_size=1, max_size=8))
    with contextlib.suppress(_Short, _Damaged):
        assert len(_hash_fields(bytes(head))) == 64


def test_metadata_cut_short_is_refused(tiny_head, tmp_path):
    for length in (4, 10, 24, 100, 1000, 9000):
        (tmp_path / "cut").write_bytes(tiny_head[:length])
        with pytest.raises(NotAModel, match="damaged"):
            tokenizer_hash(tmp_path / "cut")


@pytest.fixture(scope="module")
def tiny_head(tmp_path_factory):
    from llmcrdt.testing.models import write_model

    return write_model(tmp_path_factory.mktemp("gguf") / "m.gguf").read_bytes()[:200_000]

"""Attachments from the outside: what an entry says of them, where their content is, and when it goes."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

import llmcrdt
from llmcrdt.cli import main
from llmcrdt.crdt.yjs.replica import YjsReplica
from llmcrdt.document import schema
from llmcrdt.document.canonical import canonical_json, parse_json
from llmcrdt.document.entry import part_from_json, part_to_json
from llmcrdt.document.entry_fields import write_version
from llmcrdt.exceptions import BlobMissing, InvalidContent
from llmcrdt.interop import openai_chat

OpenRepo = Callable[..., llmcrdt.Repo]
PICTURE = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 40
HASH = hashlib.sha256(PICTURE).hexdigest()


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    (tmp_path / "cat.png").write_bytes(PICTURE)
    return tmp_path / "cat.png"


def blob_of(entry: llmcrdt.Entry) -> llmcrdt.Blob:
    return next(part for part in entry.parts if isinstance(part, llmcrdt.Blob))


def stored(tmp_path: Path, name: str) -> list[bytes]:
    return [path.read_bytes() for path in (tmp_path / f"{name}.db.blobs").glob("??/??/*")]


def test_an_attachment_is_appended_and_read_back(open_repo: OpenRepo, picture: Path, tmp_path: Path) -> None:
    repo = open_repo("laptop")
    conversation = repo.create("x")
    entry = conversation.append("user", [llmcrdt.Text("see"), llmcrdt.Blob(picture)])
    picture.unlink()
    blob = blob_of(entry)
    assert (blob.hash, blob.size, blob.media_type, blob.name) == (HASH, len(PICTURE), "image/png", "cat.png")
    assert entry.text == "see" and blob.present and blob.read() == PICTURE
    assert blob.path is not None and blob.path.read_bytes() == PICTURE
    assert len(conversation.diff()) < 1500, "the content is not in the document"
    repo.close()
    again = blob_of(open_repo("laptop").get(conversation.id).transcript()[0])
    assert again == blob and again.read() == PICTURE


def test_every_kind_of_source_is_the_same_attachment(open_repo: OpenRepo, picture: Path, tmp_path: Path) -> None:
    conversation = open_repo("laptop").create("x")
    with open(picture, "rb") as file:
        blobs: list[Any] = [
            llmcrdt.Blob(picture),
            llmcrdt.Blob(str(picture)),
            llmcrdt.Blob(PICTURE, name="cat.png"),
            llmcrdt.Blob(bytearray(PICTURE), "image/png", "cat.png"),
            llmcrdt.Blob(memoryview(PICTURE), name="cat.png"),
            llmcrdt.Blob(file, name="cat.png"),
        ]
        kept = [blob_of(conversation.append("user", blob)) for blob in blobs]
    assert all(blob == kept[0] for blob in kept)
    assert stored(tmp_path, "laptop") == [PICTURE]
    assert blob_of(conversation.append("user", llmcrdt.Blob(b"?"))).media_type == "application/octet-stream"


def test_a_source_that_can_t_be_read_writes_no_entry(open_repo: OpenRepo, tmp_path: Path) -> None:
    conversation = open_repo("laptop").create("x")
    for source, error in ((tmp_path / "nothing.png", FileNotFoundError), (io.StringIO("text"), InvalidContent)):
        with pytest.raises(error):
            conversation.append("user", [llmcrdt.Text("see"), llmcrdt.Blob(source)])  # type: ignore[arg-type]
    with pytest.raises(BlobMissing, match="Append it"):
        llmcrdt.Blob(PICTURE).open()
    assert len(conversation.transcript()) == 0


def test_a_missing_attachment_is_a_state_that_put_ends(open_repo: OpenRepo) -> None:
    laptop = open_repo("laptop")
    phone = open_repo("phone", laptop.library)
    here = laptop.create("x")
    entry = here.append("user", [llmcrdt.Text("see"), llmcrdt.Blob(PICTURE, name="cat.png")])
    there = phone.join(here.id)
    there.apply(here.diff())
    carried = there.entry(entry.id)
    assert carried.parts == entry.parts and there.transcript().hash == here.transcript().hash
    blob = blob_of(carried)
    assert not blob.present and blob.path is None and phone.blobs.missing() == {HASH}
    with pytest.raises(BlobMissing):
        blob.read()
    with blob_of(entry).open() as file:
        phone.blobs.put(file)
    assert blob.present and blob.read() == PICTURE and phone.blobs.missing() == set()


def test_an_attachment_of_another_repo_is_copied(open_repo: OpenRepo) -> None:
    one, two = open_repo("one"), open_repo("two")
    entry = one.create("x").append("user", llmcrdt.Blob(PICTURE, name="cat.png"))
    copy = two.create("y").append("user", entry.parts)
    assert blob_of(copy) == blob_of(entry)
    one.close()
    assert blob_of(copy).read() == PICTURE


def test_edits_and_streams_keep_attachments(open_repo: OpenRepo) -> None:
    conversation = open_repo("laptop").create("x")
    entry = conversation.append("user", [llmcrdt.Text("see"), llmcrdt.Blob(PICTURE, name="cat.png")])
    edited = conversation.edit(entry, "look")
    assert edited.text == "look" and blob_of(edited) == blob_of(entry)
    other = conversation.edit(edited, [llmcrdt.Text("that"), llmcrdt.Blob(b"dog", name="dog.png")])
    assert blob_of(other).read() == b"dog"
    with conversation.stream() as stream:
        stream.write("here")
        sealed = stream.seal(parts=[llmcrdt.Text("here"), llmcrdt.Blob(b"bird")])
    assert blob_of(sealed).read() == b"bird"


def test_collect_keeps_what_any_version_in_any_conversation_names(open_repo: OpenRepo, tmp_path: Path) -> None:
    repo = open_repo("laptop")
    first, second, deleted = repo.create("first"), repo.create("second"), repo.create("deleted")
    old = first.append("user", llmcrdt.Blob(b"hidden by an edit"))
    first.edit(old, [llmcrdt.Text("no picture any more")])
    second.append("user", llmcrdt.Blob(b"of a conversation that nobody has open"))
    deleted.append("user", llmcrdt.Blob(b"of a deleted one"))
    repo.blobs.put(b"of no entry")
    repo.delete(deleted.id)
    second.close()
    before = set(repo._core.documents._conversations)
    assert repo.blobs.collect() == (0, 0), "what is young stays"
    assert repo.blobs.collect(keep=0).blobs == 1, "what the deleted one named went with it"
    assert sorted(stored(tmp_path, "laptop")) == [b"hidden by an edit", b"of a conversation that nobody has open"]
    assert set(repo._core.documents._conversations) == before, "what was closed is closed again"
    assert repo.get(second.id).transcript()[0].parts


def test_an_erase_takes_the_content_along_on_every_device(open_repo: OpenRepo, tmp_path: Path) -> None:
    laptop = open_repo("laptop")
    phone = open_repo("phone", laptop.library)
    here = laptop.create("x")
    entry = here.append("user", [llmcrdt.Text("secret"), llmcrdt.Blob(PICTURE)])
    shared = here.append("user", [llmcrdt.Text("and"), llmcrdt.Blob(b"shared")])
    laptop.create("y").append("user", llmcrdt.Blob(b"shared"))
    there = phone.join(here.id)
    there.apply(here.diff())
    phone.blobs.put(PICTURE)
    blob = blob_of(entry)
    assert blob.path is not None
    blob.path.write_bytes(b"damaged")
    assert blob.path is None
    laptop.blobs.put(PICTURE)
    here.erase(entry)
    here.erase(shared)
    assert [path for path in (tmp_path / "laptop.db.blobs").rglob("*") if path.is_file() and HASH in path.name] == []
    assert stored(tmp_path, "laptop") == [b"shared"], "another conversation names it"
    assert stored(tmp_path, "phone") == [PICTURE]
    there.apply(here.diff())
    assert stored(tmp_path, "phone") == []


def test_an_erase_lists_alternatives_with_the_same_attachment_and_takes_them_when_asked(
    open_repo: OpenRepo, tmp_path: Path
) -> None:
    """An edit keeps the attachment without being told to; its words are other ones."""
    conversation = open_repo("laptop").create("x")
    entry = conversation.append("user", [llmcrdt.Text("see"), llmcrdt.Blob(PICTURE)])
    same = conversation.edit(entry, "see")
    edited = conversation.edit(entry, "other words")
    erased = conversation.erase(entry)
    assert erased.entries == (entry.id, same.id)
    assert erased.still_held == ((conversation.id, edited.id, "alternative"),)
    assert stored(tmp_path, "laptop") == [PICTURE]
    conversation.erase(entry, also=erased.still_held)
    assert conversation.entry(edited.id).status == "erased"
    assert stored(tmp_path, "laptop") == []


json_values = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=9)
)
hashes = st.binary(min_size=32, max_size=32).map(bytes.hex)


@settings(deadline=None)
@given(
    st.fixed_dictionaries(
        {"type": st.just("blob")},
        optional={
            "hash": hashes | json_values | st.just("../../../../etc/passwd"),
            "size": st.integers(0, 9) | json_values,
            "media_type": json_values,
            "name": json_values | st.just("../../.ssh/authorized_keys"),
            "other": json_values,
        },
    )
)
def test_a_strangers_blob_part_is_a_blob_or_kept_verbatim(value: Any) -> None:
    part = part_from_json(parse_json(canonical_json(value)))
    if isinstance(part, llmcrdt.Blob):
        assert len(part.hash) == 64 and set(part.hash) <= set("0123456789abcdef") and part.size >= 0
        assert not part.present
        assert part_from_json(part_to_json(part)) == part
    else:
        assert part_to_json(part) == value


def test_names_of_strangers_are_never_paths(open_repo: OpenRepo, tmp_path: Path) -> None:
    repo = open_repo("laptop")
    conversation = repo.create("x")
    outside = tmp_path / "outside"
    outside.write_bytes(b"untouched")
    blob = blob_of(conversation.append("user", llmcrdt.Blob(PICTURE, name="../outside")))
    assert blob.name == "../outside" and blob.path is not None
    assert blob.path.resolve().is_relative_to((tmp_path / "laptop.db.blobs").resolve())
    # A stranger writes the document itself.
    stranger = YjsReplica(schema.ROOTS)
    stranger.apply(conversation.diff())
    with stranger.edit() as edit:
        head = parse_json(stranger.node(schema.ENTRIES, conversation.transcript()[0].id)["head"])  # type: ignore[index]
        head |= {"parents": [], "lamport": 9}
        parts = (llmcrdt.Unknown({"type": "blob", "hash": "../../outside", "size": 9, "name": "x"}),)
        name, text = write_version("user", parts, status="complete", lamport=9, by=head["session"], nonce=bytes(12))
        edit.put_node(schema.ENTRIES, "S" * 16, {"head": canonical_json(head), f"version:{name}": text})
    conversation.apply(edit.update)
    assert isinstance(conversation.entry(llmcrdt.document.entry.EntryId("S" * 16)).parts[0], llmcrdt.Unknown)
    assert repo.blobs.missing() == set()
    conversation.erase(llmcrdt.document.entry.EntryId("S" * 16))
    repo.blobs.collect(keep=0)
    assert outside.read_bytes() == b"untouched" and os.listdir(tmp_path / "laptop.db.blobs") != []


def test_openai_export_holds_pictures_and_says_what_else_was_attached(open_repo: OpenRepo) -> None:
    conversation = open_repo("laptop").create("x")
    attached = [llmcrdt.Blob(PICTURE, name="cat.png"), llmcrdt.Blob(b"%PDF", name="a.pdf")]
    entry = conversation.append("user", [llmcrdt.Text("see"), *attached])
    written = openai_chat.export([entry], bare=True, read_blob=lambda blob: blob.read())
    url = "data:image/png;base64," + base64.b64encode(PICTURE).decode()
    assert written[0]["content"] == [
        {"type": "text", "text": "see"},
        {"type": "image_url", "image_url": {"url": url}},
        {"type": "text", "text": "[attachment: a.pdf, application/pdf, 4 bytes]"},
    ]
    assert "[attachment: cat.png, image/png" in json.dumps(openai_chat.export([entry], bare=True))


def test_the_command_line_attaches_shows_and_exports(open_repo: OpenRepo, picture: Path, tmp_path: Path) -> None:
    conversation = open_repo("laptop").create("x")

    def run(*args: str) -> str:
        done = CliRunner().invoke(main, ["--db", str(tmp_path / "laptop.db"), *args])
        assert done.exit_code == 0, done.output
        return done.output

    run("append", conversation.id, "see", "--attach", str(picture))
    assert f"['cat.png', 'image/png', {len(PICTURE)} bytes]" in run("show", conversation.id)
    part = json.loads(run("show", conversation.id, "--json"))["entries"][0]["parts"][1]
    assert part == {"type": "blob", "hash": HASH, "size": len(PICTURE), "media_type": "image/png", "name": "cat.png"}
    assert "data:image/png;base64," in run("export", conversation.id)
    for path in (tmp_path / "laptop.db.blobs").glob("??/??/*"):
        path.unlink()
    assert "not on this device" in run("show", conversation.id)
    assert "[attachment: cat.png" in run("export", conversation.id)

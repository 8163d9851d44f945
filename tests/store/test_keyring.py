"""The keyring's file: who may read it, what survives several writers and a kill, what is refused."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmcrdt.exceptions import InvalidContent, KeyringUnusable
from llmcrdt.ids import document_id
from llmcrdt.store.keyring import Keyring

ONE, TWO = document_id(bytes(16)), document_id(bytes(range(16)))


def test_keys_are_made_once_and_the_newest_seals(tmp_path: Path) -> None:
    ring = Keyring(tmp_path / "k", clock=lambda: 5.0)
    assert ring.keys(ONE) == ()
    assert not (tmp_path / "k").exists()
    first = ring.newest(ONE)
    assert ring.newest(ONE) == first != ring.newest(TWO)
    second = ring.rotate(ONE)
    assert ring.newest(ONE) == second
    assert Keyring(tmp_path / "k").keys(ONE) == (first, second)
    assert ring.find(ONE, first.id) == first and ring.find(TWO, first.id) is None


@pytest.mark.skipif(os.name != "posix", reason="modes are POSIX")
@pytest.mark.parametrize("umask", [0, 0o022, 0o077])
def test_the_file_is_its_owners_alone_and_a_wider_one_is_refused(tmp_path: Path, umask: int) -> None:
    ring = Keyring(tmp_path / "k")
    before = os.umask(umask)
    try:
        key = ring.newest(ONE)
    finally:
        os.umask(before)
    assert (tmp_path / "k").stat().st_mode & 0o777 == 0o600
    for mode in (0o640, 0o604, 0o620, 0o666):
        (tmp_path / "k").chmod(mode)
        for use in (lambda: ring.keys(ONE), lambda: ring.rotate(ONE), lambda: ring.forget([ONE])):
            with pytest.raises(KeyringUnusable, match="chmod 600"):
                use()
    (tmp_path / "k").chmod(0o600)
    assert ring.keys(ONE) == (key,)


def test_export_and_add_hand_over_the_keys_of_one_conversation(tmp_path: Path) -> None:
    here, there = Keyring(tmp_path / "here"), Keyring(tmp_path / "there")
    here.newest(ONE), here.rotate(ONE), here.newest(TWO)
    own = there.newest(ONE)
    text = here.export(ONE)
    assert there.add(text) == 2
    assert there.add(text) == 0
    assert set(there.keys(ONE)) == {own, *here.keys(ONE)}
    assert there.keys(TWO) == ()


def test_one_key_under_another_name_or_time_is_not_taken_for_two(tmp_path: Path) -> None:
    ring = Keyring(tmp_path / "k")
    key = ring.newest(ONE)
    exported = json.loads(ring.export(ONE))
    exported["keys"][ONE][0]["created"] = key.created + 9
    assert ring.add(json.dumps(exported)) == 0
    exported["keys"][ONE][0]["id"] = "A" * 32
    with pytest.raises(InvalidContent, match="not what its id says"):
        ring.add(json.dumps(exported))
    assert ring.keys(ONE) == (key,)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=50),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["id", "created", "key"]), inner),
    max_leaves=6,
)


@settings(max_examples=200, deadline=None)
@given(
    st.text(max_size=40)
    | json_values.map(lambda value: json.dumps(value))
    | json_values.map(lambda value: json.dumps({"format": "llmcrdt-keys/1", "keys": {ONE: value}}))
    | json_values.map(lambda value: json.dumps({"format": "llmcrdt-keys/1", "keys": {ONE: [value]}}))
)
def test_a_strangers_text_is_refused_and_a_damaged_file_is_left_alone(
    tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    path = tmp_path_factory.mktemp("ring") / "k"
    ring = Keyring(path)
    with contextlib.suppress(InvalidContent):
        assert ring.add(text) == 0, "nothing of this is a key"
    path.unlink(missing_ok=True)
    path.write_text(text, encoding="utf-8", errors="surrogatepass")
    path.chmod(0o600)
    before = path.read_bytes()
    try:
        ring.newest(ONE)
    except KeyringUnusable:
        assert path.read_bytes() == before


def test_what_another_object_wrote_is_seen_at_once(tmp_path: Path) -> None:
    one, two = Keyring(tmp_path / "k"), Keyring(tmp_path / "k")
    key = one.newest(ONE)
    assert two.newest(ONE) == key
    assert one.keys(ONE) == (key,)
    newer = two.rotate(ONE)
    assert one.newest(ONE) == newer


def test_threads_that_ask_for_the_first_key_get_the_same(tmp_path: Path) -> None:
    rings = [Keyring(tmp_path / "k") for _ in range(4)]
    found: list[str] = []
    threads = [threading.Thread(target=lambda ring=ring: found.append(ring.newest(ONE).id)) for ring in rings]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4 and len(set(found)) == 1


def _rotate(path: str, times: int) -> None:
    ring = Keyring(path)
    for _ in range(times):
        ring.rotate(ONE)


def test_no_process_loses_what_another_one_added(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_rotate, args=(str(tmp_path / "k"), 15)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert len(Keyring(tmp_path / "k").keys(ONE)) == 45


@pytest.mark.skipif(os.name != "posix", reason="kill -9 is POSIX")
def test_a_process_killed_while_it_writes_leaves_a_whole_file(tmp_path: Path) -> None:
    script = f"""
        from llmcrdt.store.keyring import Keyring
        ring = Keyring({str(tmp_path / "k")!r})
        while True:
            print(ring.rotate({ONE!r}).id, flush=True)
    """
    for _ in range(3):
        child = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(script)], stdout=subprocess.PIPE, text=True, encoding="ascii"
        )
        assert child.stdout is not None
        said = [child.stdout.readline().strip() for _ in range(5)]
        child.send_signal(signal.SIGKILL)
        said += [line.strip() for line in child.stdout if len(line) == 33]
        child.wait(30)
        child.stdout.close()
        known = {key.id for key in Keyring(tmp_path / "k").keys(ONE)}
        assert set(said) <= known
    Keyring(tmp_path / "k").rotate(ONE)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["k", "k.lock"]


def test_what_a_dead_writer_left_aside_is_cleared_away(tmp_path: Path) -> None:
    for pid in (1, os.getpid()):
        (tmp_path / f"k.{pid}.new").write_bytes(b"half a secret")
    Keyring(tmp_path / "k").newest(ONE)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["k", "k.lock"]


def test_forgotten_keys_are_gone_from_the_file(tmp_path: Path) -> None:
    ring = Keyring(tmp_path / "k")
    gone, stays = ring.newest(ONE), ring.newest(TWO)
    ring.forget([ONE])
    text = (tmp_path / "k").read_text(encoding="ascii")
    assert gone.id not in text and stays.id in text
    assert ring.newest(ONE) != gone

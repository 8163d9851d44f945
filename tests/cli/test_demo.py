"""The demo is the product's promise: run it as a user does, and hold its figures against what it says."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, object], Path]:
    folder = tmp_path_factory.mktemp("demo")
    command = [
        sys.executable,
        "-m",
        "llmcrdt.cli",
        "demo",
        "--json",
        str(folder / "out.json"),
        "--keep",
        str(folder / "kept"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout, json.loads((folder / "out.json").read_text()), folder / "kept"


def test_everything_held(told: tuple[str, dict[str, object], Path]) -> None:
    out, figures, _ = told
    for name in (
        "transcripts_equal",
        "frames_kept",
        "replay_bit_equal",
        "tablet_equal",
        "nothing_lost",
        "phone_saw_it_grow",
    ):
        assert figures[name] is True, name
    assert out.rstrip().endswith("Everything held.")


def test_what_was_evaluated_is_what_was_planned_and_less_than_without_a_cache(
    told: tuple[str, dict[str, object], Path],
) -> None:
    _, figures, _ = told
    assert figures["tokens_evaluated"] == figures["tokens_expected"]
    generations = figures["generations"]
    assert isinstance(generations, list)
    assert [g["name"] for g in generations] == ["answer", "offline", "merged", "edited", "selected"]
    assert all(g["planned"] == g["evaluated"] == g["total"] - g["reused"] for g in generations)
    assert sum(g["evaluated"] for g in generations[1:]) < sum(g["total"] for g in generations[1:]) / 4
    assert isinstance(figures["wire_bytes"], int)
    assert isinstance(figures["resend_bytes"], int)


def test_the_parts_were_real(told: tuple[str, dict[str, object], Path]) -> None:
    _, figures, kept = told
    for name in ("laptop.db", "phone.db", "tablet.db"):
        assert (kept / name).read_bytes().startswith(b"SQLite format 3")
    assert list((kept / "relay").iterdir())
    assert (kept / "tiny-random.gguf").read_bytes().startswith(b"GGUF")
    engine = figures["engine"]
    assert isinstance(engine, dict)
    assert engine["restored"]["chunks_imported_disk"] > 0
    assert engine["replayed"]["chunks_imported_disk"] == 0


def test_a_folder_that_is_not_empty_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep me")
    command = [sys.executable, "-m", "llmcrdt.cli", "demo", "--keep", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "is not empty" in done.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize("gone", ["gguf", "numpy", "llama_cpp"])
def test_without_its_extras_the_demo_says_what_to_install(gone: str, tmp_path: Path) -> None:
    code = f"import sys; sys.modules[{gone!r}] = None; from llmcrdt.cli import main; main(['demo'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        f"llmcrdt: The demo needs {gone}, not installed here. "
        "Install the extras: pip install 'llmcrdt[llama,testing]'\n"
    )

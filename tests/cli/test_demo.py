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
        "--random",
        "--turns",
        "30",
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
    assert (kept / "client.db").read_bytes().startswith(b"SQLite format 3")
    engine = figures["engine"]
    assert isinstance(engine, dict)
    assert engine["restored"]["chunks_imported_disk"] > 0
    assert engine["replayed"]["chunks_imported_disk"] == 0


def test_a_folder_that_is_not_empty_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep me")
    command = [sys.executable, "-m", "llmcrdt.cli", "demo", "--random", "--keep", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "is not empty" in done.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize("gone", ["gguf", "numpy", "llama_cpp", "jinja2"])
def test_without_its_extras_the_demo_says_what_to_install(gone: str, tmp_path: Path) -> None:
    code = f"import sys; sys.modules[{gone!r}] = None; from llmcrdt.cli import main; main(['demo', '--random'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        f"llmcrdt: The demo needs {gone}, not installed here. "
        "Install the extras: pip install 'llmcrdt[llama,testing]'\n"
    )


def test_a_kind_of_documents_that_there_is_not_is_refused_before_anything_begins(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "llmcrdt.cli", "demo", "--random", "--crdt", "loro", "--keep", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (1, "") and "automerge, yjs" in done.stderr
    assert [*tmp_path.iterdir()] == []


def test_it_is_told_in_what_people_say_and_see(told: tuple[str, dict[str, object], Path]) -> None:
    out, _, _ = told
    assert "speaks noise" in out
    for line in (
        "phone │ you: Phone here: is there a train after ten in the evening?",
        "laptop │ you: And which of the two museums is open on Mondays?",
        "both │ you: Phone here: is there a train after ten in the evening?",
    ):
        assert line in out
    assert out.count("laptop │ model: ") == 5 and out.count("tablet │ model: ") == 1
    for number in range(1, 11):
        assert f"\n{number}. " in out


def test_what_a_turn_costs_stays_flat_where_resending_grows(told: tuple[str, dict[str, object], Path]) -> None:
    out, figures, _ = told
    counted = figures["turns"]
    assert isinstance(counted, dict)
    turns = counted["turns"]
    words = " ".join(out.split())
    assert len(turns) == 30 and "60 figures are measured" in words and "The other 90 are computed" in words
    for name, total in counted["sums"].items():
        assert total == sum(turn[name] for turn in turns)

    def mean(name: str, part: list[dict[str, int]]) -> float:
        return sum(turn[name] for turn in part) / len(part)

    early, late = turns[5:15], turns[20:30]  # the first turns have the system prompt, too
    for flat in ("evaluated", "beyond"):
        assert mean(flat, late) < 1.5 * mean(flat, early), flat
    for growing in ("resent", "whole"):
        assert mean(growing, late) > 1.5 * mean(growing, early), growing
    # On a slow machine an answer is sent in more pieces, but never the history.
    assert max(turn["sent"] for turn in late) < min(turn["resent"] for turn in late)
    for turn in turns:
        assert 0 < turn["beyond"] <= turn["evaluated"]
        assert turn["beyond"] <= turn["whole"]


def test_a_models_file_and_randomness_exclude_each_other(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "llmcrdt.cli", "demo", "--random", "--model", str(tmp_path / "m.gguf")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2 and "--random" in done.stderr

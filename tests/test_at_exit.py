"""Programs that end with everything open: they end in order, whatever was still computing or being said."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import llmcrdt
from llmcrdt import at_exit

pytest.importorskip("llama_cpp")

from llmcrdt.testing.models import write_model

# The first handler that is registered runs last: nothing of the library may run any more then.
_BEGIN = """
import atexit, os, sys, threading, time
@atexit.register
def threads_left():
    left = [thread.name for thread in threading.enumerate() if thread.name.startswith("llmcrdt")]
    if left:
        print("still running:", *left, file=sys.stderr)
import llmcrdt
MODEL, FOLDER = sys.argv[1:]
def engine(n=0, threads=1):
    made = llmcrdt.LlamaEngine(MODEL, f"{FOLDER}/cache{n}", n_threads=threads)
    made.tokenizer.is_end = lambda token: False
    return made
def conversation(name="chats"):
    repo = llmcrdt.open(f"{FOLDER}/{name}.db")
    made = repo.create()
    made.append("user", "Say something, please. " * 10)
    return repo, made
def busy(e):
    assert e.settled(200)
    e.logits([300 + i % 400 for i in range(1900)])
"""

_SHAPES = {
    "never used": "e = engine()",
    "hashing": "e = engine(); e.logits([300] * 700)",
    "in a function": "def main():\n    busy(engine())\nmain()",
    "answered": "e = engine(); repo, c = conversation(); llmcrdt.generate(c, e, max_tokens=5).result()",
    "settling": "e = engine(); repo, c = conversation(); llmcrdt.generate(c, e, max_tokens=70).result()",
    "answering": "e = engine(); repo, c = conversation(); next(iter(llmcrdt.generate(c, e, max_tokens=1500)))",
    "several answers": """
es, (repo, c) = [engine(n) for n in range(3)], conversation()
gens = [llmcrdt.generate(c, e, max_tokens=1500, busy="branch") for e in es]
gens += [llmcrdt.generate(c, es[0], max_tokens=1500) for _ in range(2)]
next(iter(gens[0]))
""",
    "several engines": "es = [engine(n, threads=2) for n in range(4)]\nfor e in es: busy(e)\ntime.sleep(0.1)",
    "repo closed": """
e = engine(); repo, c = conversation(); next(iter(llmcrdt.generate(c, e, max_tokens=1500))); repo.close()
""",
    "engine closed": "e = engine(); repo, c = conversation(); next(iter(llmcrdt.generate(c, e))); e.close()",
    "opening": """
def work():
    engine().logits([300] * 500)
threading.Thread(target=work, daemon=True).start()
time.sleep(0.05)
""",
    "observed and linked": """
repo, c = conversation()
link = repo.connect("ws://127.0.0.1:9")
other = llmcrdt.open(f"{FOLDER}/chats.db")
mirror = other.get(c.id)
mirror.observe(lambda change: mirror.transcript())
e = engine()
llmcrdt.warm(mirror, e)
for i in range(20): c.append("user", f"{i}")
next(iter(llmcrdt.generate(c, e, max_tokens=1500, interval=0.0)))
""",
    "an exit handler uses it": """
e = engine(); repo, c = conversation()
atexit.register(lambda: print(llmcrdt.generate(c, e, max_tokens=5).result().status))
""",
    "logged by C at the very end": """
import ctypes, llama_cpp, pathlib
libc = ctypes.CDLL(None)
libc.setenv(b"GGML_BACKEND_PATH", b"/nowhere.so", 1)
found = next(pathlib.Path(llama_cpp.__file__).parent.glob("lib/libggml.so*"))
libc.__cxa_atexit(ctypes.cast(ctypes.CDLL(str(found)).ggml_backend_load_all, ctypes.c_void_p), None, None)
e = engine()
""",
}

_ENDS = {"": 0, "\nsys.exit(3)": 3}


def end(model: Path, folder: Path, script: str) -> subprocess.CompletedProcess[str]:
    folder.mkdir()
    return subprocess.run(
        [sys.executable, "-c", _BEGIN + script, str(model), str(folder)], capture_output=True, text=True, timeout=300
    )


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model") / "m.gguf")


@pytest.mark.parametrize("shape", _SHAPES)
def test_a_program_that_closes_nothing_ends_in_order(model: Path, tmp_path: Path, shape: str) -> None:
    if "C at" in shape and not sys.platform.startswith("linux"):
        pytest.skip("this way to be called last is Linux's")
    for i, (last, code) in enumerate(_ENDS.items()):
        ended = end(model, tmp_path / f"{i}", _SHAPES[shape] + last)
        assert (ended.returncode, ended.stderr) == (code, "")
        assert ended.stdout == ("complete\n" if "exit handler" in shape else "")


def test_no_engine_computes_while_c_frees_what_it_computes_with(model: Path, tmp_path: Path) -> None:
    """The shape that was seen to crash most, often enough that luck can't hide it."""
    for i in range(5):
        ended = end(model, tmp_path / f"{i}", _SHAPES["several engines"])
        assert (ended.returncode, ended.stderr) == (0, "")


def test_an_error_and_an_exit_in_a_thread_end_in_order_too(model: Path, tmp_path: Path) -> None:
    failed = end(model, tmp_path / "failed", "busy(engine()); raise RuntimeError('mine')")
    assert failed.returncode == 1
    assert [line for line in failed.stderr.splitlines() if line[0] != " "] == [
        "Traceback (most recent call last):", "RuntimeError: mine",
    ]  # fmt: skip
    threaded = "def main():\n    busy(engine()); sys.exit(4)\nthreading.Thread(target=main).start()"
    ended = end(model, tmp_path / "threaded", threaded)
    assert (ended.returncode, ended.stderr) == (0, "")


@pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX")
def test_ctrl_c_ends_in_order_and_keeps_what_was_said(model: Path, tmp_path: Path) -> None:
    script = _SHAPES["answering"] + "\nprint('ready', flush=True); time.sleep(60)"
    (tmp_path / "x").mkdir()
    command = [sys.executable, "-c", _BEGIN + script, str(model), str(tmp_path / "x")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=300)
    assert process.returncode == -signal.SIGINT
    assert [line for line in errors.splitlines() if line[0] != " "] == [
        "Traceback (most recent call last):", "KeyboardInterrupt",
    ]  # fmt: skip
    with llmcrdt.open(tmp_path / "x" / "chats.db") as repo:
        assert not repo.get(repo.list()[0].id).unsealed()


def test_somebody_who_never_ends_delays_the_end_only_so_long(model: Path, tmp_path: Path) -> None:
    script = """
import llmcrdt.at_exit
llmcrdt.at_exit.PATIENCE = 0.5
threads_left.__code__ = (lambda: None).__code__
repo, c = conversation()
c.observe(lambda change: time.sleep(1000))
c.append("user", "This is heard for a long time.")
inside = threading.Event()
def fill(made):
    inside.set()
    time.sleep(1000)
threading.Thread(target=lambda: repo.create(fill=fill), daemon=True).start()
assert inside.wait(30)
"""
    ended = end(model, tmp_path / "x", script)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_an_answer_under_way_is_sealed_as_stopped(model: Path, tmp_path: Path) -> None:
    assert end(model, tmp_path / "x", _SHAPES["answering"]).returncode == 0
    with llmcrdt.open(tmp_path / "x" / "chats.db") as repo:
        conversation = repo.get(repo.list()[0].id)
        assert not conversation.unsealed()
        assert [entry.status for entry in conversation.transcript()] == ["complete", "stopped"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_has_no_engine_and_ends_in_order(model: Path, tmp_path: Path) -> None:
    script = """
e = engine(); repo, c = conversation(); busy(e)
gen = llmcrdt.generate(c, e, max_tokens=1500)
for i in range(3):
    if not (child := os.fork()):
        try:
            e.logits([300])
        except llmcrdt.LLMCRDTError as error:
            sys.exit(7 if "closed" in str(error) else 8)
        sys.exit(9)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
assert not gen.done()
"""
    ended = end(model, tmp_path / "x", script)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_no_engine_is_opened_after_the_last_was_ended(model: Path, tmp_path: Path) -> None:
    script = f"""
at_exit = __import__("{at_exit.__name__}", fromlist=["_end_all"])
at_exit._end_all()
try:
    engine()
except llmcrdt.LLMCRDTError as error:
    print(error)
"""
    ended = end(model, tmp_path / "x", script)
    assert "while the program exits" in ended.stdout


def test_what_ends_is_not_kept_alive() -> None:
    class Owner:
        pass

    def count() -> int:
        return sum(isinstance(each, Owner) for each in at_exit._alive)

    owner = Owner()
    assert at_exit.end_at_exit(owner, finish=lambda owner, seconds: None)
    assert count() == 1
    del owner
    assert count() == 0

"""The files of deploy/ name settings that there are, and what they start starts."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from sync_server.admin import settings
from sync_server.core.limits import Limits

DEPLOY = Path(__file__).parents[2] / "deploy"


def test_the_settings_are_ones_that_there_are() -> None:
    found = settings.defaults(DEPLOY / "relay.toml", {})
    limits = settings.checked(found["limits"])
    assert limits == Limits(), "the numbers in the example are the ones that hold without it"
    assert found["data"] == Path("/var/lib/llmcrdt-relay") and found["log_format"] == "json"


def test_the_commented_settings_are_too(tmp_path: Path) -> None:
    text = re.sub(r"^# (\w+ = )", r"\1", (DEPLOY / "relay.toml").read_text(), flags=re.M)
    (tmp_path / "relay.toml").write_text(text)
    found = settings.defaults(tmp_path / "relay.toml", {})
    assert {"tls_cert", "tls_key", "allow_origin"} <= found.keys()


def test_the_image_sets_what_the_relay_reads() -> None:
    names = re.findall(r"LLMCRDT_RELAY_(\w+)=(\S+)", (DEPLOY / "Dockerfile").read_text())
    environment = {f"{settings.PREFIX}{name}": value for name, value in names}
    found = settings.defaults(None, environment)
    assert found["host"] == "0.0.0.0" and found["data"] == Path("/data")
    assert {name.lower() for name, _ in names} <= found.keys()


def test_the_image_is_built_from_what_may_be_copied() -> None:
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", (DEPLOY / "Dockerfile").read_text(), re.M)
    allowed = re.findall(r"^!(.+)$", (DEPLOY.parent / ".dockerignore").read_text(), re.M)
    assert sorted(" ".join(copied).split()) == sorted(allowed)


def test_commands_run_as_the_service_does(tmp_path: Path) -> None:
    unit = (DEPLOY / "llmcrdt-relay.service").read_text()
    stub = tmp_path / "systemd-run"
    stub.write_text("#!/bin/sh\nprintf '%s\\n' \"$@\"\n")
    stub.chmod(0o755)
    words = ["token", "make", "--subject", "ann and bob"]
    done = subprocess.run(
        [DEPLOY / "llmcrdt-relay", *words],
        env={**os.environ, "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"},
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    given = done.stdout.splitlines()
    python, data = re.search(r"^ExecStart=(\S+)", unit, re.M), settings.defaults(DEPLOY / "relay.toml", {})["data"]
    assert python and given[given.index(python[1]) :] == [python[1], "-m", "sync_server", *words, "--data", str(data)]
    properties = {word for word in given if re.match(r"\w+=", word)} - {f"WorkingDirectory={data}"}
    assert properties <= set(unit.splitlines())
    assert {"User", "DynamicUser", "UMask", "StateDirectory", "StateDirectoryMode"} == {
        word.partition("=")[0] for word in properties
    }


@pytest.mark.skipif(sys.platform == "win32", reason="no service manager asks for this")
@pytest.mark.parametrize("named", ["file", "abstract"])
def test_a_service_manager_is_told_when_it_listens_and_when_it_stops(tmp_path: Path, named: str) -> None:
    if named == "abstract" and sys.platform != "linux":
        pytest.skip("only Linux has names without files")
    address = str(tmp_path / "notify") if named == "file" else f"@{tmp_path}/notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(address.replace("@", "\0"))
        manager.settimeout(30)
        with subprocess.Popen(
            [sys.executable, "-m", "sync_server", "--data", tmp_path / "data", "--port", "0"],
            env={**os.environ, "NOTIFY_SOCKET": address}, cwd=DEPLOY.parent, stdout=subprocess.PIPE, text=True,
        ) as relay:  # fmt: skip
            try:
                assert manager.recv(100) == b"READY=1"
                assert relay.stdout and relay.stdout.readline().startswith("listening on ")
                relay.terminate()
                assert manager.recv(100) == b"STOPPING=1"
                assert relay.wait(30) == 0
            finally:
                relay.kill()


def test_the_unit_is_one() -> None:
    tool = shutil.which("systemd-analyze")
    if tool is None:
        pytest.skip("systemd-analyze is not here")
    done = subprocess.run(
        [tool, "verify", "--man=no", str(DEPLOY / "llmcrdt-relay.service")], capture_output=True, text=True, timeout=60
    )
    faults = [line for line in done.stderr.splitlines() if "llmcrdt-relay" in line and "is not executable" not in line]
    assert faults == []

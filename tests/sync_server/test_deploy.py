"""The files of deploy/ name settings that there are, and what they start starts."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from sync_server import settings
from sync_server.limits import Limits

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


def test_the_unit_is_one() -> None:
    tool = shutil.which("systemd-analyze")
    if tool is None:
        pytest.skip("systemd-analyze is not here")
    done = subprocess.run(
        [tool, "verify", "--man=no", str(DEPLOY / "llmcrdt-relay.service")], capture_output=True, text=True, timeout=60
    )
    faults = [line for line in done.stderr.splitlines() if "llmcrdt-relay" in line and "is not executable" not in line]
    assert faults == []

"""The relay that tests of the rooms' parts share; a module may have one of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from .rooms_relay import Relay


@pytest.fixture
def relay(tmp_path: Path) -> Iterator[Relay]:
    relay = Relay(tmp_path, batch=100, outgoing=1000, window_records=20, documents=2, record=500, barriers=2)
    relay.join(1, 2, 3)
    yield relay
    relay.log.close()

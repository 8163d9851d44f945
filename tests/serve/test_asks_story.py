"""A few asks while processes are killed; ``make asks`` makes 200."""

from __future__ import annotations

from pathlib import Path

from .asks_world import World


def test_every_ask_ends_though_workers_devices_and_the_relay_are_killed(tmp_path: Path) -> None:
    happened = World(tmp_path, seed=5, asks=3, devices=1, workers=2, conversations=2, trouble=0.9).run()
    assert sum(happened[state] for state in ("answered", "failed", "outdated", "stopped")) == 3

"""kill -9 in the middle of writing, a few times; ``make soak`` does it 300 times."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from relay_kills import kill_clients, kill_relay, roll_back


def test_nothing_acknowledged_is_lost_or_doubled_when_the_relay_is_killed(tmp_path: Path) -> None:
    kill_relay(4, 7, tmp_path)


def test_nothing_said_or_synced_is_lost_or_doubled_when_clients_are_killed(tmp_path: Path) -> None:
    kill_clients(6, 7, tmp_path)


def test_a_relay_put_back_to_old_copies_under_running_clients_is_filled_again(tmp_path: Path) -> None:
    roll_back(2, 3, tmp_path)

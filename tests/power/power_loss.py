"""The power fails at random moments of a recording, and what is left of the disk is looked at."""

from __future__ import annotations

import random
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar

import power_client as client
import power_operator as operators
import power_relay as relay
from power_disk import Disk, Ignored
from power_recording import MARK, Event, Recorder

MEMORY = "/dev/shm"
"""The recording knows what was fsynced; where the system has a disk in memory, its files stand there."""
_PROMISES = ("F", "s", MARK)


class Promised(Protocol):
    """All that was promised up to some event of a recording."""

    def take(self, event: Event) -> None: ...


P = TypeVar("P", bound=Promised)


@contextmanager
def recorder() -> Iterator[Recorder]:
    """In a folder that goes. Raises OSError where nothing can be recorded."""
    with tempfile.TemporaryDirectory(dir=MEMORY if Path(MEMORY).is_dir() else None) as folder:
        yield Recorder(Path(folder))


def lose_power(
    events: Sequence[Event],
    promised: P,
    check: Callable[[Path, P], None],
    *,
    states: int,
    seed: int,
    ignored: Ignored | None = None,
) -> Counter[str]:
    """Look at so many disks that a power failure leaves; half of them right after something was promised. Returns how
    they were chosen. AssertionError: what was promised isn't there, or whoever starts on that disk fails."""
    rng, ways = random.Random(seed), Counter[str]()
    moments = [at + 1 for at, event in enumerate(events) if event.kind in _PROMISES]
    chosen = sorted(
        rng.choice(moments) if rng.random() < 0.5 else rng.randrange(len(events) + 1) for _ in range(states)
    )
    disk = Disk(ignored)
    with tempfile.TemporaryDirectory(dir=MEMORY if Path(MEMORY).is_dir() else None) as folder:
        for number, moment in enumerate(chosen):
            while disk.index < moment:
                promised.take(events[disk.index])
                disk.take(events[disk.index])
            left = Path(folder) / str(number)
            how = disk.after_power_loss(rng, left)
            ways[how] += 1
            try:
                check(left, promised)
            except Exception as error:
                raise AssertionError(
                    f"power lost at event {moment}, {how} had reached the disk, seed {seed}"
                ) from error
            shutil.rmtree(left)
    return ways


class Recorded(NamedTuple):
    """``told``: in words, how much was promised at its end."""

    what: str
    seed: int
    events: Sequence[Event]
    promised: Callable[[], Any]
    check: Callable[[Path, Any], None]
    told: Callable[[Any], str]

    def lose_power(self, states: int, ignored: Ignored | None = None) -> str:
        """As the function of this name; its result in words."""
        promised = self.promised()
        ways = lose_power(self.events, promised, self.check, states=states, seed=self.seed, ignored=ignored)
        disks = f"{ways.total()} disks after power failures in {len(self.events):,} events"
        return f"{self.what}, seed {self.seed}: {disks} hold {self.told(promised)}"


def record_client(record: Recorder, seed: int, steps: int) -> Recorded:
    def told(promised: client.Promised) -> str:
        return f"{sum(map(len, promised.words.values()))} entries, {len(promised.blobs)} attachments"

    return Recorded("client", seed, client.record(record, seed, steps), client.Promised, client.check, told)


def record_relay(record: Recorder, seed: int, steps: int) -> Recorded:
    events, load = relay.record(record, seed, steps)
    numbers = count(1)

    def check(folder: Path, promised: relay.Promised) -> None:
        relay.check(folder, promised, load, serve=next(numbers) % 20 == 0)

    def told(promised: relay.Promised) -> str:
        return f"{len(promised.positions)} records, {len(promised.deleted)} deletions"

    return Recorded("relay", seed, events, relay.Promised, check, told)


def record_operator(record: Recorder, seed: int, steps: int) -> Recorded:
    def told(promised: operators.Promised) -> str:
        return f"{len(promised.made)} tokens, {len(promised.backups)} backups"

    events = operators.record(record, seed, steps)
    return Recorded("operator", seed, events, operators.Promised, operators.check, told)


RECORDINGS = {"client": record_client, "relay": record_relay, "operator": record_operator}

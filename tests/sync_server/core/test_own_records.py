"""The records that a peer pushed: as a model that holds each of them, and as few runs as can be."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest

from sync_server.core.own_records import OwnRecords, Run

A, B = b"a" * 16, b"b" * 16


def test_a_stream_is_one_run() -> None:
    own = OwnRecords()
    for n in range(1, 1001):
        own.add(Run(n + 5, A, n, 1))
    own.add(Run(1006, A, 1001, 99))
    assert len(own) == 1099
    assert own.take(6, 506) == [Run(6, A, 1, 500)]
    assert own.take(0, 2000) == [Run(506, A, 501, 599)]
    assert not own


@pytest.mark.parametrize("seed", range(60))
def test_records_are_added_and_taken_as_one_by_one(seed: int) -> None:
    """Of two sessions whose records stand mixed in one log; some are pushed again, before and after they were taken."""
    rng = random.Random(seed)
    counts, log = {A: 0, B: 0}, list[tuple[bytes, int]]()
    own, model = OwnRecords(), dict[int, tuple[bytes, int]]()
    for _ in range(80):
        match rng.randrange(4):
            case 0 | 1:
                session, count = rng.choice((A, B)), rng.choice((1, 1, 2, 9))
                begin = len(log) + 1
                log += [(session, counts[session] + i) for i in range(1, count + 1)]
                counts[session] += count
                if rng.random() < 0.7:
                    own.add(Run(begin, session, log[begin - 1][1], count))
                    model |= {position: log[position - 1] for position in range(begin, begin + count)}
            case 2:
                for position in sorted(rng.sample(range(1, len(log) + 1), min(len(log), 3))):
                    own.add(Run(position, *log[position - 1], 1))
                    model[position] = log[position - 1]
            case _:
                start = rng.randrange(len(log) + 2)
                stop = start + rng.choice((1, 4, 40))
                runs = own.take(start, stop)
                found = [(r.position + i, r.session, r.n + i) for r in runs for i in range(r.length)]
                assert found == [(p, *model.pop(p)) for p in sorted(model) if start <= p < stop]
                assert not any(one.goes_on(other) for one, other in pairwise(runs))
        assert len(own) == len(model)
    rest = own.take(0, len(log) + 1)
    assert [(r.position + i, r.session, r.n + i) for r in rest for i in range(r.length)] == [
        (p, *model[p]) for p in sorted(model)
    ]

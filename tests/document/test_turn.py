"""A conversation's turn: one generation at a time, and everybody who computes on it is known."""

from __future__ import annotations

import threading

from llmcrdt.document.turn import Turn


class _Generation:
    def __init__(self, turn: Turn) -> None:
        self.turn, self.cancelled = turn, False

    def cancel(self) -> None:
        self.cancelled = True
        self.turn.end(self)  # one that is over at once: nothing may be locked while it is told


def test_one_generates_at_a_time() -> None:
    turn, inside, most = Turn(), [0], [0]

    def generate() -> None:
        for _ in range(200):
            with turn:
                inside[0] += 1
                most[0] = max(most[0], inside[0])
                inside[0] -= 1

    threads = [threading.Thread(target=generate) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1]


def test_others_are_cancelled_where_that_is_asked_and_only_those_that_go_on() -> None:
    turn = Turn()
    over, first, second, third = (_Generation(turn) for _ in range(4))
    for generation in (over, first, second):
        turn.begin(generation, cancel_others=False)
    turn.end(over)
    turn.begin(third, cancel_others=True)
    assert [each.cancelled for each in (over, first, second, third)] == [False, True, True, False]


def test_there_is_one_prefetcher_for_each_engine_until_it_ends() -> None:
    turn, ended = Turn(), set()

    def prefetcher(engine: str) -> tuple[list[str], bool]:
        return turn.prefetcher(lambda each: id(each) not in ended, lambda each: each == [engine], lambda: [engine])

    one, made = prefetcher("one")
    assert made
    assert prefetcher("two")[1]
    again, made = prefetcher("one")
    assert again is one and not made
    ended.add(id(one))
    later, made = prefetcher("one")
    assert later is not one and made

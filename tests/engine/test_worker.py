"""The engine's thread: order, priority, idleness, closing."""

import threading

import pytest

from llmcrdt.engine.worker import Worker
from llmcrdt.exceptions import EngineClosed


@pytest.fixture
def worker():
    worker = Worker("test")
    yield worker
    worker.close(lambda: None)


def blocked(worker):
    """Keep the thread busy until the returned event is set."""
    gate, entered = threading.Event(), threading.Event()

    def wait():
        entered.set()
        gate.wait()

    worker.submit(wait)
    entered.wait()
    return gate


def test_jobs_go_before_background_and_both_in_order(worker):
    done = []
    gate = blocked(worker)
    for name in "ab":
        worker.background(done.append((name, i)) for name in [name] for i in range(2))
    for i in range(3):
        worker.submit(lambda i=i: done.append(i))
    gate.set()
    assert worker.idle(10)
    assert done == [0, 1, 2, ("a", 0), ("a", 1), ("b", 0), ("b", 1)]


def test_a_job_goes_between_two_steps(worker):
    done = []

    def steps():
        for i in range(3):
            done.append(i)
            if i == 0:
                worker.submit(lambda: done.append("job"))
            yield

    worker.background(steps())
    assert worker.idle(10)
    assert done == [0, "job", 1, 2]


def test_what_fails_takes_nothing_with_it(worker, caplog):
    done = []

    def broken():
        yield
        raise ValueError("broken step")

    def bad():
        raise ValueError("broken job")

    gate = blocked(worker)
    worker.background(broken())
    worker.background(iter([done.append("kept")]))
    worker.submit(bad)
    gate.set()
    assert worker.idle(10)
    assert done == ["kept"]
    assert "broken step" in caplog.text
    assert "broken job" in caplog.text


def test_idle_tells_when_it_is_not(worker):
    gate = blocked(worker)
    assert worker.idle(0) is False
    gate.set()
    assert worker.idle(10) is True


def test_the_thread_does_not_wait_for_itself(worker):
    answers = []
    worker.submit(lambda: answers.append(worker.idle()))
    assert worker.idle(10)
    assert answers == [False]


def test_close_finishes_jobs_drops_background_and_runs_the_last_thing():
    worker, done = Worker("test"), []
    gate = blocked(worker)
    worker.submit(lambda: done.append(worker.closing))
    worker.background(iter([done.append] * 3))
    threading.Timer(0.02, gate.set).start()
    worker.close(lambda: done.append("last"))
    assert done == [True, "last"]
    with pytest.raises(EngineClosed):
        worker.submit(lambda: None)
    worker.close(lambda: done.append("never"))
    assert done == [True, "last"]


def test_old_background_work_is_dropped_in_a_flood(worker):
    done = []
    gate = blocked(worker)
    for i in range(300):
        worker.background(done.append(i) for i in [i])
    gate.set()
    assert worker.idle(10)
    assert done == list(range(44, 300))

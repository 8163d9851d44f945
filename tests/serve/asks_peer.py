"""A device or a worker as a process of its own, for ``asks_world``: ``asks_peer.py device|worker FILE LIBRARY RELAY``.

A device takes asks as lines of JSON, and says as what it has kept each. A worker ends at SIGTERM, and hands over.
"""

from __future__ import annotations

import json
import random
import signal
import sys
import threading
import time
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2]))

import llmcrdt
from llmcrdt.kvcache import NullCache
from llmcrdt.serve import Worker
from llmcrdt.testing.engine import MemoryEngine
from llmcrdt.testing.tokenizer import ByteTokenizer

TEMPLATE = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant: "
PATIENCE = 2.0


def say(**what: object) -> None:
    print(json.dumps(what), flush=True)


def device(repo: llmcrdt.Repo) -> None:
    for line in sys.stdin:
        wanted = json.loads(line)
        conversation = repo.get(wanted["conversation"])
        try:
            ask = conversation.ask(
                wanted["text"],
                model=wanted["model"],
                settings=wanted["settings"],
                valid_while=wanted["valid_while"],
            )
        except llmcrdt.LLMCRDTError as error:  # an answer is being written: it says what to do
            say(refused=str(error))
        else:
            say(ask=ask.id)


def worker(repo: llmcrdt.Repo) -> None:
    engine = MemoryEngine(ByteTokenizer(TEMPLATE), NullCache())
    append = engine._state.append
    rng = random.Random()

    def slowly(token: int) -> None:
        time.sleep(rng.choice((0.0, 0.0, 0.05)))
        append(token)

    engine._state.append = slowly  # type: ignore[method-assign]
    ending = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ending.set())
    working = Worker(repo, {"small": engine}, slots=2, patience=PATIENCE).start()
    say(ready=True)
    while not ending.wait(0.1):
        pass
    working.stop(0.2)


def main() -> None:
    kind, path, library, relay = sys.argv[1:]
    with llmcrdt.open(path, library, author=Path(path).stem) as repo, repo.connect(relay):
        if kind == "device":
            say(ready=True)
            device(repo)
        else:
            worker(repo)


if __name__ == "__main__":
    main()

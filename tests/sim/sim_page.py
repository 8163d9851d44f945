"""A page in a browser: a Yjs client that knows nothing of this relay. It keeps its document in memory."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

import pycrdt
from sim_network import Clock, Wire
from sim_relay import RelayProcess

from llmcrdt.ids import document_id
from sync_server.doors import yjs


class Page:
    """Follows one document for as long as it is open. ``gone``: it was told that the document was deleted."""

    def __init__(self, clock: Clock, rng: Random, relay: Callable[[], RelayProcess], document: bytes) -> None:
        self.clock, self.rng, self._relay, self.document = clock, rng, relay, document
        self.doc: Any = pycrdt.Doc(client_id=rng.getrandbits(31))
        self.open, self.gone = True, False
        self.wire: Wire | None = None
        self._connect()

    def edit(self, rng: Random, word: str) -> None:
        """Write a key or take one away, and say so to whoever is there."""
        before, shown = self.doc.get_state(), self.doc.get("page", type=pycrdt.Map)
        keys = sorted(shown.keys())
        if keys and rng.random() < 0.3:
            del shown[rng.choice(keys)]
        else:
            shown[word] = word
        self._say(yjs.Update(self.doc.get_update(before)))

    def close(self) -> None:
        self.open = False
        self.cut()

    def cut(self) -> None:
        if self.wire is not None:
            self.wire.cut(client_after=0, relay_after=self.rng.choice((0.0, 10.0)))

    # ---------------------------------------------------------------- the connection

    def _connect(self) -> None:
        if not self.open or self.wire is not None or self.gone:
            return
        relay = self._relay()
        if not relay.alive:
            self.clock.after(self.rng.uniform(0.5, 3), self._connect)
            return
        self.wire = Wire(self.clock, self.rng, self, relay, path=yjs.PATH + document_id(self.document))
        self._say(yjs.StepOne(self.doc.get_state()))

    def _say(self, message: yjs.YjsMessage) -> None:
        if self.wire is not None:
            self.wire.send_up(yjs.encode(message))

    def arrived(self, frame: bytes) -> None:
        match yjs.decode(frame):
            case yjs.StepOne(version):
                self._say(yjs.StepTwo(self.doc.get_update(version)))
            case yjs.StepTwo(update) | yjs.Update(update):
                self.doc.apply_update(update)

    def closed(self, wire: Wire) -> None:
        self.wire = None
        self.gone = wire.reason == yjs.CLOSE_CODES[42]
        self.clock.after(self.rng.uniform(0.1, 3), self._connect)

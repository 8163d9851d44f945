"""A relay's life: it starts, it stops, and between the two it looks after itself now and then."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import cast

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import InvalidHandshake
from websockets.typing import Origin, Subprotocol

from llmcrdt.files import make_folder
from llmcrdt.sync.messages import MAX_GREETING, Error, ErrorCode

from .admin.metrics import Metrics
from .answers import Answers
from .auth.tokens import Tokens
from .connections import Connections
from .core.limits import Limits
from .dispatch import Dispatch
from .doors.base import DoorContext, DoorType
from .doors.registry import DOORS
from .http import HttpPages
from .log.admin import Storage
from .log.file import DATABASE
from .log.quarantine import FILE as QUARANTINE
from .log.quarantine import Quarantine
from .log.sqlite import SqliteStorage
from .log_lines import FewLines
from .net.connection import Connection
from .net.large import LargeRoom
from .net.outgoing import SLICE
from .net.strangers import Strangers
from .net.tls import Certificate
from .net.turns import SocketTurns
from .net.websocket import Socket
from .sessions import Sessions
from .step_loop import StepLoop
from .subjects import Subjects
from .workers.pool import Workers


def _unrevealing(record: logging.LogRecord) -> bool:
    """Whether a line of websockets shows nothing of what a peer sent. Its debug lines are frames and headers, with
    tokens and content in them; and where a request can't be read, its error has a piece of that."""
    error = record.exc_info[1] if record.exc_info else None
    return record.levelno > logging.DEBUG and not isinstance(error, InvalidHandshake)


_sockets_logger = logging.getLogger(f"{__name__}.websockets")
_sockets_logger.addFilter(_unrevealing)

_TICK = 0.5
"""Seconds between two looks for what waits for a better moment."""

StorageFactory = Callable[[Path, Limits], Storage]
"""Opens what a relay keeps, from its folder and its limits. Raises LogError where that can't be used."""


def sqlite_storage(folder: Path, limits: Limits) -> SqliteStorage:
    """A StorageFactory: one SQLite file in the folder."""
    return SqliteStorage(folder / DATABASE, limits.cached)


def agent() -> str:
    try:
        return f"llmcrdt-relay/{version('llmcrdt')}"
    except PackageNotFoundError:
        return "llmcrdt-relay"


class Relay:
    """One relay over one folder. ``await start()``, then ``port`` says where it listens; ``await stop()`` ends it.

    ``start`` raises LogError where the folder can't be used, OSError where the address can't. ``failed`` becomes set
    when the relay can't go on. ``doors``: the protocols that it speaks.
    ``storage`` opens what it keeps; the operator's commands know the default one only.
    """

    def __init__(
        self,
        data: str | os.PathLike[str],
        host: str = "127.0.0.1",
        port: int = 8765,
        limits: Limits | None = None,
        origins: Sequence[str] = (),
        certificate: Certificate | None = None,
        check: bool = True,
        doors: Sequence[DoorType] = DOORS,
        storage: StorageFactory = sqlite_storage,
    ) -> None:
        self._check, self._doors, self._open_storage = check, doors, storage
        self.data, self.host, self.port = Path(data), host, port
        self.limits = limits or Limits()
        self.failed = asyncio.Event()
        self.certificate = certificate
        self._origins: list[Origin | None] = [None, *map(Origin, origins)]
        self.metrics = Metrics()
        self._lines = FewLines()

    async def start(self) -> None:
        limits, metrics = self.limits, self.metrics
        make_folder(self.data)
        tokens = Tokens(self.data)
        self._storage = self._open_storage(self.data, limits)
        quarantine = Quarantine(self.data / QUARANTINE)
        try:
            self._steps = steps = StepLoop(self._storage, limits, self._check, self.failed)
            self._workers = Workers(
                self._storage, limits, self._check, steps.put, steps.put_from_thread, steps.fail, quarantine
            )
            self._connections = Connections(limits, metrics, steps.put)
            self._subjects = Subjects(limits, tokens, self._connections)
            context = DoorContext(limits, tokens, agent())
            self._answers = answers = Answers(limits.answers, steps.put)
            self._sessions = Sessions(
                self._doors, context, self._connections, self._subjects, metrics, steps.put, answers
            )
            self._server = await self._listen(tokens)
        except BaseException:
            self._storage.close()
            raise
        self.port = self._server.sockets[0].getsockname()[1]
        self._lines.begin()
        self._workers.start()
        steps.start(self._workers, Dispatch(self._connections, metrics, answers))
        self._ticking = asyncio.create_task(self._tick())

    async def _listen(self, tokens: Tokens) -> Server:
        pages = HttpPages(
            self._doors,
            self.limits,
            tokens,
            self.metrics,
            lambda: self._sessions.ready,
            lambda: self._workers.validator.oldest,
            self._gauges,
        )
        self._large = LargeRoom(self.limits.large)
        make = partial(Socket, turns=SocketTurns(), strangers=Strangers(self.limits.strangers), large=self._large)
        return await serve(
            self._sessions.serve,
            self.host,
            self.port,
            subprotocols=[Subprotocol(door.subprotocol) for door in self._doors if door.subprotocol],
            select_subprotocol=pages.subprotocol,
            origins=self._origins,
            ssl=self.certificate.context if self.certificate else None,
            # Windows of 4 KiB: docs/protocol.md, section 2.
            compression="deflate",
            process_request=pages.answer,
            open_timeout=self.limits.handshake,
            close_timeout=self.limits.shutdown,
            ping_interval=None,  # Connection.check_alive
            # Until it is known who it is: a frame that has come in part is held in memory.
            max_size=MAX_GREETING,
            write_limit=(SLICE - 1, SLICE // 4),
            create_connection=cast("type[ServerConnection]", make),
            server_header=None,
            logger=_sockets_logger,
        )

    def _gauges(self) -> Mapping[str, float]:
        validator = self._workers.validator
        return {
            "connections": len(self._connections),
            "documents": self._steps.rooms.documents,
            "documents_held": validator.held,
            "keeper_restarts_total": validator.restarts,
            "check_oldest_seconds": round(validator.oldest, 3),
        }

    async def stop(self) -> None:
        """Take no more, finish what came in, send its acks, say goodbye, close."""
        self._sessions.stopping = True
        self._server.close(close_connections=False)
        self._ticking.cancel()
        # All that came in is validated, appended and acknowledged before the relay ends.
        await self._steps.stop()
        await self._workers.stop()
        # All that the thread handed over last is sent before this goes on.
        await asyncio.sleep(0)
        retry_after = int(self.limits.retry_after * 1000)
        goodbye = Error(ErrorCode.SHUTTING_DOWN, "The relay is stopping.", retry_after=retry_after)
        self._connections.each(self._connections.all(), self._connections.end, goodbye)
        with suppress(TimeoutError):
            async with asyncio.timeout(self.limits.shutdown):
                await self._server.wait_closed()
        self._connections.abort()
        self._storage.close()
        self._lines.end()

    async def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(_TICK)
            self._steps.tick()
            self._sessions.confirm_all()
            self._subjects.forget(loop.time())
            if self.certificate:
                self.certificate.refresh()
            self._connections.each(self._connections.all(), Connection.check_alive)
            self._connections.send_keepalives(loop.time())
            self._answers.tick()
            self._large.evict_slow(loop.time())

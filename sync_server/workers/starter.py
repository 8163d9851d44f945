"""Starts worker processes. On Linux they are forks of one process that has loaded the CRDT cores (fork_server.py): it
is started with the first of them, and ends with this process. Elsewhere each is a program of its own."""

from __future__ import annotations

import asyncio
import atexit
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import IO, Protocol, TypeVar

from . import fork_server, process

VALIDATOR, COMPACTOR = "sync_server.workers.validator_worker", "sync_server.workers.compactor_worker"

_PATIENCE = 120.0
"""Seconds in which a fork server that has to load everything answers, even on a busy machine."""

P = TypeVar("P", bound=asyncio.SubprocessProtocol)


class Worker(Protocol):
    """A process that was started; as ``subprocess.Popen``."""

    returncode: int | None

    @property
    def pid(self) -> int: ...
    @property
    def stdin(self) -> IO[bytes] | None: ...
    @property
    def stdout(self) -> IO[bytes] | None: ...
    def kill(self) -> None: ...
    def wait(self) -> int: ...


class _Forked:
    """A worker that a fork server started."""

    def __init__(self, pid: int, process: int, stdin: int, stdout: int, status: int) -> None:
        self.pid, self._process = pid, process
        self.stdin: IO[bytes] = os.fdopen(stdin, "wb")
        self.stdout: IO[bytes] = os.fdopen(stdout, "rb")
        self.status: IO[bytes] = os.fdopen(status, "rb", 0)
        self._lock = threading.Lock()
        self.returncode: int | None = None

    def kill(self) -> None:
        """Another process may have its number by now; only itself is ended."""
        with self._lock, suppress(ProcessLookupError):
            if self._process >= 0:
                signal.pidfd_send_signal(self._process, signal.SIGKILL)

    def wait(self) -> int:
        return self.ended(self.status.read(fork_server.STATUS.size) if self.returncode is None else b"")

    def ended(self, status: bytes) -> int:
        """Its exit status was told; or it never will be, for the fork server is gone: then it has to go as well."""
        if self.returncode is None:
            if len(status) == fork_server.STATUS.size:
                (self.returncode,) = fork_server.STATUS.unpack(status)
            else:
                self.kill()
                self.returncode = -signal.SIGKILL
            with self._lock:
                os.close(self._process)
                self._process = -1
            self.status.close()
        return self.returncode


class ForkServer:
    """The fork server of this process, which is started when it is needed. From any thread; a call blocks."""

    def __init__(self, modules: Sequence[str]) -> None:
        self._modules = modules
        self._lock = threading.Lock()
        self._server: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        os.register_at_fork(after_in_child=self._forget)
        atexit.register(self.close)

    def fork(self, module: str, arguments: Sequence[str], file: int = -1) -> _Forked:
        """A worker with pipes for its input and output, that finds ``file`` as fork_server.FILE. Raises OSError."""
        with self._lock:
            if self._control is not None:
                with suppress(ConnectionError, TimeoutError):
                    return self._ask(self._control, module, arguments, file)
                self._end()  # it was killed, perhaps for want of memory
            control = self._start()
            try:
                return self._ask(control, module, arguments, file)
            except OSError:
                self._end()
                raise

    def close(self) -> None:
        """End it. Workers that it forked go on, but nobody hears how they end."""
        with self._lock:
            self._end()

    def _forget(self) -> None:
        """In a fork of this process: the server is the other's."""
        self._lock = threading.Lock()
        if self._control is not None:
            self._control.close()
        if self._server is not None:
            self._server.returncode = 0  # no child of this process
        self._server = self._control = None

    def _start(self) -> socket.socket:
        mine, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        mine.settimeout(_PATIENCE)
        command = process.command("sync_server.workers.fork_server", its.fileno(), *self._modules)
        errors, nothing = _errors(), subprocess.DEVNULL
        try:
            self._server = subprocess.Popen(
                command,
                stdin=nothing,
                stdout=nothing,
                stderr=errors,
                env=process.environment(),
                pass_fds=(its.fileno(),),
            )
        except BaseException:
            mine.close()
            raise
        finally:
            its.close()
            os.close(errors)
        self._control = mine
        return mine

    def _end(self) -> None:
        control, self._control, server, self._server = self._control, None, self._server, None
        if control is not None:
            control.close()
        if server is not None:
            server.kill()  # it has nothing to finish
            server.wait()

    def _ask(self, control: socket.socket, module: str, arguments: Sequence[str], file: int) -> _Forked:
        its: list[int] = []
        mine: list[int] = []
        try:
            for it_reads in (True, False, False):  # its input, its output and its status
                reads, writes = os.pipe()
                its.append(reads if it_reads else writes)
                mine.append(writes if it_reads else reads)
            its.insert(fork_server.ERRORS, _errors())
            request = json.dumps(
                {"module": module, "arguments": arguments, "path": [p for p in sys.path if p] or ["."]}
            )
            socket.send_fds(control, [request.encode()], [*its, *([file] if file >= 0 else [])])
            data, found, _, _ = socket.recv_fds(control, fork_server.REQUEST, 1)
            if not data:
                raise ConnectionResetError("the process that forks workers ended")
            answer = json.loads(data)
            if "error" in answer:
                raise OSError(answer["error"])
        except BaseException:
            for end in mine:
                os.close(end)
            raise
        finally:
            for end in its:
                os.close(end)
        return _Forked(answer["pid"], found[0], *mine)


def _errors() -> int:
    """The file to which this process writes its errors; a worker writes them there, too."""
    try:
        return os.dup(2)
    except OSError:
        return os.open(os.devnull, os.O_WRONLY)


def _forks() -> bool:
    """Whether this system has what a fork server needs; not all that is called Linux has."""
    if sys.platform != "linux":
        return False
    try:
        os.close(os.pidfd_open(os.getpid()))
    except (AttributeError, OSError):
        return False
    return True


SERVER = ForkServer((COMPACTOR, VALIDATOR)) if _forks() else None
"""The fork server of this process, for all of its relays; None where each worker is a program of its own."""


def start(module: str, *arguments: object) -> Worker:
    """A worker with pipes for its input and output. Blocks. Raises OSError."""
    if SERVER is not None:
        return SERVER.fork(module, [*map(str, arguments)])
    pipe = subprocess.PIPE
    return subprocess.Popen(process.command(module, *arguments), stdin=pipe, stdout=pipe, env=process.environment())


async def connect(
    make: Callable[[], P], module: str, arguments: Callable[[int], Sequence[object]], file: int
) -> tuple[asyncio.SubprocessTransport, P]:
    """A worker whose pipes are read and written on the loop; what ``make`` makes hears of it. ``arguments`` gets the
    number that ``file`` has in the worker; -1: there is none. Raises OSError."""
    loop = asyncio.get_running_loop()
    if SERVER is not None:
        words = [*map(str, arguments(fork_server.FILE if file >= 0 else -1))]
        forked = await asyncio.to_thread(SERVER.fork, module, words, file)
        protocol = make()
        transport = _ForkedTransport(loop, forked, protocol)
        await transport.connect()
        return transport, protocol
    pipe, command, files = subprocess.PIPE, process.command(module, *arguments(file)), (file,) if file >= 0 else ()
    return await loop.subprocess_exec(
        make, *command, stdin=pipe, stdout=pipe, stderr=None, env=process.environment(), pass_fds=files
    )


class _ForkedTransport(asyncio.SubprocessTransport):
    """A fork's pipes on a loop, as asyncio's own transports of processes."""

    def __init__(self, loop: asyncio.AbstractEventLoop, forked: _Forked, protocol: asyncio.SubprocessProtocol) -> None:
        super().__init__()
        self._loop, self._forked, self._protocol = loop, forked, protocol
        self._pipes: dict[int, asyncio.BaseTransport] = {}
        self._open = 3

    async def connect(self) -> None:
        stdin, _ = await self._loop.connect_write_pipe(lambda: _Pipe(self, fork_server.INPUT), self._forked.stdin)
        self._pipes[fork_server.INPUT] = stdin
        self._protocol.connection_made(self)
        stdout, _ = await self._loop.connect_read_pipe(lambda: _Pipe(self, fork_server.OUTPUT), self._forked.stdout)
        self._pipes[fork_server.OUTPUT] = stdout
        await self._loop.connect_read_pipe(lambda: _Status(self), self._forked.status)

    def get_pid(self) -> int:
        return self._forked.pid

    def get_returncode(self) -> int | None:
        return self._forked.returncode

    def get_pipe_transport(self, fd: int) -> asyncio.BaseTransport | None:
        return self._pipes.get(fd)

    def kill(self) -> None:
        self._forked.kill()

    def close(self) -> None:
        """End the process, whatever it does."""
        for pipe in self._pipes.values():
            pipe.close()
        if self._forked.returncode is None:
            self._forked.kill()

    def received(self, fd: int, data: bytes) -> None:
        self._protocol.pipe_data_received(fd, data)

    def lost(self, fd: int, error: Exception | None) -> None:
        self._protocol.pipe_connection_lost(fd, error)
        self._lost_one()

    def ended(self, status: bytes) -> None:
        self._forked.ended(status)
        self._protocol.process_exited()
        self._lost_one()

    def _lost_one(self) -> None:
        self._open -= 1
        if not self._open:
            self._protocol.connection_lost(None)


class _Pipe(asyncio.Protocol):
    """One of the process's streams."""

    def __init__(self, transport: _ForkedTransport, fd: int) -> None:
        self._transport, self._fd = transport, fd

    def data_received(self, data: bytes) -> None:
        self._transport.received(self._fd, data)

    def connection_lost(self, error: Exception | None) -> None:
        self._transport.lost(self._fd, error)


class _Status(asyncio.Protocol):
    """The pipe on which its exit status comes."""

    def __init__(self, transport: _ForkedTransport) -> None:
        self._transport, self._status = transport, b""

    def data_received(self, data: bytes) -> None:
        self._status += data

    def connection_lost(self, error: Exception | None) -> None:
        self._transport.ended(self._status)

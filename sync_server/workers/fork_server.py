"""A process that has loaded the CRDT cores, and forks a worker whenever it is asked to:
``python -m sync_server.workers.fork_server SOCKET MODULE...``.

So the cores are loaded once for all workers of a relay, and a worker that died is replaced within milliseconds. This
process reads nothing that strangers wrote. Each worker is a process of its own, with limits of its own: what happens to
one touches neither this process nor the others.

SOCKET is a file descriptor. Each message on it is a request in JSON, with the descriptors that the worker gets (INPUT,
OUTPUT, ERRORS, then one on which its exit status is told, and perhaps a file that it shares with the relay, which it
finds as FILE). The answer is its process id, with a descriptor of the process (pidfd), or why there is none. When the
relay is gone this process ends; its workers notice that by themselves.
"""

from __future__ import annotations

import importlib
import json
import os
import select
import signal
import socket
import struct
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress

from ..memory import keep_what_is_there
from . import process

INPUT, OUTPUT, ERRORS, FILE = range(4)
STATUS = struct.Struct("=i")
"""The exit status of a worker; -n where signal n ended it."""
REQUEST = 64 << 10
"""Bytes of a request at most."""


def serve(control: socket.socket) -> None:
    """Fork workers until the other end of the socket is closed."""
    children: dict[int, int] = {}  # of each worker: the descriptor of the process -> that for its status
    poll = select.poll()
    poll.register(control, select.POLLIN)
    while True:
        for ready, _ in poll.poll():
            if ready != control.fileno():
                poll.unregister(ready)
                _tell(ready, children.pop(ready))
                continue
            request, files, _, _ = socket.recv_fds(control, REQUEST, 5)
            if not request:
                return
            try:
                pid = os.fork()
            except OSError as error:
                control.send(json.dumps({"error": str(error)}).encode())
            else:
                if pid == 0:
                    os._exit(_work(request, files, (control.fileno(), *children, *children.values())))
                child = os.pidfd_open(pid)
                children[child] = os.dup(files[3])
                poll.register(child, select.POLLIN)
                socket.send_fds(control, [json.dumps({"pid": pid}).encode()], [child])
            for file in files:
                os.close(file)


def _tell(child: int, status: int) -> None:
    """Say how a worker ended."""
    ended = os.waitid(os.P_PIDFD, child, os.WEXITED)
    assert ended is not None
    code = ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status
    with suppress(BrokenPipeError):
        os.write(status, STATUS.pack(code))
    os.close(status)
    os.close(child)


def _work(request: bytes, files: Sequence[int], others: Sequence[int]) -> int:
    """Inside the fork: be the worker. Its exit code."""
    try:
        for file in others:
            os.close(file)
        # This process has all three standard streams, so none of the files has the number of one.
        for number in (INPUT, OUTPUT, ERRORS):
            os.dup2(files[number], number)
        shared = os.dup(files[4]) if len(files) > 4 else FILE
        for file in files:
            os.close(file)
        if shared != FILE:
            os.dup2(shared, FILE)
            os.close(shared)
        asked = json.loads(request)
        sys.path[:] = asked["path"]
        sys.argv = [asked["module"], *asked["arguments"]]
        sys.stdin = os.fdopen(INPUT, closefd=False)
        with suppress(OSError), open("/proc/self/comm", "w") as name:  # for who lists processes
            name.write(asked["module"].rpartition(".")[2].removesuffix("_worker"))
        return process.serve(importlib.import_module(asked["module"]).main)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1


def main() -> None:
    control = socket.socket(fileno=int(sys.argv[1]))
    for number in (signal.SIGINT, signal.SIGTERM):  # as in its workers: the relay still needs them to finish
        signal.signal(number, signal.SIG_IGN)
    for module in sys.argv[2:]:
        importlib.import_module(module).prepare()
    keep_what_is_there()
    serve(control)


if __name__ == "__main__":
    main()

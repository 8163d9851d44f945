"""``python -m sync_server --host 127.0.0.1 --port 8765 --data DIR``.

Prints one line, ``listening on ws://HOST:PORT``, when it is ready. Ends on SIGINT and SIGTERM after all that came in is
on disk and acknowledged. Exit codes: 0 stopped, 1 failed while running, 2 wrong arguments, 3 the address can't be
used, 4 the data folder can't be used.
"""

from __future__ import annotations

import argparse
import asyncio
import ipaddress
import logging
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from . import token_command
from .access import AccessError, Tokens
from .log import LogError
from .server import Relay

_COMMANDS = ("token",)
STOPPED, FAILED, ADDRESS, DATA = 0, 1, 3, 4


def main(arguments: Sequence[str] | None = None) -> int:
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments and arguments[0] in _COMMANDS:
        return _command(arguments)
    parser = argparse.ArgumentParser(
        prog="python -m sync_server",
        description="Keep llmcrdt documents in step.",
        epilog=f"Other commands, each with --help: {', '.join(_COMMANDS)}.",
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=8765, help="0 takes a free one (default: %(default)s)")
    parser.add_argument("--data", type=Path, required=True, help="folder for the relay's log")
    parser.add_argument(
        "--allow-remote",
        action="store_true",
        help="listen beyond this machine without tokens; anyone who knows a document's id can use it",
    )
    parser.add_argument("--allow-origin", action="append", default=[], help="let web pages of this origin connect")
    options = parser.parse_args(arguments)
    if not 0 <= options.port < 65536:
        parser.error("--port is 0 to 65535")
    try:
        safe = options.allow_remote or _is_loopback(options.host) or Tokens(options.data).on
    except AccessError as e:
        return _say(e, DATA)
    if not safe:
        parser.error(
            f"{options.host} can be reached from other machines; make a token first (python -m sync_server token make),"
            " or add --allow-remote if everybody is meant"
        )
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    return asyncio.run(_run(Relay(options.data, options.host, options.port, origins=options.allow_origin)))


def _command(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m sync_server")
    commands = parser.add_subparsers(required=True)
    token_command.add_to(commands)
    options = parser.parse_args(arguments)
    code: int = options.run(options)
    return code


async def _run(relay: Relay) -> int:
    try:
        await relay.start()
    except (LogError, AccessError) as e:
        return _say(e, DATA)
    except OSError as e:
        code = DATA if isinstance(e, FileExistsError | NotADirectoryError | PermissionError) and e.filename else ADDRESS
        return _say(e, code)
    stop = asyncio.Event()
    _on_signals(stop)
    host = f"[{relay.host}]" if ":" in relay.host else relay.host
    print(f"listening on ws://{host}:{relay.port}", flush=True)
    waits = [asyncio.create_task(event.wait()) for event in (stop, relay.failed)]
    await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    for wait in waits:
        wait.cancel()
    await relay.stop()
    return FAILED if relay.failed.is_set() else STOPPED


def _on_signals(stop: asyncio.Event) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        try:
            loop.add_signal_handler(number, stop.set)
        except NotImplementedError:  # Windows
            signal.signal(number, lambda *_: loop.call_soon_threadsafe(stop.set))


def _say(error: Exception, code: int) -> int:
    print(f"sync_server: {error}", file=sys.stderr)
    return code


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


if __name__ == "__main__":
    sys.exit(main())

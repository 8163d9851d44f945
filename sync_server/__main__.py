"""``python -m sync_server --host 127.0.0.1 --port 8765 --data DIR``.

Prints one line, ``listening on ws://HOST:PORT``, when it is ready. Ends on SIGINT and SIGTERM after all that came in is
on disk and acknowledged. A service manager that gave it NOTIFY_SOCKET is told both. Exit codes: 0 stopped, 1 failed
while running, 2 wrong arguments, 3 the address can't be used, 4 the data folder can't be used.
"""

from __future__ import annotations

import argparse
import asyncio
import ipaddress
import json
import logging
import os
import signal
import socket
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from .admin import data_command, settings, token_command
from .auth.public_keys import AccessError
from .auth.tokens import Tokens
from .log.base import LogError
from .memory import give_back_large, keep_what_is_there
from .net.tls import Certificate
from .server import Relay

_COMMANDS = ("token", "inspect", "verify", "compact", "backup", "restore", "quarantine", "assign")
STOPPED, FAILED, ARGUMENTS, ADDRESS, DATA = 0, 1, 2, 3, 4


def main(arguments: Sequence[str] | None = None) -> int:
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments and arguments[0] in _COMMANDS:
        return _command(arguments)
    try:
        options = _options(arguments)
    except ValueError as e:
        return _say(e, ARGUMENTS)
    except AccessError as e:
        return _say(e, DATA)
    _log_as(options.log_format, options.log_level)
    relay = Relay(
        options.data,
        options.host,
        options.port,
        options.limits,
        origins=options.allow_origin,
        certificate=options.certificate,
        check=options.check,
    )
    return asyncio.run(_run(relay, options))


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    """Raises ValueError, AccessError; ends the program where the flags are wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m sync_server",
        description="Keep llmcrdt documents in step.",
        epilog=f"Every flag can also stand in the environment ({settings.PREFIX}PORT=8765) or in the file. "
        f"Other commands, each with --help: {', '.join(_COMMANDS)}.",
    )
    parser.add_argument("--config", type=Path, help="a TOML file with these settings, and a table [limits]")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=8765, help="0 takes a free one (default: %(default)s)")
    parser.add_argument("--data", type=Path, help="folder for the relay's log")
    parser.add_argument(
        "--allow-remote",
        action="store_true",
        help="listen beyond this machine without tokens; anyone who knows a document's id can use it",
    )
    parser.add_argument("--allow-origin", action="append", default=None, help="let web pages of this origin connect")
    parser.add_argument(
        "--no-check",
        dest="check",
        action="store_false",
        help="append what devices send without a look at it: faster, but each of them has to look then",
    )
    parser.add_argument(
        "--limit", action="append", default=[], metavar="NAME=NUMBER", help="as in sync_server/core/limits.py"
    )
    parser.add_argument(
        "--tls-cert", type=Path, metavar="FILE", help="PEM: certificate, and those above it; for wss://"
    )
    parser.add_argument("--tls-key", type=Path, metavar="FILE", help="PEM: its private key")
    settings.add_logging(parser)
    given = settings.defaults(parser.parse_known_args(arguments)[0].config, os.environ)
    limits, origins = given.pop("limits"), given.pop("allow_origin", [])
    parser.set_defaults(**given)
    options = parser.parse_args(arguments)
    options.limits = settings.checked({**limits, **settings.limits(options.limit)})
    options.allow_origin = origins if options.allow_origin is None else options.allow_origin
    if options.data is None:
        parser.error("--data is needed")
    if (options.tls_cert is None) != (options.tls_key is None):
        parser.error("--tls-cert and --tls-key come together")
    options.certificate = Certificate(Path(options.tls_cert), Path(options.tls_key)) if options.tls_cert else None
    if not 0 <= options.port < 65536:
        parser.error("--port is 0 to 65535")
    if not (options.allow_remote or _is_loopback(options.host) or Tokens(options.data).on):
        parser.error(
            f"{options.host} can be reached from other machines; make a token first (python -m sync_server token make),"
            " or add --allow-remote if everybody is meant"
        )
    return options


def _command(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m sync_server")
    commands = parser.add_subparsers(required=True)
    token_command.add_to(commands)
    data_command.add_to(commands)
    options = parser.parse_args(arguments)
    code: int = options.run(options)
    return code


async def _run(relay: Relay, options: argparse.Namespace) -> int:
    give_back_large()
    try:
        await relay.start()
    except (LogError, AccessError) as e:
        return _say(e, DATA)
    except OSError as e:
        why = os.strerror(e.errno) if e.errno and e.errno > 0 else e.strerror or e
        if e.filename:
            return _say(LogError(f"{options.data} can't be used: {why}.", hint="Choose another --data."), DATA)
        hint = "Choose another --host or --port."
        return _say(LogError(f"Can't listen at {options.host}, port {options.port}: {why}.", hint=hint), ADDRESS)
    stop = asyncio.Event()
    _on_signals(stop)
    host = f"[{relay.host}]" if ":" in relay.host else relay.host
    keep_what_is_there()
    print(f"listening on {'wss' if relay.certificate else 'ws'}://{host}:{relay.port}", flush=True)
    _notify("READY=1")
    waits = [asyncio.create_task(event.wait()) for event in (stop, relay.failed)]
    await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    for wait in waits:
        wait.cancel()
    _notify("STOPPING=1")
    await relay.stop()
    return FAILED if relay.failed.is_set() else STOPPED


def _on_signals(stop: asyncio.Event) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        try:
            loop.add_signal_handler(number, stop.set)
        except NotImplementedError:  # Windows
            signal.signal(number, lambda *_: loop.call_soon_threadsafe(stop.set))


def _notify(state: str) -> None:
    """Tell systemd, where it started this process and asks for that: man sd_notify."""
    address = os.environ.get("NOTIFY_SOCKET")
    if address:
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
            out.sendto(state.encode(), "\0" + address[1:] if address.startswith("@") else address)


class _Json(logging.Formatter):
    """One JSON object a line. No line names a content, and no document by its id."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": record.created,
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)


def _log_as(form: str, level: str) -> None:
    logging.basicConfig(level=level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    if form == "json":
        for handler in logging.getLogger().handlers:
            handler.setFormatter(_Json())


def _say(error: Exception, code: int) -> int:
    print(f"sync_server: {error}", file=sys.stderr)
    return code


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _main() -> int:
    try:
        code = main()
        sys.stdout.flush()
    except BrokenPipeError:  # who reads has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    return code


if __name__ == "__main__":
    sys.exit(_main())

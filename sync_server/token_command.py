"""``python -m sync_server token make | list | revoke``."""

from __future__ import annotations

import argparse
import re
import sys
import time
from pathlib import Path

from .access import LEVELS, AccessError, Tokens

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Teach a command line the word ``token``."""
    token = commands.add_parser("token", help="make, list and revoke access tokens")
    words = token.add_subparsers(dest="word", required=True)
    make = words.add_parser("make", help="print a new token; the first one made turns tokens on")
    make.add_argument("--subject", required=True, help="whose it is")
    make.add_argument("--may", choices=LEVELS, default="append", help="(default: %(default)s)")
    make.add_argument("--documents", nargs="+", default=["*"], metavar="PATTERN", help="ids, beginnings with *, or *")
    make.add_argument("--expires", type=_seconds, metavar="TIME", help="how long it is good: 90s, 30m, 12h, 30d")
    revoke = words.add_parser("revoke", help="take a token back; open connections end within a second")
    revoke.add_argument("id", help="as list shows it")
    for parser in (make, revoke, words.add_parser("list", help="show all that were made")):
        parser.add_argument("--data", type=Path, required=True, help="the relay's folder")
        parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    try:
        tokens = Tokens(options.data)
        if options.word == "make":
            first = not tokens.on
            print(tokens.make(options.subject, options.may, options.documents, options.expires))
            if first:
                print("Tokens are on now. A relay that runs asks for them after a restart.", file=sys.stderr)
        elif options.word == "revoke":
            tokens.revoke(options.id)
        else:
            for grant, state in tokens.list():
                end = "-" if grant.expires is None else time.strftime("%Y-%m-%dT%H:%MZ", time.gmtime(grant.expires))
                print(grant.id, state, grant.level, end, grant.subject, *grant.patterns, sep="\t")
    except AccessError as e:
        print(f"sync_server: {e}", file=sys.stderr)
        return 4
    return 0


def _seconds(text: str) -> float:
    found = re.fullmatch(r"([1-9]\d{0,8})([smhd])", text)
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r} is no time; it looks like 30d")
    return int(found[1]) * _UNITS[found[2]]

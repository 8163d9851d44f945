"""``python -m sync_server token make | list | revoke | trust | distrust | keys``."""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from pathlib import Path

from ..auth.public_keys import AccessError, PublicKeys
from ..auth.tokens import KEY, LEVELS, OWN, Tokens, sign

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Teach a command line the word ``token``."""
    token = commands.add_parser("token", help="make, list and revoke access tokens, and say whose tokens are taken")
    words = token.add_subparsers(dest="word", required=True)
    make = words.add_parser("make", help="print a new token; the first one made turns tokens on")
    make.add_argument("--subject", required=True, help="whose it is")
    make.add_argument("--may", choices=LEVELS, default="append", help="(default: %(default)s)")
    make.add_argument("--documents", nargs="+", metavar="PATTERN", help="ids, beginnings with *, or * (the default)")
    make.add_argument(
        "--own",
        action="store_true",
        help="documents of the subject, and those that aren't there yet; --documents adds to them",
    )
    make.add_argument("--expires", type=_seconds, metavar="TIME", help="how long it is good: 90s, 30m, 12h, 30d")
    make.add_argument(
        "--private", type=Path, metavar="FILE", help="sign with this Ed25519 key, in place of the relay's"
    )
    make.add_argument("--kid", help="the id that the relay knows its public half by")
    revoke = words.add_parser("revoke", help="take a token back; open connections end within a second")
    revoke.add_argument("id", help="as list shows it, or the jti of one that was made elsewhere")
    trust = words.add_parser("trust", help="take tokens signed with the private half of an Ed25519 public key")
    trust.add_argument("kid", help="a name for the key; tokens give it in their header")
    trust.add_argument("file", type=Path, help="the public key, as openssl pkey -pubout writes it")
    distrust = words.add_parser("distrust", help="remove a public key; connections with its tokens end")
    distrust.add_argument("kid")
    lists = (
        words.add_parser("list", help="show all that were made"),
        words.add_parser("keys", help="show the public keys"),
    )
    for parser in (make, revoke, trust, distrust, *lists):
        parser.add_argument("--data", type=Path, required=parser is not make, help="the relay's folder")
        parser.set_defaults(run=run)
    for parser in (make, *lists):
        parser.add_argument("--json", action="store_true", help="print JSON: an object, or one a line")


def run(options: argparse.Namespace) -> int:
    try:
        if options.word not in ("make", "trust") and not options.data.is_dir():
            raise AccessError(f"There is no folder {options.data}.", hint="Give the relay's --data.")
        _WORDS[options.word](options)
    except BrokenPipeError:  # whoever reads has seen enough
        raise
    except (AccessError, OSError) as e:
        print(f"sync_server: {e}", file=sys.stderr)
        return 4
    return 0


def _make(options: argparse.Namespace) -> None:
    if (options.private is None) != (options.kid is None) or (options.private is None) == (options.data is None):
        raise AccessError(
            "Give --data, or --private and --kid.", hint="With a private key no relay's folder is needed."
        )
    patterns = [*([OWN] if options.own else []), *(options.documents or ([] if options.own else ["*"]))]
    asked = (options.subject, options.may, patterns)
    if options.private is not None:
        expires = None if options.expires is None else int(time.time() + options.expires)
        return _print(options, token=sign(_pem(options.private), options.kid, *asked, expires))
    tokens = Tokens(options.data)
    first = not (options.data / KEY).exists()
    _print(options, token=tokens.make(*asked, options.expires))
    if first:
        _tell_on()


def _revoke(options: argparse.Namespace) -> None:
    Tokens(options.data).revoke(options.id)


def _list(options: argparse.Namespace) -> None:
    for grant, state in Tokens(options.data).list():
        end = grant.expires and time.strftime("%Y-%m-%dT%H:%MZ", time.gmtime(grant.expires))
        shown = {"id": grant.id, "state": state, "may": grant.level, "expires": end, "subject": grant.subject}
        _print(options, **shown, documents=list(grant.patterns))


def _trust(options: argparse.Namespace) -> None:
    first = not Tokens(options.data).on
    PublicKeys(options.data).add(options.kid, _pem(options.file))
    if first:
        _tell_on()


def _distrust(options: argparse.Namespace) -> None:
    PublicKeys(options.data).remove(options.kid)


def _keys(options: argparse.Namespace) -> None:
    for kid in PublicKeys(options.data).ids():
        _print(options, kid=kid)


_WORDS = {"make": _make, "revoke": _revoke, "list": _list, "trust": _trust, "distrust": _distrust, "keys": _keys}


def _print(options: argparse.Namespace, **shown: object) -> None:
    if options.json:
        return print(json.dumps(shown))
    texts = (" ".join(value) if isinstance(value, list) else value or "-" for value in shown.values())
    print(*texts, sep="\t")


def _tell_on() -> None:
    print("Tokens are on now. A relay that runs asks for them after a restart.", file=sys.stderr)


def _pem(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as e:
        raise AccessError(f"{file} can't be read: {e.strerror}.", hint="Give the file of a key.") from None


def _seconds(text: str) -> float:
    found = re.fullmatch(r"([1-9]\d{0,8})([smhd])", text)
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r} is no time; it looks like 30d")
    return int(found[1]) * _UNITS[found[2]]

"""Commands that bring devices together: sync and pair."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

import llmcrdt
from llmcrdt.cli.terminal import progress_line, qr_code
from llmcrdt.exceptions import RelayUnreachable, SyncError, SyncTimeout
from llmcrdt.ids import is_document_id
from llmcrdt.sync.address import is_loopback
from llmcrdt.terminal_text import safe

from .options import MANY, Repos, as_json, decode, find, invited_token, print_json, relay_token, trusted
from .progress import progress_shown, quiet

if TYPE_CHECKING:
    from llmcrdt.sync.link import Link

    from .options import Token


@click.command()
@click.argument("url", required=False)
@relay_token
@click.option("--only", multiple=True, help="a document id; may be given several times [default: the whole library]")
@trusted
@click.option("--watch", is_flag=True, help="stay connected until Ctrl-C")
@click.option("--timeout", default=30.0, show_default=True, type=click.FloatRange(min=0), help="seconds to wait")
@quiet
@as_json
@click.pass_obj
def sync(
    repos: Repos,
    url: str | None,
    token: Token,
    only: tuple[str, ...],
    ca: Path | None,
    watch: bool,
    timeout: float,
    quiet: bool,
    as_json: bool,
) -> None:
    """Exchange everything with a relay (ws://HOST:PORT); without URL, with the one that "pair" remembered.

    With --watch, it then says when the relay is lost and when it is back; with --json, in one line each.
    """
    # A new library would stand in the way of the one that this device is to join.
    with repos(join=True) as repo, repo.connect(url, token, ids(repo, only), tls=ca) as link:
        shown = progress_shown(quiet, as_json)
        if shown:
            link.observe_progress(lambda progress: click.echo(f"\r{progress_line(progress)}\x1b[K", nl=False, err=True))
        try:
            link.wait_synced(timeout)
            repo.attachments.wait_sent(timeout)
        except SyncTimeout as error:
            raise SyncTimeout(error.message, hint=f"{what_to_do(link, error)} Or give a longer --timeout.") from None
        except RelayUnreachable as error:
            raise RelayUnreachable(error.message, hint=what_to_do(link, error)) from None
        finally:
            if shown:
                click.echo("\r\x1b[K", nl=False, err=True)
        progress = link.progress
        result = {
            "library": repo.library,
            "conversations": len(repo.list(limit=MANY)),
            "bytes_sent": link.bytes_sent,
            "bytes_received": link.bytes_received,
            "records_sent": progress.sent,
            "records_received": progress.received,
            "kept_there": list(link.kept_there),
        }
        if as_json:
            print_json(result)
        else:
            for refused in (*link.kept_there.values(), *repo.attachments.refused.values()):
                click.echo(f"llmcrdt: {refused}", err=True)
            click.echo(
                f"In step with {link.url}: {result['conversations']} conversations,"
                f" {link.bytes_sent} bytes sent, {link.bytes_received} received. Library {repo.library}"
            )
        if watch:
            with contextlib.suppress(KeyboardInterrupt):
                keep_watching(link, as_json)


@click.command()
@click.argument("may", required=False, type=click.Choice(["on", "off"]))
@as_json
@click.pass_obj
def syncing(repos: Repos, may: str | None, as_json: bool) -> None:
    """Say whether this database may sync, or set it: "off" ends every connection, and refuses others."""
    with repos(create=may is not None) as repo:
        if may is not None:
            repo.never_syncs = may == "off"
        if as_json:
            print_json({"never_syncs": repo.never_syncs})
        elif repo.never_syncs:
            click.echo("off: this database never syncs.")
        else:
            click.echo("on: this database syncs with a relay when it is told to.")


@click.command()
@click.argument("url", required=False)
@invited_token
@click.option("--join", metavar="INVITE", help='join with an invite; "-" reads it from stdin')
@click.option("--keys/--no-keys", default=True, show_default=True, help="include the keys of encrypted fields")
@click.option("--qr/--no-qr", default=None, help="draw it as a QR code too [default: on a terminal]")
@click.option("--reveal", is_flag=True, help="with --json: print the invite, which is a secret")
@as_json
@click.pass_obj
def pair(
    repos: Repos,
    url: str | None,
    token: str | None,
    join: str | None,
    keys: bool,
    qr: bool | None,
    reveal: bool,
    as_json: bool,
) -> None:
    """Print an invite for another device: the relay URL, token, library and keys in one string. Or join with one.

    URL is remembered: "sync" then needs none. Anybody who has the invite can read and write everything here.
    """
    if join is not None:
        if url or token:
            raise click.UsageError("An invite holds relay and token: give it alone.")
        invite = decode(sys.stdin.buffer.read(), "stdin") if join == "-" else join
        with repos(create=True, invite=invite) as repo:
            relay = repo.relay.url if repo.relay else ""
            if as_json:
                print_json({"library": repo.library, "relay": relay})
            else:
                click.echo(f'Joined library {repo.library} at {safe(relay)}. "llmcrdt sync" fetches what is in it.')
        return
    with repos(create=url is not None) as repo:  # without an address, a device with nothing has no invite to make
        text = repo.invite(url, token, keys=keys)
        relay = url or (repo.relay.url if repo.relay else "")
        if as_json:
            print_json({"library": repo.library, "relay": relay, **({"invite": text} if reveal else {})})
        else:
            if qr or (qr is None and sys.stdout.isatty()):
                draw(text, asked=bool(qr))
            click.echo(text)
            click.echo("This is a secret: anybody who has it can read and write everything in this library.", err=True)
        if is_loopback(relay):
            click.echo(f"Only this device reaches {relay}; give the address by which others reach it.", err=True)


def draw(text: str, *, asked: bool) -> None:
    """Print a QR code on stdout; if it was asked for and can't be drawn, the reason on stderr."""
    try:
        code, why = qr_code(text), "The invite is too long for a QR code. --no-keys makes it shorter."
    except ImportError:
        code, why = None, "No QR code without segno. Install it: pip install 'llmcrdt[qr]'"
    if code:
        click.echo(code)
    elif asked:
        click.echo(why, err=True)


def keep_watching(link: Link, as_json: bool) -> None:
    """Say when the relay is lost and when it is back, until the link is closed; raises the reason for that."""
    online = True
    while link.state != "closed":
        # Between two tries it is connecting; nobody needs to hear of each.
        if link.state == ("offline" if online else "online"):
            online = not online
            why = link.last_error.message if link.last_error else "Nobody answers."
            if as_json:
                click.echo(json.dumps({"state": "online"} if online else {"state": "offline", "why": why}))
            elif online:
                click.echo(f"Connected to {link.url} again.", err=True)
            else:
                click.echo(f"Out of reach: {why} Trying again.", err=True)
        time.sleep(0.2)
    link.wait_synced()


def what_to_do(link: Link, error: SyncError) -> str:
    """After waiting for a link in vain, in a command that ends. The error's own hint may say that the link goes on."""
    if not isinstance(error, (RelayUnreachable, SyncTimeout)):
        return error.hint
    asked = "Is a relay running there?" if isinstance(error, RelayUnreachable) else ""
    do = (link.last_error and link.last_error.hint) or asked
    return f"{do} Nothing is lost; sync again.".lstrip()


def ids(repo: llmcrdt.Repo, only: tuple[str, ...]) -> list[str] | None:
    """Document ids from what was typed: whole ones, also of documents that aren't here yet, or beginnings."""
    return [id_ if is_document_id(id_) else find(repo, id_).id for id_ in only] or None

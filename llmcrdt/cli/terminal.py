"""Entries on a terminal, and how far something has come."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterable, Iterator

import click

from ..document.blob import Blob
from ..document.entry import Entry, Part, Text, ToolCall, ToolResult
from ..sync.progress import Progress
from ..terminal_text import safe


def heading(entry: Entry) -> str:
    """The role, author and status of an entry."""
    who = f"{entry.role} ({safe(entry.author)})" if entry.author else entry.role
    return who if entry.status == "complete" else f"{who} [{entry.status}]"


def print_entry(entry: Entry) -> None:
    """Print the whole entry on stdout, its parts in their order, without hidden fields."""
    click.echo(click.style(f"{heading(entry)}  {entry.id}", bold=True))
    for part in _joined(entry.parts):
        match part:
            case str():
                click.echo(safe(part))
            case ToolCall():
                click.echo(f"→ {safe(part.name)}({safe(part.arguments)})")
            case Blob():
                missing = "" if part.present else ", not on this device"
                click.echo(
                    f"[{part.name!r}, {part.media_type!r}, {part.size} bytes{missing}]"
                )  # !r: a stranger's words
    if entry.config:
        click.echo(click.style(f"settings: {safe(', '.join(sorted(entry.config)))}", dim=True))
    click.echo()


def _joined(parts: Iterable[Part]) -> Iterator[str | ToolCall | Blob]:
    """The shown parts of an entry, in order; text between two other shown parts is one piece."""
    words = ""
    for part in parts:
        match part:
            case Text() | ToolResult():
                words += part.text
            case ToolCall() | Blob():
                if words:
                    yield words
                words = ""
                yield part
    if words:
        yield words


def progress_line(progress: Progress) -> str:
    """How far a link has come, for one line."""
    parts = [f"{progress.documents} of {progress.of_documents} documents"] if progress.of_documents else ["connecting"]
    if progress.of_received:
        parts.append(f"{progress.received} of {progress.of_received} records received")
    if progress.of_sent:
        waiting = f", {progress.bytes_waiting} bytes to go" if progress.bytes_waiting else ""
        parts.append(f"{progress.sent} of {progress.of_sent} sent{waiting}")
    return "; ".join(parts)


def qr_code(text: str) -> str | None:
    """A QR code in half blocks, with its quiet zone. None where the text is too long for one. Raises ImportError where
    segno is not installed (extra ``qr``)."""
    import segno

    with contextlib.suppress(segno.DataOverflowError):
        out = io.StringIO()
        segno.make_qr(text, error="l", boost_error=False).terminal(out, compact=True)
        return out.getvalue().rstrip("\n")
    return None

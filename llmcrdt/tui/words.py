"""Entries as what a terminal shows. Control characters of other people's words never reach it."""

from __future__ import annotations

import time

from rich.console import Group, RenderableType
from rich.markdown import Markdown
from rich.text import Text as Line

from ..document.binding import own_report
from ..document.blob import Blob
from ..document.conversation import Conversation
from ..document.entry import Entry, Reasoning, Text, ToolCall, ToolResult
from ..terminal_text import safe

NAMES = {"user": "You", "assistant": "Answer", "system": "Instructions", "tool": "Tool"}
SIGNS = {"local": "○", "sent": "◐", "durable": "●"}
"""The sync state of an entry: on this device, on its way, kept by the relay."""


def heading(entry: Entry, place: int, of: int, new: bool) -> Line:
    """The line above the words of a turn."""
    line = Line(NAMES.get(entry.role, entry.role), style="bold")
    when = time.strftime("%H:%M", time.localtime(min(max(entry.created_at, 0), 1e11)))
    about = [safe(entry.author), when, "summary" if entry.covers else ""]
    line.append("  " + " · ".join(each for each in about if each), style="dim not bold")
    if of > 1:
        line.append(f"  ‹ {place + 1}/{of} ›", style="cyan not bold")
    if entry.status not in ("complete", "streaming"):
        line.append(f"  {entry.status}", style="yellow not bold")
    if new:
        line.append("  new", style="green not bold")
    line.append(f"  {SIGNS[entry.sync]}", style="dim not bold")
    return line


def words(entry: Entry, *, reasoning: bool = False) -> RenderableType:
    """The parts of an entry. Growing text is plain, for half of a table is none; whole text is Markdown."""
    if entry.status == "erased":
        return Line("The words were erased.", style="dim")
    shown: list[RenderableType] = []
    for part in entry.parts:
        match part:
            case Text(text):
                plain = entry.status == "streaming" or entry.role in ("user", "tool")
                shown.append(Line(safe(text)) if plain else Markdown(safe(text), hyperlinks=False))
            case Reasoning(text):
                cut = safe(text) if reasoning else f"Reasoning, {len(text)} characters"
                shown.append(Line(cut, style="dim italic"))
            case ToolCall():
                shown.append(Line(f"→ {safe(part.name)}({safe(part.arguments)})", style="magenta"))
            case ToolResult(text, error):
                shown.append(Line(safe(text), style="red" if error else ""))
            case Blob():
                here = "" if part.present else ", not on this device"
                shown.append(Line(f"[{safe(part.name or part.media_type)}, {part.size} bytes{here}]", style="blue"))
    if entry.status == "streaming":
        shown.append(Line("▍", style="green"))
    return Group(*shown)


def first_words(entry: Entry, width: int = 60) -> str:
    """The beginning of an entry on one line."""
    line = " ".join(safe(entry.text[: width * 4]).split()) or f"({entry.role})"
    return line if len(line) <= width else line[: width - 1] + "…"


def details(conversation: Conversation, entry: Entry) -> str:
    """All that is known of an entry: its version, frame, usage, hidden fields and reasoning."""
    lines = [f"entry   {entry.id}", f"version {entry.hash}", f"status  {entry.status}, {entry.sync}"]
    if entry.frame is not None:
        lines.append(f"frame   {entry.frame.hash}, {len(conversation.frame_entries(entry))} entries")
    if entry.usage:
        lines.append("usage   " + ", ".join(f"{name} {value}" for name, value in entry.usage.items()))
    for name, field in sorted(entry.hidden.items()):
        report = own_report(conversation.hidden_report, entry, name)
        state = "would go out" if report is None or report.sent else f"stays here: {report.why}"
        lines.append(f"hidden  {name}, bound to {dict(field.binding)}: {state}")
    lines += [f"hidden  {name} is not on this device" for name in entry.missing]
    if entry.reasoning:
        lines += ["", "Reasoning:", entry.reasoning]
    return safe("\n".join(lines))

"""The counts of a relay, in the text format that Prometheus reads. No name of a document, a subject or an address.

Metrics keep the names under which they were published, some of which have older words: `keeper` is the validator,
`folds` are compactions, `condensed` are catch-up snapshots.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Literal

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_HELP = {
    "connections": ("gauge", "Connections that are open"),
    "documents": ("gauge", "Documents that somebody has open"),
    "frames_received_total": ("counter", "Messages of clients"),
    "bytes_received_total": ("counter", "Bytes in messages of clients"),
    "frames_sent_total": ("counter", "Messages to clients"),
    "bytes_sent_total": ("counter", "Bytes in messages to clients, before compression"),
    "records_acknowledged_total": ("counter", "Records on disk and acknowledged, repeats included"),
    "records_refused_total": ("counter", "Records and updates that did not pass the check"),
    "keeper_restarts_total": ("counter", "Times that a worker which checks records was lost"),
    "documents_held": ("gauge", "Documents that the workers which check records hold"),
    "check_oldest_seconds": ("gauge", "How long somebody's records have waited without any of them being looked at"),
    "commits_total": ("counter", "Steps of the log, each at most one commit"),
    "commit_seconds_total": ("counter", "Time spent in them"),
    "commit_longest_seconds": ("gauge", "The longest of them since the metrics were read last"),
    "loop_late_seconds": ("gauge", "The longest that a step had to wait for the event loop since then"),
    "pauses_total": ("counter", "Times that a client sent faster than it may"),
    "folds_total": ("counter", "Logs compacted"),
    "folds_failed_total": ("counter", "Logs that could not be compacted"),
    "condensed_total": ("counter", "Catch-ups made of parts of logs, for devices that came back"),
    "errors_total": ("counter", "Errors sent to clients, by code"),
}
_MESSAGES = {"sent": "frames_sent_total", "received": "frames_received_total"}
_BYTES = {"sent": "bytes_sent_total", "received": "bytes_received_total"}


class Metrics:
    """Counters of one relay. Use it from one thread."""

    def __init__(self) -> None:
        self._values: Counter[str] = Counter()
        self._longest: dict[str, float] = {}
        self._errors: Counter[int] = Counter()

    def count(self, name: str, by: float = 1) -> None:
        self._values[name] += by  # type: ignore[assignment]

    def count_messages(self, way: Literal["sent", "received"], messages: int, size: int) -> None:
        """So many messages, of so many bytes together, were sent to clients, or came from them."""
        self._values[_MESSAGES[way]] += messages
        self._values[_BYTES[way]] += size

    def note_step(self, counts: Mapping[str, float], times: Mapping[str, float]) -> None:
        """Add the counts of a step. ``times``: how long what happened in it took."""
        for name, by in counts.items():
            self._values[name] += by  # type: ignore[assignment]
        for name, seconds in times.items():
            if seconds > self._longest.get(name, 0.0):
                self._longest[name] = seconds

    def error(self, code: int) -> None:
        """An error was sent to a client."""
        self._errors[code] += 1

    def text(self, gauges: Mapping[str, float]) -> str:
        """All counters, ``gauges`` as they are now, and the longest of what was timed since this was called last."""
        longest, self._longest = self._longest, {}
        lines: list[str] = []
        for name, (kind, about) in _HELP.items():
            full = f"llmcrdt_relay_{name}"
            lines += (f"# HELP {full} {about}", f"# TYPE {full} {kind}")
            if name == "errors_total":
                lines += (f'{full}{{code="{code}"}} {n}' for code, n in sorted(self._errors.items()))
            else:
                value = gauges.get(name, longest.get(name, self._values[name]))
                lines.append(f"{full} {value:.6f}" if isinstance(value, float) else f"{full} {value}")
        return "\n".join(lines) + "\n"

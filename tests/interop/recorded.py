"""The suite of streams for the formats that are here, by name: each with its recorded streams."""

from __future__ import annotations

from pathlib import Path

from llmcrdt.interop.format import Format
from llmcrdt.interop.registry import format_of
from llmcrdt.testing.stream_suite import StreamSuite

VECTORS = Path(__file__).parents[1] / "vectors" / "interop"


class RecordedStreams(StreamSuite):
    """``api``: the format's name."""

    api: str

    @property
    def format(self) -> Format:
        return format_of(self.api)

    @property
    def recorded(self) -> Path:
        return VECTORS / self.api / "streams"

"""The findings of a benchmark: figures with their units, budgets and what they are compared with."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal


@dataclass(frozen=True)
class Figure:
    """One line. ``budget``: the most (or, with ``least``, the least) that is allowed; None: for information."""

    name: str
    value: float
    unit: str
    budget: float | None = None
    bound: Literal["most", "least"] = "most"

    @property
    def held(self) -> bool | None:
        if self.budget is None:
            return None
        return self.value <= self.budget if self.bound == "most" else self.value >= self.budget


@dataclass
class Report:
    """The figures of one run. ``notes``: what was left out or went wrong, a sentence each."""

    name: str
    figures: list[Figure] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(
        self,
        name: str,
        value: float,
        unit: str,
        budget: float | None = None,
        bound: Literal["most", "least"] = "most",
    ) -> None:
        self.figures.append(Figure(name, value, unit, budget, bound))

    def table(self) -> str:
        """For people."""
        width = max((len(figure.name) for figure in self.figures), default=0)
        lines = [f"{self.name}, Python {platform.python_version()}, {os.cpu_count()} cores"]
        for figure in self.figures:
            line = f"  {figure.name:{width}}  {_number(figure.value):>12} {figure.unit:10}"
            if figure.budget is not None:
                bound = "<=" if figure.bound == "most" else ">="
                line += f"  {'ok  ' if figure.held else 'OVER'} {bound} {_number(figure.budget)} {figure.unit}"
            lines.append(line.rstrip())
        return "\n".join([*lines, *self.notes])

    def as_json(self) -> dict[str, Any]:
        """For machines."""
        figures = [asdict(figure) | {"held": figure.held} for figure in self.figures]
        notes = {"notes": self.notes} if self.notes else {}
        return {"benchmark": self.name, "python": platform.python_version(), "figures": figures, **notes}


def seconds(do: Callable[[], object]) -> float:
    """How long one call takes."""
    start = time.perf_counter()
    do()
    return time.perf_counter() - start


def median(values: Sequence[float]) -> float:
    return statistics.median(values)


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:,.3g}"

"""The findings of a benchmark: figures with their units, budgets and what they are compared with."""

from __future__ import annotations

import math
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

AT = 10_000
"""The size that budgets are for."""


@dataclass(frozen=True)
class Figure:
    """One line. ``budget``: the most (or, with ``least``, the least) that is allowed; None: for information.
    ``by_size``: the value at each size that it was taken at; ``value`` is that of ``AT``, or of the largest below."""

    name: str
    value: float
    unit: str
    budget: float | None = None
    bound: Literal["most", "least"] = "most"
    by_size: Mapping[int, float] = field(default_factory=dict)

    @property
    def exponent(self) -> float | None:
        """The power of the size with which the value grows; None where it was not taken at several sizes."""
        return growth(self.by_size)

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

    def add_growing(self, name: str, by_size: Mapping[int, float], unit: str, budget: float | None = None) -> None:
        """A figure that was taken at several sizes; nothing where it was taken at none."""
        if by_size:
            at = max((size for size in by_size if size <= AT), default=min(by_size))
            self.figures.append(Figure(name, by_size[at], unit, budget, by_size=dict(by_size)))

    def table(self) -> str:
        """For people."""
        width = max((len(figure.name) for figure in self.figures), default=0)
        lines = [f"{self.name}, Python {platform.python_version()}, {os.cpu_count()} cores"]
        for figure in self.figures:
            line = f"  {figure.name:{width}}  {_number(figure.value):>12} {figure.unit:10}"
            if any(each.by_size for each in self.figures):
                grown = figure.exponent
                line += f" {'n^' + format(grown, '.2f') if grown is not None else '':7}"
            if figure.budget is not None:
                bound = "<=" if figure.bound == "most" else ">="
                line += f"  {'ok  ' if figure.held else 'OVER'} {bound} {_number(figure.budget)} {figure.unit}"
            larger = {size: value for size, value in figure.by_size.items() if size > AT}
            line += "".join(f"  ({size:,}: {_number(value)})" for size, value in larger.items())
            lines.append(line.rstrip())
        return "\n".join([*lines, *self.notes])

    def as_json(self) -> dict[str, Any]:
        """For machines."""
        figures = [asdict(figure) | {"held": figure.held, "exponent": figure.exponent} for figure in self.figures]
        notes = {"notes": self.notes} if self.notes else {}
        return {"benchmark": self.name, "python": platform.python_version(), "figures": figures, **notes}


def seconds(do: Callable[[], object]) -> float:
    """How long one call takes."""
    start = time.perf_counter()
    do()
    return time.perf_counter() - start


def growth(by_size: Mapping[int, float]) -> float | None:
    """The exponent b of value = a * size^b that fits best; None for fewer than two sizes, or where a value is 0."""
    if len(by_size) < 2 or min(by_size.values()) <= 0:
        return None
    sizes, values = [math.log(size) for size in by_size], [math.log(value) for value in by_size.values()]
    return statistics.linear_regression(sizes, values).slope


def median(values: Sequence[float]) -> float:
    return statistics.median(values)


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:,.3g}"

"""Curves over turns: in the terminal as text, and in a file by matplotlib."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from ..exceptions import LLMCRDTError

Curves = Mapping[str, Sequence[float]]
"""By label, one value a turn; all equally long, at least one."""

MARKS = "●○·"
"""Of the curves in their order; an earlier one is drawn over a later."""


def text_plot(curves: Curves, *, width: int = 60, height: int = 8) -> list[str]:
    """Lines of text: a linear scale from 0 to the greatest value, the turns from left to right, and a legend."""
    top = max(max(values) for values in curves.values()) or 1
    grid = [[" "] * width for _ in range(height)]
    for mark, values in reversed([*zip(MARKS, curves.values(), strict=False)]):
        for column in range(width):
            value = values[round(column * (len(values) - 1) / (width - 1))]
            grid[height - 1 - round(value / top * (height - 1))][column] = mark
    labels = [f"{top:,.0f}", *[""] * (height - 2), "0"]
    margin = max(map(len, labels))
    lines = [f"{label:>{margin}} ┤{''.join(row).rstrip()}" for label, row in zip(labels, grid, strict=True)]
    last = f"turn {len(next(iter(curves.values())))}"
    lines.append(f"{' ' * margin} └{'─' * width}")
    lines.append(f"{' ' * margin}  turn 1{last:>{width - 6}}")
    lines += [f"{' ' * margin}  {mark} {label}" for mark, label in zip(MARKS, curves, strict=False)]
    return lines


def check_plot(file: Path) -> None:
    """Raises LLMCRDTError where no plot could be written to this file."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
    except ImportError:
        raise LLMCRDTError(
            "A plot in a file needs matplotlib, not installed here.", hint="Install it: pip install 'llmcrdt[bench]'"
        ) from None
    known = FigureCanvasAgg.get_supported_filetypes()
    if file.suffix.lstrip(".").lower() not in known:
        raise LLMCRDTError(
            f"{file.name} doesn't say what kind of picture it is to be.", hint=f"End it with .{', .'.join(known)}."
        )
    if not file.absolute().parent.is_dir():
        raise LLMCRDTError(f"There is no folder {file.absolute().parent}.", hint="Make it first.")


def write_plot(charts: Mapping[str, Curves], file: Path) -> None:
    """Write a picture with one chart beside the other, each under its title."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.5 * len(charts), 4.2), dpi=110, layout="constrained")
    for axes, (title, curves) in zip(figure.subplots(1, len(charts), squeeze=False)[0], charts.items(), strict=True):
        for (label, values), style in zip(curves.items(), ("-", "--", ":"), strict=False):
            heavy = 2.4 if style == "-" else 1.4
            axes.plot(range(1, len(values) + 1), values, style, color="black", linewidth=heavy, label=label)
        axes.set(xlabel="turn", title=title, ylim=(0, None))
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize=9)
    figure.savefig(file)

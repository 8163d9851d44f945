"""The plot of ``kv``: time to first token by turn, one line a way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

# Line and marker tell the ways apart without colour; ours is the heavy one.
_STYLES = {
    "no cache": ("no cache: all evaluated again", "0.45", "-", "s"),
    "LlamaDiskCache": ("llama-cpp-python, LlamaDiskCache", "tab:orange", ":", "^"),
    "LlamaRAMCache": ("llama-cpp-python, LlamaRAMCache", "tab:green", "-.", "D"),
    "live context": ("llama.cpp, live context", "tab:blue", "--", "o"),
    "llmcrdt": ("llmcrdt", "black", "-", "x"),
}


def draw(by_turn: Mapping[str, Sequence[float]], by_step: Mapping[str, Mapping[str, float]], file: Path) -> None:
    """Write a PNG. ``by_turn``, ``by_step``: seconds of each way, for the turns of a conversation, then for the steps
    after its last turn."""
    figure = Figure(figsize=(10, 4.8), dpi=110, layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(3, 2))
    for way, (label, colour, line, marker) in _STYLES.items():
        heavy = 2.4 if way == "llmcrdt" else 1.3
        style = {"color": colour, "marker": marker, "markersize": 6, "markerfacecolor": "none"}
        turns = range(1, len(by_turn[way]) + 1)
        left.plot(turns, [1000 * s for s in by_turn[way]], label=label, linestyle=line, linewidth=heavy, **style)
        right.plot(
            range(len(by_step[way])), [1000 * s for s in by_step[way].values()],
            linestyle="none", markeredgewidth=heavy, **style,
        )  # fmt: skip
    left.set_yscale("log")
    low, high = left.get_ylim()
    ticks = [step * 10**power for power in range(-1, 6) for step in (1, 2, 5)]
    left.yaxis.set_major_locator(FixedLocator([tick for tick in ticks if low <= tick <= high]))
    left.yaxis.set_minor_locator(NullLocator())
    left.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    count = max(map(len, by_turn.values()))
    left.set_xticks(range(1, count + 1, 1 if count < 12 else 2 if count < 30 else 5))
    left.set(xlabel="turn of the conversation", ylabel="time to first token (ms, log scale)")
    steps = list(next(iter(by_step.values())))
    right.set_xticks(range(len(steps)), [step.replace(" in the ", "\nin the ") for step in steps])
    right.set(xlabel="after the last turn", xlim=(-0.5, len(steps) - 0.5))
    for axes in (left, right):
        axes.grid(visible=True, which="major", linewidth=0.4, color="0.85")
        axes.spines[["top", "right"]].set_visible(False)
    figure.legend(frameon=False, fontsize=9, loc="outside upper left", ncols=3)
    figure.savefig(file, format="png", metadata={"Software": None})

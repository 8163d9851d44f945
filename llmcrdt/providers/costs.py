"""The price of an answer: as its provider says it, or by prices that the user gives. No price stands in the code."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import TypedDict

from ..document.canonical import JSON
from ..exceptions import InvalidContent

PRICED = "priced"
"""The key in an entry's ``usage``."""
_MILLION = 1_000_000
_HINT = 'Write {"anthropic/NAME": {"prompt": 3, "cached": 0.3, "written": 3.75, "output": 15, "currency": "USD"}}.'


class Cost(TypedDict):
    """``by``: "provider", as the answer said, or "prices", those of the user."""

    amount: float
    currency: str
    by: str


@dataclass(frozen=True)
class Tokens:
    """The tokens of one answer, None where nobody said: of the whole prompt, of the answer, and of the prompt those
    that were in the provider's cache, and those that were written to it."""

    prompt: int | None = None
    output: int | None = None
    cached: int | None = None
    written: int | None = None


@dataclass(frozen=True)
class Prices:
    """Of a million tokens each. ``cached``: of those of the prompt that were in the provider's cache, ``written``: of
    those that were written to it; None: as all others of the prompt."""

    prompt: float
    output: float
    cached: float | None = None
    written: float | None = None
    currency: str = "USD"

    def cost(self, tokens: Tokens) -> Cost | None:
        """The price of an answer; None where nobody said how many tokens it took."""
        if tokens.prompt is None or tokens.output is None:
            return None
        cached, written = tokens.cached or 0, tokens.written or 0
        each = (
            (tokens.prompt - cached - written, self.prompt),
            (cached, self.prompt if self.cached is None else self.cached),
            (written, self.prompt if self.written is None else self.written),
            (tokens.output, self.output),
        )
        total = sum((count * Decimal(str(price)) for count, price in each), Decimal()) / _MILLION
        return {"amount": float(total), "currency": self.currency, "by": "prices"}


def prices_of(value: JSON, name: str = "prices") -> Prices:
    """Prices as JSON has them. Raises InvalidContent."""
    known = {"prompt", "output", "cached", "written"}
    if not isinstance(value, Mapping) or not {"prompt", "output"} <= value.keys() <= {*known, "currency"}:
        raise InvalidContent(f"{name} has no prices of prompt and output, or others beside.", hint=_HINT)
    currency = value.get("currency", "USD")
    numbers = {key: value[key] for key in known & value.keys()}
    if not isinstance(currency, str) or not all(_is_price(number) for number in numbers.values()):
        raise InvalidContent(f"{name} has a price that is no number, or a currency that is no text.", hint=_HINT)
    return Prices(**numbers, currency=currency)


def read_prices(path: Path, name: str) -> Prices | None:
    """The prices of a model in the user's file, by the name that ``--model`` takes; None where it has none. Raises
    InvalidContent for a file that can't be read."""
    try:
        listed = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InvalidContent(f"The file of prices {path} can't be read: {error}.", hint=_HINT) from None
    if not isinstance(listed, Mapping):
        raise InvalidContent(f"The file of prices {path} is no JSON object.", hint=_HINT)
    return prices_of(listed[name], f"{name} in {path}") if name in listed else None


def _is_price(value: JSON) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < float("inf")


def total_costs(usages: Iterable[Mapping[str, JSON]]) -> dict[str, float]:
    """The sum of the prices that are kept in these, by currency."""
    found: dict[str, Decimal] = {}
    for usage in usages:
        priced = usage.get(PRICED)
        if isinstance(priced, Mapping):  # anybody may have written it
            amount, currency = priced.get("amount"), priced.get("currency")
            if _is_price(amount) and isinstance(currency, str):
                found[currency] = found.get(currency, Decimal()) + Decimal(str(amount))
    return {currency: float(found[currency]) for currency in sorted(found)}

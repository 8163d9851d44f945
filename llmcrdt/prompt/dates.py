"""``strftime_now`` for templates, without a clock and without a locale: two devices print the same date.

The date is that of the newest config part, else the day the conversation began.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from ..document.canonical import JSON

_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_MONTHS = (
    *("January", "February", "March", "April", "May", "June"),
    *("July", "August", "September", "October", "November", "December"),
)
_DIRECTIVE = re.compile(r"%([-#_0]?)([A-Za-z%])")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_WHOLE = {
    "c": "%a %b %e %H:%M:%S %Y",
    "x": "%m/%d/%y",
    "X": "%H:%M:%S",
    "D": "%m/%d/%y",
    "F": "%Y-%m-%d",
    "T": "%H:%M:%S",
}


def moment(date: JSON, created_at: float) -> datetime:
    """The moment a prompt speaks of: ``date`` (ISO 8601 text, or seconds since 1970), else ``created_at``. In UTC."""
    if isinstance(date, str):
        try:
            parsed = datetime.fromisoformat(date)
            return parsed.replace(tzinfo=UTC) if parsed.tzinfo is None else parsed.astimezone(UTC)
        except (ValueError, OverflowError):
            date = None
    seconds = date if isinstance(date, (int, float)) and not isinstance(date, bool) else created_at
    try:
        return _EPOCH + timedelta(seconds=seconds)
    except (ValueError, OverflowError):
        return _EPOCH


def strftime(when: datetime, form: str) -> str:
    """``when`` in English, by the directives of C's strftime. Anything that is no directive stays as it is."""
    fields = _fields(when)

    def put(match: re.Match[str]) -> str:
        if match[2] in _WHOLE:
            return strftime(when, _WHOLE[match[2]])
        text = fields.get(match[2])
        if text is None:
            return match[0]
        if match[1] in ("-", "#"):
            return text.lstrip("0") or "0" if text.isdecimal() else text
        return text

    return _DIRECTIVE.sub(put, form)


def _fields(when: datetime) -> dict[str, str]:
    day, month, hour = _DAYS[when.weekday()], _MONTHS[when.month - 1], (when.hour + 11) % 12 + 1
    year, week, weekday = when.isocalendar()
    return {
        "%": "%", "a": day[:3], "A": day, "b": month[:3], "h": month[:3], "B": month,
        "d": f"{when.day:02}", "e": f"{when.day:2}", "m": f"{when.month:02}", "y": f"{when.year % 100:02}",
        "Y": f"{when.year:04}", "H": f"{when.hour:02}", "I": f"{hour:02}", "M": f"{when.minute:02}",
        "S": f"{when.second:02}", "f": f"{when.microsecond:06}", "p": "AM" if when.hour < 12 else "PM",
        "j": f"{when.timetuple().tm_yday:03}", "z": "+0000", "Z": "UTC", "s": str(int(when.timestamp())),
        "u": str(weekday), "w": str(weekday % 7), "G": f"{year:04}", "V": f"{week:02}",
    }  # fmt: skip

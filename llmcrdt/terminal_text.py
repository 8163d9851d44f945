"""Other people's words on a terminal."""

from __future__ import annotations

import unicodedata


def safe(text: str) -> str:
    """Other people's text without the characters that a terminal would obey."""
    return "".join(c if c in "\n\t" or not unicodedata.category(c).startswith("C") else "\ufffd" for c in text)

"""Whether bytes are a JSON object (RFC 8259), without making anything of it: to Python a list of two bytes is an object
of sixty, and a stranger may send thousands.

One expression matches values that hold no containers, or only such that hold none; deeper nesting is followed with a
stack of brackets, so that depth has no limit but the size.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Final

# All in UTF-8, so that a text need not be made to find out that it is none.
_WIDE = (
    rb"[\xc2-\xdf][\x80-\xbf]|\xe0[\xa0-\xbf][\x80-\xbf]|[\xe1-\xec\xee\xef][\x80-\xbf]{2}|\xed[\x80-\x9f][\x80-\xbf]"
    rb"|\xf0[\x90-\xbf][\x80-\xbf]{2}|[\xf1-\xf3][\x80-\xbf]{3}|\xf4[\x80-\x8f][\x80-\xbf]{2}"
)
_STRING = rb'"(?:[ !#-\[\]-\x7f]++|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})|' + _WIDE + rb')*+"'
_NUMBER = rb"-?(?:0|[1-9][0-9]*+)(?:\.[0-9]++)?+(?:[eE][+-]?[0-9]++)?+"
_SPACE = rb"[ \t\n\r]*+"
_KEY = _STRING + _SPACE + rb":" + _SPACE
_SCALAR = rb"(?:" + _STRING + rb"|" + _NUMBER + rb"|true|false|null)"


def _flat(key: bytes, opener: bytes, closer: bytes) -> bytes:
    """A container of scalars."""
    return (
        opener + _SPACE + rb"(?:" + key + _SCALAR + _SPACE
        + rb"(?:," + _SPACE + rb"(?!" + closer + rb")|(?=" + closer + rb")))*+" + closer
    )  # fmt: skip


_VALUE = rb"(?:" + _SCALAR + rb"|" + _flat(b"", rb"\[", rb"\]") + rb"|" + _flat(_KEY, rb"\{", rb"\}") + rb")"
_OPENERS = rb"((?:\[" + _SPACE + rb"(?=[\[{]))*+[\[{])"


@cache
def _step(opener: int, rest: bool) -> re.Pattern[bytes]:
    """From inside a container to where others open in it, or it closes, perhaps with those around it. ``rest``: after
    a value, not at its beginning. Compiled where it is used first: that takes 10 ms, and most processes check none."""
    key, closer = (b"", rb"\]") if opener == 0x5B else (_KEY, rb"\}")
    closers = rb"(" + closer + rb"(?:" + _SPACE + rb"[\]}])*+)"
    more = (
        rb"(?:" + key + _VALUE + _SPACE + rb"," + _SPACE + rb")*+"
        + key + rb"(?:" + _VALUE + _SPACE + closers + rb"|" + _OPENERS + rb")"
    )  # fmt: skip
    return re.compile(_SPACE + rb"(?:" + closers + rb"|" + (rb"," + _SPACE if rest else b"") + more + rb")")


_BEGIN: Final = re.compile(_SPACE + rb"\{")
_END: Final = re.compile(_SPACE)
_OPENER_OF: Final = bytes.maketrans(b"]}", b"[{")


def is_object(data: bytes, start: int, end: int) -> bool:
    """Whether the bytes from ``start`` to ``end`` are the text of one JSON object."""
    found = _BEGIN.match(data, start, end)
    if found is None:
        return False
    # The brackets that are open, and whether the last has just been.
    stack, opened = bytearray(b"{"), True
    while stack:
        found = _step(stack[-1], not opened).match(data, found.end(), end)
        if found is None:
            return False
        brackets = found[found.lastindex or 0].translate(_OPENER_OF, b" \t\n\r")
        opened = data[found.end() - 1] in b"[{"
        if opened:
            stack += brackets
        elif stack.endswith(brackets[::-1]):
            del stack[-len(brackets) :]
        else:
            return False
    return _END.fullmatch(data, found.end(), end) is not None

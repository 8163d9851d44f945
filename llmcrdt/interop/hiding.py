"""Opaque values are cut out of a provider's JSON when it is read, and put back where they stood when it is written.

An entry is a list of blocks, as its provider has them. A ``Place`` says in which blocks, and where in them, a value
stands that people don't see. All that ``hide`` cuts out of one entry for one name is one hidden field: a JSON list of
``[path, value]``, where a path begins with the block's index. ``restore`` puts a value only where a place of this name
allows one, whoever wrote the field. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from ..document.canonical import JSON, exact_json, parse_json
from ..document.entry import HiddenField
from ..exceptions import InvalidContent

ANY = "*"
"""In a path: every item of a list. As the type of a block: every one."""


@dataclass(frozen=True)
class Place:
    """``name``: the hidden field that takes the values. ``type``: of the blocks that have them. ``path``: where in a
    block. ``accepts``: which values may be put back."""

    name: str
    type: str
    path: tuple[str, ...]
    accepts: Callable[[JSON], bool] = lambda value: isinstance(value, str)


def type_of(block: JSON) -> str:
    """The type that a block says it has; "" where it says none."""
    kind = block.get("type") if isinstance(block, dict) else None
    return kind if isinstance(kind, str) else ""


def hide(
    blocks: Sequence[JSON], places: Sequence[Place], kind_of: Callable[[JSON], str] = type_of
) -> tuple[list[JSON], dict[str, list[JSON]]]:
    """The blocks without what the places name, and by name the values with their paths. Nothing that was passed is
    changed."""
    found: dict[str, list[JSON]] = {}
    out: list[JSON] = []
    for index, block in enumerate(blocks):
        cut: JSON = block
        for place in places:
            if place.type in (ANY, kind_of(block)):
                for path in list(_paths(cut, place.path)):
                    if place.accepts(_at(cut, path)):
                        cut, value = _without(cut, path)
                        found.setdefault(place.name, []).append([[index, *path], value])
        out.append(cut)
    return out, found


def hidden_fields(
    found: Mapping[str, list[JSON]], bindings: Callable[[str], Mapping[str, JSON]]
) -> dict[str, HiddenField]:
    """All that ``hide`` cut out, as hidden fields; ``bindings``: that of each name."""
    return {name: HiddenField(exact_json(values).encode(), bindings(name)) for name, values in found.items()}


def restore(
    blocks: Sequence[JSON],
    hidden: Mapping[str, HiddenField],
    places: Sequence[Place],
    kind_of: Callable[[JSON], str] = type_of,
) -> list[JSON]:
    """The blocks with the values of the hidden fields, each where it stood. A value that fits nowhere is left out, and
    so is what stands in such a place already: it goes out as a hidden field, or not at all."""
    out, _ = hide(blocks, [replace(place, accepts=lambda value: True) for place in places], kind_of)
    for name in sorted({place.name for place in places} & hidden.keys()):
        for path, value in _placed(hidden[name]):
            index, inner = path[0], tuple(path[1:])
            if not isinstance(index, int) or not 0 <= index < len(out):
                continue
            allowed = any(
                place.name == name
                and place.type in (ANY, kind_of(out[index]))
                and _fits(inner, place.path)
                and place.accepts(value)
                for place in places
            )
            if allowed:
                out[index] = _with(out[index], inner, value)
    return out


def values_of(field: HiddenField) -> list[JSON]:
    """The values that a field holds."""
    return [value for _, value in _placed(field)]


def _placed(field: HiddenField) -> Iterator[tuple[list[JSON], JSON]]:
    """The values of a field that anybody may have written, each with its place."""
    try:
        listed = parse_json(field.data.decode("utf-8"))
    except (InvalidContent, UnicodeDecodeError):
        return
    for item in listed if isinstance(listed, list) else ():
        if isinstance(item, list) and len(item) == 2 and isinstance(item[0], list) and len(item[0]) > 1:
            yield item[0], item[1]


def _paths(value: JSON, path: tuple[str, ...]) -> Iterator[tuple[str | int, ...]]:
    """The places in ``value`` that a path with ``ANY`` names."""
    if not path:
        yield ()
        return
    key, rest = path[0], path[1:]
    if key == ANY:
        if isinstance(value, list):
            for index, item in enumerate(value):
                yield from ((index, *inner) for inner in _paths(item, rest))
    elif isinstance(value, dict) and key in value:
        yield from ((key, *inner) for inner in _paths(value[key], rest))


def _fits(path: Sequence[JSON], pattern: Sequence[str]) -> bool:
    return len(path) == len(pattern) and all(
        isinstance(key, int) and not isinstance(key, bool) if wanted == ANY else key == wanted
        for key, wanted in zip(path, pattern, strict=True)
    )


def _at(value: JSON, path: Sequence[str | int]) -> JSON:
    for key in path:
        value = value[key]
    return value


def _without(value: JSON, path: Sequence[str | int]) -> tuple[JSON, JSON]:
    """A copy without what stands at ``path``, and that."""
    key, rest = path[0], path[1:]
    copy: JSON = dict(value) if isinstance(value, dict) else list(value)
    if not rest:
        return copy, copy.pop(key)
    copy[key], taken = _without(value[key], rest)
    return copy, taken


def _with(value: JSON, path: Sequence[JSON], new: JSON) -> JSON:
    """A copy with ``new`` at ``path``, whose last key is that of an object; ``value`` where there is no such place."""
    key, rest = path[0], path[1:]
    if isinstance(key, str) and isinstance(value, dict):
        if not rest:
            return value if key in value else {**value, key: new}
        return {**value, key: _with(value[key], rest, new)} if key in value else value
    if isinstance(key, int) and isinstance(value, list) and 0 <= key < len(value) and rest:
        return [*value[:key], _with(value[key], rest, new), *value[key + 1 :]]
    return value

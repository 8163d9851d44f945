"""Content blocks of the Model Context Protocol (MCP) <-> parts: what its tools answer, and its prompts say.

``parts_of_result`` and ``result_of`` are for the result of a tool call, ``parts_of`` and ``content_of`` for content
anywhere else. Text is text for every format: that of a block, of a resource that stands in there, and the address of
one that is linked to; of a result without any, its structured content as JSON. Pictures, sound and other resources are
blocks, which each format writes as it writes those of others (``pictures.py``). All else (annotations, ``_meta``,
structured content, unknown fields) is kept beside the part it belongs to, and is written to MCP alone. Pure.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence

from ..document.blob import Blob
from ..document.canonical import JSON, exact_json
from ..document.entry import Part, Text, ToolResult
from .format import ReadBlob
from .hiding import type_of
from .json_input import bad, check_json, list_at, object_at, text_at
from .native import Native, mapping
from .pictures import is_attachment, note_of, picture_of

_NATIVE = Native("mcp")
_MEDIA = ("image", "audio")
_MADE = "made"
"""In the rest of a part: its text stands in no block."""


def parts_of(content: JSON, kind: type[Text] | type[ToolResult] = Text) -> tuple[Part, ...]:
    """The parts of content: a block, or a list of them. ``kind``: ``ToolResult`` in an entry of a tool's. Raises
    FormatError, with the path of the bad value."""
    check_json(content)
    if isinstance(content, dict):
        return (*_parts([content], kind, False), *_NATIVE.whole({"single": True}))
    return _parts(content, kind, False)


def content_of(parts: Sequence[Part], read_blob: ReadBlob = lambda blob: None) -> JSON:
    """The content that parts are, whatever format they came from: one block where it was one, else a list. Thoughts and
    calls are left out. ``read_blob`` gives the content of an attachment."""
    blocks = list(_blocks(parts, read_blob))
    return blocks[0] if len(blocks) == 1 and _NATIVE.whole_of(parts).get("single") is True else blocks


def parts_of_result(result: JSON) -> tuple[Part, ...]:
    """The parts of the result of a tool call, for ``conv.append("tool", parts, call=call)``. Raises FormatError."""
    check_json(result)
    whole = object_at(result, "The result")
    failed = whole.get("isError") is True
    parts = list(_parts(whole.get("content", []), ToolResult, failed))
    structured = {"structured": whole["structuredContent"]} if "structuredContent" in whole else {}
    at = next((i for i, part in enumerate(parts) if isinstance(part, ToolResult)), None)
    if at is None:
        said = exact_json(structured["structured"]) if structured else ""
        parts.append(ToolResult(said, failed, _NATIVE.extra({_MADE: True, **structured})))
    else:
        first = parts[at]
        parts[at] = ToolResult(first.text, failed, _NATIVE.extra({**_NATIVE.rest_of(first), **structured}))  # type: ignore[union-attr]
    kept = {key: value for key, value in whole.items() if key not in ("content", "structuredContent", "isError")}
    told = {"isError": False} if whole.get("isError") is False else {}
    absent = {} if "content" in whole else {"absent": True}
    return (*parts, *_NATIVE.whole({**({"fields": kept} if kept else {}), **told, **absent}))


def result_of(parts: Sequence[Part], read_blob: ReadBlob = lambda blob: None) -> dict[str, JSON]:
    """The result of a tool call that the parts of an entry are, whatever format they came from. Structured content goes
    with the text that it came with, and no other."""
    kept = _NATIVE.whole_of(parts)
    texts = [part for part in parts if isinstance(part, ToolResult)]
    made: dict[str, JSON] = {
        key: value
        for key, value in mapping(kept.get("fields")).items()
        if key not in ("content", "structuredContent", "isError")
    }
    blocks = list(_blocks(parts, read_blob))
    if blocks or kept.get("absent") is not True:
        made["content"] = blocks
    for part in texts:
        if "structured" in _NATIVE.rest_of(part):
            made["structuredContent"] = _NATIVE.rest_of(part)["structured"]
    if texts and all(part.error for part in texts):
        made["isError"] = True
    elif kept.get("isError") is False:
        made["isError"] = False
    return made


# -- reading


def _parts(blocks: JSON, kind: type[Text] | type[ToolResult], failed: bool) -> tuple[Part, ...]:
    listed = list_at(blocks, "content")
    return tuple(
        _part(object_at(block, f"content[{i}]"), f"content[{i}]", kind, failed) for i, block in enumerate(listed)
    )


def _part(block: Mapping[str, JSON], path: str, kind: type[Text] | type[ToolResult], failed: bool) -> Part:
    of = text_at(block.get("type"), f"{path}.type")
    others = {key: value for key, value in block.items() if key not in ("type", "text")}
    rest: dict[str, JSON] = {"fields": others} if others else {}
    said: str | None = None
    if of == "text":
        said = text_at(block.get("text"), f"{path}.text")
    elif of == "resource":
        inner = object_at(block.get("resource"), f"{path}.resource")
        text_at(inner.get("uri"), f"{path}.resource.uri")
        if "text" in inner:
            said = text_at(inner["text"], f"{path}.resource.text")
            rest = {"block": {**block, "resource": {key: value for key, value in inner.items() if key != "text"}}}
        elif not isinstance(inner.get("blob"), str):
            raise bad(f"{path}.resource", "has neither text nor blob", "Pass the resource with its contents.")
    elif of == "resource_link":
        said = text_at(block.get("uri"), f"{path}.uri")
        rest = {"block": {key: value for key, value in block.items() if key != "uri"}}
    elif of in _MEDIA:
        text_at(block.get("data"), f"{path}.data")
        text_at(block.get("mimeType"), f"{path}.mimeType")
    if said is None:
        return _NATIVE.block(dict(block))
    extra = _NATIVE.extra(rest)
    return Text(said, extra) if kind is Text else ToolResult(said, failed, extra)


# -- writing


def _blocks(parts: Sequence[Part], read_blob: ReadBlob) -> Iterator[JSON]:
    for part in _NATIVE.said(parts):
        if isinstance(part, (Text, ToolResult)):
            rest = _NATIVE.rest_of(part)
            if rest.get(_MADE) is not True:
                yield _text(part.text, rest)
        elif is_attachment(part):
            own = _NATIVE.block_of(part)
            yield own if isinstance(own, dict) and _is_whole(own) else _of_others(part, read_blob)


def _text(said: str, rest: Mapping[str, JSON]) -> JSON:
    own = mapping(rest.get("block"))
    resource = mapping(own.get("resource"))
    if type_of(own) == "resource" and isinstance(resource.get("uri"), str):
        return {**own, "resource": {**resource, "text": said}}
    if type_of(own) == "resource_link":
        return {**own, "uri": said}
    return {**mapping(rest.get("fields")), "type": "text", "text": said}


def _is_whole(block: Mapping[str, JSON]) -> bool:
    """Whether a block has what its type wants; anybody may have written it."""
    of, inner = type_of(block), mapping(block.get("resource"))
    if of in _MEDIA:
        return isinstance(block.get("data"), str) and isinstance(block.get("mimeType"), str)
    if of == "resource":
        return isinstance(inner.get("uri"), str) and isinstance(inner.get("blob"), str) and "text" not in inner
    return bool(of) and of not in ("text", "resource_link")


def _of_others(part: Part, read_blob: ReadBlob) -> JSON:
    """A block of what people attached, or what another format keeps."""
    picture = picture_of(part, read_blob)
    if picture is not None and picture.data:
        return {"type": "image", "data": picture.data, "mimeType": picture.media_type}
    if picture is not None:
        return {"type": "resource_link", "uri": picture.url, "name": picture.url}
    content = read_blob(part) if isinstance(part, Blob) else None
    if isinstance(part, Blob) and content is not None:
        data = base64.b64encode(content).decode("ascii")
        if part.media_type.startswith("audio/"):
            return {"type": "audio", "data": data, "mimeType": part.media_type}
        resource = {"uri": f"attachment:{part.name or part.hash}", "mimeType": part.media_type, "blob": data}
        return {"type": "resource", "resource": resource}
    return {"type": "text", "text": note_of(part)}

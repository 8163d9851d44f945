"""Pictures and other attachments, as each format writes them; so that one format's picture is another one's. Pure."""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass

from ..document.blob import Blob
from ..document.canonical import JSON
from ..document.entry import Part, Unknown
from .format import ReadBlob
from .native import is_native_type, mapping, native_block

_DATA_URI = re.compile(r"data:([^;,]+);base64,([A-Za-z0-9+/=_-]*)")


@dataclass(frozen=True)
class Picture:
    """A picture: ``data`` in base64 (the alphabet with + and /) with its ``media_type``, or a ``url``."""

    media_type: str = ""
    data: str = ""
    url: str = ""

    @property
    def as_url(self) -> str:
        """Its URL, a data: one where it is here."""
        return self.url or f"data:{self.media_type};base64,{self.data}"


def picture_of(part: Part, read_blob: ReadBlob) -> Picture | None:
    """The picture that a part shows, whichever format it came from."""
    if isinstance(part, Blob):
        content = read_blob(part) if part.media_type.startswith("image/") else None
        return Picture(part.media_type, base64.b64encode(content).decode("ascii")) if content is not None else None
    if not isinstance(part, Unknown):
        return None
    block = native_block(part)
    if block is None:
        return _of_url(mapping(part.json.get("image_url")).get("url")) if part.type == "image_url" else None
    source = mapping(block.get("source"))
    inline, file = mapping(block.get("inlineData")), mapping(block.get("fileData"))
    if block.get("type") == "image" and source.get("type") == "base64":
        return _of_data(source.get("media_type"), source.get("data"))
    if block.get("type") == "image" and source.get("type") == "url":
        return _of_url(source.get("url"))
    if block.get("type") == "image" and isinstance(block.get("data"), str):
        named = block.get("mime_type", block.get("mimeType", _media_type(block["data"])))  # Google's, MCP's, Ollama's
        return _of_data(named, block["data"])
    if block.get("type") == "image" and isinstance(block.get("uri"), str):
        return _of_url(block["uri"])
    resource = mapping(block.get("resource"))
    if block.get("type") == "resource" and isinstance(resource.get("blob"), str):  # MCP's
        return _of_data(resource.get("mimeType"), resource["blob"])
    if block.get("type") == "input_image":
        return _of_url(block.get("image_url"))
    if block.get("type") == "file" and str(block.get("mediaType")).startswith("image/"):
        return _of_url(block.get("url"))
    if inline:
        return _of_data(inline.get("mimeType"), inline.get("data"))
    if str(file.get("mimeType")).startswith("image/"):
        return _of_url(file.get("fileUri"))
    return None


def note_of(part: Part) -> str:
    """Words in the place of something that a format can't take."""
    if isinstance(part, Blob):
        what = ", ".join(filter(None, (part.name, part.media_type, f"{part.size} bytes")))
        return f"[attachment: {what}]"
    block = native_block(part)
    kind = block.get("type") if block is not None else getattr(part, "type", "")
    return f"[attachment: {kind if isinstance(kind, str) and kind else 'of another kind'}]"


def beside_result(tool: str) -> str:
    """The words before the pictures of a result, where an API takes them from users alone."""
    return f"Attached to the result of {tool}:"


def is_attachment(part: Part) -> bool:
    """Whether a part is something that people have attached, and not what a format keeps for itself."""
    return isinstance(part, Blob) or (isinstance(part, Unknown) and not _is_whole(part))


def _is_whole(part: Unknown) -> bool:
    return (is_native_type(part.type) and part.type.endswith("/message")) or part.type.startswith("openai_chat/")


def _of_data(media_type: JSON, data: JSON) -> Picture | None:
    if not isinstance(media_type, str) or not media_type.startswith("image/") or not isinstance(data, str):
        return None
    return Picture(media_type, data.replace("-", "+").replace("_", "/"))


def _of_url(url: JSON) -> Picture | None:
    if not isinstance(url, str) or not url:
        return None
    found = _DATA_URI.fullmatch(url)
    return _of_data(found[1], found[2]) if found else Picture(url=url)


def _media_type(data: str) -> str:
    """The type of a picture by its first bytes, in base64."""
    signs = {"iVBOR": "image/png", "/9j/": "image/jpeg", "R0lGOD": "image/gif", "UklGR": "image/webp"}
    return next((kind for sign, kind in signs.items() if data.startswith(sign)), "image/png")

"""``/v1/models``: which models there are, as OpenAI's API says it, or Anthropic's where its header is there."""

from __future__ import annotations

from datetime import UTC, datetime

from starlette.requests import Request
from starlette.responses import Response

from ...document.canonical import JSON
from .api import json_response
from .turns import Turns


async def listed(request: Request, turns: Turns, since: float) -> Response:
    """All of them; ``since``: the time of the server's start."""
    found = [_model(request, name, since) for name in turns.models]
    if "anthropic-version" in request.headers:
        names = list(turns.models)
        return json_response({"data": found, "has_more": False, "first_id": names[0], "last_id": names[-1]})
    return json_response({"object": "list", "data": found})


async def one(request: Request, turns: Turns, since: float) -> Response:
    """The one that the path names. Raises HttpError."""
    name = request.path_params["model"]
    turns.engine(name)
    return json_response(_model(request, name, since))


def _model(request: Request, name: str, since: float) -> JSON:
    if "anthropic-version" in request.headers:
        made = datetime.fromtimestamp(int(since), UTC).isoformat().replace("+00:00", "Z")
        return {"type": "model", "id": name, "display_name": name, "created_at": made}
    return {"id": name, "object": "model", "created": int(since), "owned_by": "llmcrdt"}

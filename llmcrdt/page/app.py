"""The page's routes: its files, what it reads, what it does, and what changes. Wires views, actions and changes."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Any, BinaryIO, TypeVar, cast

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from ..document.blob import Blob
from ..document.conversation import Conversation
from ..document.entry import Part, Text
from ..engine.base import Engine
from ..exceptions import (
    BlobMissing,
    ConversationNotFound,
    EngineError,
    EntryNotFound,
    InvalidContent,
    LLMCRDTError,
    NotSealed,
    PromptError,
    RepoClosed,
    SyncError,
    Withheld,
)
from ..generation.coverage import coverage
from ..ids import EntryId
from ..repo.repo import Repo
from ..sync.link import Link
from .actions import ACTIONS
from .changes import conversation_changes, library_changes, library_json, link_json
from .views import PICTURES, ask_json, elsewhere_json, tree_json, window_json

STATIC = Path(__file__).parent / "static"
MAX_BODY = 8 << 20  # bytes of a request but attachments
MAX_ATTACHMENT = 1 << 30  # bytes
MAX_LAST = 2_000  # entries of one window
T = TypeVar("T")

STATUS: Mapping[type[LLMCRDTError], HTTPStatus] = {
    ConversationNotFound: HTTPStatus.NOT_FOUND,
    EntryNotFound: HTTPStatus.NOT_FOUND,
    BlobMissing: HTTPStatus.NOT_FOUND,
    InvalidContent: HTTPStatus.BAD_REQUEST,
    NotSealed: HTTPStatus.CONFLICT,
    Withheld: HTTPStatus.CONFLICT,
    RepoClosed: HTTPStatus.GONE,
    SyncError: HTTPStatus.BAD_GATEWAY,
}
"""The status of each error; 500 for others."""


class PageApp:
    """The application over one repo. ``models``: the names that asks may use here; ``engine``: the one whose KV cache
    the page shows. ``stopping``: whether streams of changes are to end."""

    def __init__(
        self,
        repo: Repo,
        *,
        link: Link | None,
        models: Mapping[str, Engine | None],
        stopping: Callable[[], bool],
    ) -> None:
        self._repo, self._link, self._models, self._stopping = repo, link, models, stopping
        self._engine = next((engine for engine in models.values() if engine is not None), None)

    def routes(self) -> Starlette:
        """All of it as one ASGI application."""
        return Starlette(
            routes=[
                Route("/", self._index),
                Mount("/static", StaticFiles(directory=STATIC)),
                Route("/api/library", self._library),
                Route("/api/search", self._search),
                Route("/api/changes", self._library_changes),
                Route("/api/conversations", self._create, methods=["POST"]),
                Route("/api/conversations/{id}", self._window),
                Route("/api/conversations/{id}/changes", self._conversation_changes),
                Route("/api/conversations/{id}/tree", self._tree),
                Route("/api/conversations/{id}/elsewhere", self._elsewhere),
                Route("/api/conversations/{id}/cache", self._cache),
                Route("/api/conversations/{id}/attach", self._attach, methods=["POST"]),
                Route("/api/conversations/{id}/{action}", self._act, methods=["POST"]),
                Route("/api/blobs/{hash}", self._blob),
            ],
            exception_handlers={LLMCRDTError: _refused, ClientDisconnect: _left},
        )

    async def _index(self, request: Request) -> Response:
        return FileResponse(STATIC / "index.html")

    async def _library(self, request: Request) -> Response:
        before = request.query_params.get("before")
        found = await run_in_threadpool(library_json, self._repo, 200, before)
        return JSONResponse({**found, "link": link_json(self._link), "models": list(self._models)})

    async def _search(self, request: Request) -> Response:
        hits = await run_in_threadpool(self._repo.search, request.query_params.get("text", ""), 50, elsewhere=True)
        rows = [
            {
                "conversation": hit.conversation,
                "title": hit.title,
                "entry": hit.entry,
                "role": hit.role,
                "snippet": hit.snippet,
                "shown": hit.shown,
            }
            for hit in hits
        ]
        return JSONResponse({"hits": rows, "unread": hits.unread})

    async def _create(self, request: Request) -> Response:
        given = await _body(request)
        title = given.get("title", "")
        made = await run_in_threadpool(self._repo.create, title)
        return JSONResponse({"id": made.id}, HTTPStatus.CREATED)

    async def _window(self, request: Request) -> Response:
        last = _number(request.query_params.get("last", "60"))
        before = request.query_params.get("before")
        return await self._on(request, partial(window_json, last=last, before=EntryId(before) if before else None))

    async def _tree(self, request: Request) -> Response:
        return await self._on(request, partial(tree_json, last=_number(request.query_params.get("last", "300"))))

    async def _elsewhere(self, request: Request) -> Response:
        def read(conversation: Conversation) -> dict[str, Any]:
            found = conversation.transcript().elsewhere
            return {"entries": [elsewhere_json(other) for other in found[-200:]], "of": len(found)}

        return await self._on(request, read)

    async def _cache(self, request: Request) -> Response:
        engine = self._engine

        def read(conversation: Conversation) -> dict[str, Any]:
            if engine is None:
                return {"stretches": [], "total": 0, "cached": 0}
            try:
                found = coverage(conversation, engine)
            except (EngineError, PromptError) as error:  # too long for the context, say: that is no failure of the page
                return {"stretches": [], "total": 0, "cached": 0, "why": str(error)}
            return {
                "stretches": [{"entry": each.entry, "tokens": each.tokens, "cached": each.cached} for each in found],
                "total": sum(each.tokens for each in found),
                "cached": sum(each.cached for each in found),
            }

        return await self._on(request, read)

    async def _act(self, request: Request) -> Response:
        action = ACTIONS.get(request.path_params["action"])
        if action is None:
            return JSONResponse({"error": "There is no such action."}, HTTPStatus.NOT_FOUND)
        given = await _body(request)
        return await self._on(request, lambda conversation: action(self._repo, conversation, given))

    async def _attach(self, request: Request) -> Response:
        """Say something with one attachment, the body of the request; ``?name=``, ``?text=``, ``?ask=1``."""
        query = request.query_params
        media_type = request.headers.get("content-type", "application/octet-stream").partition(";")[0].strip()
        with tempfile.TemporaryFile() as file:
            async for chunk in request.stream():
                if file.tell() + len(chunk) > MAX_ATTACHMENT:
                    raise InvalidContent("The file is larger than 1 GiB.", hint="Attach a smaller one.")
                await run_in_threadpool(file.write, chunk)
            file.seek(0)
            parts: list[Part] = [Text(query["text"])] if query.get("text") else []
            parts.append(Blob(cast(BinaryIO, file), media_type, query.get("name", "")))

            def say(conversation: Conversation) -> dict[str, Any]:
                if query.get("ask") == "1":
                    return {"ask": ask_json(conversation.ask(parts, model=query.get("model", "")))}
                return {"entry": conversation.append("user", parts).id}

            return await self._on(request, say)

    async def _blob(self, request: Request) -> Response:
        path = await run_in_threadpool(self._repo.blobs.get, request.path_params["hash"])
        if path is None:
            return JSONResponse({"error": "The attachment is not on this device."}, HTTPStatus.NOT_FOUND)
        media_type = request.query_params.get("type", "")
        shown = media_type if media_type in PICTURES else "application/octet-stream"
        return FileResponse(path, media_type=shown)

    async def _library_changes(self, request: Request) -> Response:
        changes = library_changes(self._repo, self._link, self._stopping)
        return StreamingResponse(changes, media_type="application/x-ndjson")

    async def _conversation_changes(self, request: Request) -> Response:
        conversation = await run_in_threadpool(self._repo.get, request.path_params["id"])
        return StreamingResponse(conversation_changes(conversation, self._stopping), media_type="application/x-ndjson")

    async def _on(self, request: Request, work: Callable[[Conversation], dict[str, Any]]) -> Response:
        """Do something with the conversation of the address, on a thread."""
        id_ = request.path_params["id"]
        return JSONResponse(await run_in_threadpool(lambda: work(self._repo.get(id_))))


def _number(text: str) -> int:
    try:
        return max(1, min(MAX_LAST, int(text)))
    except ValueError:
        raise InvalidContent(f"{text[:40]!r} is no number.", hint="Give a number of entries.") from None


async def _body(request: Request) -> dict[str, Any]:
    """The JSON object that was sent. Raises InvalidContent."""
    data = bytearray()
    async for chunk in request.stream():
        data += chunk
        if len(data) > MAX_BODY:
            raise InvalidContent("The request is larger than 8 MiB.", hint="Attach it as a file.")
    try:
        value = json.loads(data or b"{}")
    except ValueError:
        raise InvalidContent("The request is not JSON.", hint="Send a JSON object.") from None
    if not isinstance(value, dict):
        raise InvalidContent("The request is no JSON object.", hint="Send a JSON object.")
    return value


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, LLMCRDTError)
    status = next((each for kind, each in STATUS.items() if isinstance(error, kind)), HTTPStatus.INTERNAL_SERVER_ERROR)
    return JSONResponse({"error": error.message, "hint": error.hint}, status)


async def _left(request: Request, error: Exception) -> Response:
    return Response(status_code=499)  # nobody reads it

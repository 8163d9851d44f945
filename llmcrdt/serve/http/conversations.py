"""``/v1/conversations``: the conversations of the library, for requests that name one."""

from __future__ import annotations

import asyncio

from starlette.requests import Request
from starlette.responses import Response

from ...document.canonical import JSON
from ...document.conversation import Conversation
from .api import Incoming, json_response
from .drafts import drafts_of
from .keys import Caller
from .responses import items_of, page_of
from .turns import Turns

_UNKNOWN = "Unknown parameter: '{}'."


async def create(incoming: Incoming, turns: Turns) -> Response:
    """Begin one, with the items that the request has."""
    fields = incoming.fields
    items, metadata = fields.list("items") or [], fields.object("metadata") or {}
    fields.end(_UNKNOWN)
    drafts = drafts_of("openai-responses", {"input": items}, "A model here", most=turns.limits.items) if items else []

    def made() -> Conversation:
        conversation = turns.repo.create()
        if drafts:
            turns.placer.place(incoming.caller, drafts, (), conversation=conversation.id, at_the_end=True)
        return conversation

    return json_response({**_told(await asyncio.to_thread(made)), "metadata": metadata})


async def get(request: Request, caller: Caller, turns: Turns) -> Response:
    """One of them."""
    return json_response(_told(await asyncio.to_thread(_found, request, caller, turns)))


async def delete(request: Request, caller: Caller, turns: Turns) -> Response:
    """Take one out of the library, on every device, for good."""
    conversation = await asyncio.to_thread(_found, request, caller, turns)
    await asyncio.to_thread(turns.repo.delete, conversation.id)
    return json_response({"id": f"conv_{conversation.id}", "object": "conversation.deleted", "deleted": True})


async def items(request: Request, caller: Caller, turns: Turns) -> Response:
    """The entries that it shows, as items."""
    conversation = await asyncio.to_thread(_found, request, caller, turns)
    listed = await asyncio.to_thread(lambda: tuple(conversation.transcript()))
    return json_response(page_of(request, [item for entry in listed for item in items_of(conversation.id, entry)]))


def _found(request: Request, caller: Caller, turns: Turns) -> Conversation:
    return turns.placer.conversation(caller, request.path_params["id"].removeprefix("conv_"))


def _told(conversation: Conversation) -> dict[str, JSON]:
    created_at = int(conversation.created_at)
    return {"id": f"conv_{conversation.id}", "object": "conversation", "created_at": created_at, "metadata": {}}

"""A chat server of one file: FastAPI over a repo.

pip install "llmcrdt[llama]" fastapi uvicorn
LLMCRDT_MODEL=model.gguf uvicorn examples.chat_server:app

curl -X POST localhost:8000/conversations                                  # {"id": "..."}
curl -N -X POST localhost:8000/conversations/ID -H "Content-Type: application/json" -d '{"text": "Hello"}'
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

import llmcrdt
from llmcrdt.exceptions import ConversationNotFound


@asynccontextmanager
async def running(app: FastAPI) -> AsyncIterator[None]:
    """One repo and one engine for as long as the server runs."""
    with (
        llmcrdt.open(os.environ.get("CHAT_DB", "chats.db")) as repo,
        llmcrdt.LlamaEngine(os.environ["LLMCRDT_MODEL"]) as engine,
    ):
        app.state.repo, app.state.engine = repo, engine
        yield


app = FastAPI(lifespan=running)


class Question(BaseModel):
    text: str


def conversation(request: Request, id: str) -> llmcrdt.Conversation:
    try:
        return request.app.state.repo.get(id)
    except ConversationNotFound:
        raise HTTPException(404, "There is no such conversation.") from None


@app.post("/conversations")
def create(request: Request) -> dict[str, str]:
    return {"id": request.app.state.repo.create().id}


@app.get("/conversations/{id}")
def show(request: Request, id: str) -> list[dict[str, str]]:
    return [{"role": entry.role, "text": entry.text} for entry in conversation(request, id).transcript()]


@app.post("/conversations/{id}")
async def say(request: Request, id: str, question: Question) -> StreamingResponse:
    """Say something; the answer comes as it is written. A reader that goes away stops it, and the words so far stay."""
    conv = conversation(request, id)
    conv.append("user", question.text)

    async def answer() -> AsyncIterator[str]:
        async for piece in llmcrdt.generate(conv, request.app.state.engine, max_tokens=256):
            yield piece

    return StreamingResponse(answer(), media_type="text/plain; charset=utf-8")

"""Errors of the HTTP APIs, each in its API's own shape."""

from __future__ import annotations

import logging

from ...document.canonical import JSON
from ...exceptions import (
    AskFailed,
    ContextOverflow,
    ConversationNotFound,
    DecodeFailed,
    EngineClosed,
    EngineError,
    EntryNotFound,
    FormatError,
    InvalidContent,
    LLMCRDTError,
    NotSealed,
    PromptError,
    ProviderError,
    ProviderRefused,
    RepoClosed,
    ResponseFailed,
)

_OPENAI = {
    400: "invalid_request_error",
    401: "invalid_request_error",
    403: "invalid_request_error",
    404: "invalid_request_error",
    405: "invalid_request_error",
    408: "invalid_request_error",
    409: "invalid_request_error",
    413: "invalid_request_error",
    415: "invalid_request_error",
    429: "rate_limit_error",
}
_ANTHROPIC = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}


logger = logging.getLogger("llmcrdt.serve.http")


class HttpError(Exception):
    """An answer that is an error. ``param``: the path of the value at fault. ``code``: a word for programs."""

    def __init__(self, status: int, message: str, *, code: str | None = None, param: str | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.code, self.param = status, message, code, param

    def openai(self) -> dict[str, JSON]:
        """As OpenAI's APIs say it."""
        return {"error": self.openai_error()}

    def openai_error(self) -> dict[str, JSON]:
        """The error without what stands around it."""
        kind = _OPENAI.get(self.status, "server_error")
        return {"message": self.message, "type": kind, "param": self.param, "code": self.code}

    def anthropic(self, request_id: str | None = None) -> dict[str, JSON]:
        """As Anthropic's API says it."""
        kind = _ANTHROPIC.get(self.status, "invalid_request_error" if self.status < 500 else "api_error")
        message = self.message if self.param is None or self.param in self.message else f"{self.param}: {self.message}"
        body: dict[str, JSON] = {"type": "error", "error": {"type": kind, "message": message}}
        return body | ({"request_id": request_id} if request_id else {})


def bad_request(message: str, param: str | None = None, code: str | None = None) -> HttpError:
    """The request can't be followed."""
    return HttpError(400, message, param=param, code=code)


def error_of(error: LLMCRDTError) -> HttpError:
    """An error of the library as an answer."""
    message = f"{error.message} {error.hint}".strip() if error.hint else error.message
    match error:
        case ContextOverflow():
            return HttpError(400, message, code="context_length_exceeded", param="messages")
        case ConversationNotFound() | EntryNotFound():
            return HttpError(404, message, code="not_found")
        case NotSealed():
            return HttpError(409, message, code="conversation_locked")
        case RepoClosed() | EngineClosed():
            return HttpError(503, "The server is closing. Ask again.", code="overloaded")
        case ProviderRefused():
            status = error.status if error.status in (400, 413, 429) else 502
            return HttpError(status, message, code="rate_limit_exceeded" if status == 429 else "provider_refused")
        case ProviderError() | ResponseFailed():
            return HttpError(502, message, code="provider_failed")
        case DecodeFailed():
            return HttpError(500, error.message)
        case InvalidContent() | FormatError() | PromptError() | EngineError() | AskFailed():
            return bad_request(message)
    logger.error("%s", message)  # it may tell of this machine
    return HttpError(500, "The server can't do this just now. See its log.")

"""A conversation's requests to providers, and their responses. Pure; the time is an argument."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from ..document.binding import Target
from ..document.blob import Blob
from ..document.canonical import JSON, exact_json
from ..document.deltas import AnswerFailed
from ..document.entry import Entry, HiddenField
from ..document.request import Rendered, Request, Response, ResponseReader
from ..exceptions import FormatError
from .export import export
from .format import Answer, Draft, Format, Outline
from .json_input import bad, check_json, object_at, parse
from .native import mapping
from .registry import format_of, names

_VERSION = 1
"""Of the renderers: another one where a format writes the same transcript otherwise."""
_HINT = (
    "Pass the body of the response as JSON: its text, or the value of it, such as response.model_dump(by_alias=True)."
)


class ProviderFormats:
    """The formats of the registry, as ``document.request.Formats``."""

    def request(
        self,
        entries: Sequence[Entry],
        api: str,
        *,
        model: str | None,
        provider: str | None,
        account: str | None,
        now: float,
    ) -> Rendered:
        """A transcript for an API: the log, and a request with it."""
        if not isinstance(api, str):
            raise FormatError("An API is named by a text.", hint=f"Known formats: {', '.join(names())}.")
        form = format_of(api)
        target = form.target(provider=provider, model=model or form.model_of(entries), account=account)
        made = export(form, entries, target, now=now, read_blob=content_of)
        renderer = f"llmcrdt.interop.{form.name}/{_VERSION}"
        return Rendered(made.messages, made.body, made.report, target, renderer)

    def response(self, request: Request, answer: JSON | bytes) -> Response:
        """The answer to a request of these. Its hidden fields are bound to where the request went, and those that hold
        on the list before them alone to the request's frame."""
        form, target = format_of(request.target.api or ""), request.target
        value = parse(_text(answer)) if isinstance(answer, (str, bytes)) else answer
        check_json(value)
        whole = object_at(value, "The response")
        if whole.get("error") is not None:
            raise FormatError(
                f"The response is an error: {exact_json(whole['error'])[:200]}.", hint="Send the request again."
            )
        said = form.answer(whole)
        answered = said.model if isinstance(said.model, str) else None
        draft = _draft(form, said, Outline(None, target.provider, model=target.model or answered))
        hidden = {
            name: _bound(field, target, answered, {"frame": request.frame_hash} if name in draft.frame_bound else {})
            for name, field in draft.hidden.items()
        }
        finish = {"finish": said.finish} if isinstance(said.finish, str) else {}
        model, author = _named(target, answered)
        return Response(draft.parts, hidden, model, {**mapping(said.usage), **finish}, author)

    def stream(self, request: Request) -> ResponseReader:
        """A reader of the streamed answer to a request of these."""
        return _RequestStream(self, request)


class _RequestStream:
    """A streamed answer to a request, as ``document.request.ResponseReader``."""

    def __init__(self, formats: ProviderFormats, request: Request) -> None:
        self._formats, self._request = formats, request
        self._stream = format_of(request.target.api or "").stream()
        self.feed, self.close = self._stream.feed, self._stream.close

    @property
    def ended(self) -> bool:
        return self._stream.ended

    @property
    def error(self) -> AnswerFailed | None:
        return self._stream.error

    def named(self) -> tuple[Mapping[str, JSON], str]:
        return _named(self._request.target, self._stream.model)

    def response(self) -> Response | None:
        said = self._stream.response()
        return None if said is None else self._formats.response(self._request, said)


FORMATS = ProviderFormats()


def _named(target: Target, answered: str | None) -> tuple[Mapping[str, JSON], str]:
    """What an entry says of whoever made it: the API and the model; the author."""
    name = answered or target.model
    return {"api": target.api, **({"name": name} if name else {})}, name or target.provider


def _text(answer: str | bytes) -> str:
    try:
        return answer if isinstance(answer, str) else answer.decode("utf-8")
    except UnicodeDecodeError:
        raise FormatError("The response is not UTF-8 text.", hint=_HINT) from None


def _draft(form: Format, said: Answer, outline: Outline) -> Draft:
    """The one entry that an answer is."""
    reader = form.reader(outline)
    drafts = [draft for path, item in said.items for draft in reader.read(_without_nulls(item), path)]
    drafts += reader.end()
    if [draft.role for draft in drafts] != ["assistant"]:
        raise bad(said.items[0][0] if said.items else "", "holds no answer of a model's", _HINT)
    return drafts[0]


def _without_nulls(item: Mapping[str, JSON]) -> dict[str, JSON]:
    """An item, and the blocks that it lists, without members that are null: SDKs write one for each member that the
    API left out, and some APIs refuse them. A null inside of a member stays."""

    def cut(block: JSON) -> JSON:
        return {key: value for key, value in block.items() if value is not None} if isinstance(block, dict) else block

    return {
        key: [cut(block) for block in value] if isinstance(value, list) else value
        for key, value in item.items()
        if value is not None or key == "content"
    }


def _bound(field: HiddenField, target: Target, answered: str | None, more: Mapping[str, JSON]) -> HiddenField:
    """A field bound to where the request went. A model that goes by two names, as it was asked for and as it answered,
    is either."""
    binding = {**field.binding, **more}
    names = sorted({name for name in (target.model, answered) if name})
    if "model" in binding and len(names) > 1:
        binding["model"] = list(names)
    if target.account is not None:
        binding["account"] = target.account
    return replace(field, binding=binding)


def content_of(blob: Blob) -> bytes | None:
    """The content of an attachment; None where it is missing."""
    path = blob.path
    return path.read_bytes() if path else None

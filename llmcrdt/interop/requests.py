"""A conversation's requests to providers, and their responses. Pure; the time is an argument."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from ..document.binding import Target
from ..document.blob import Blob
from ..document.canonical import JSON, exact_json
from ..document.deltas import AnswerFailed
from ..document.entry import Entry, HiddenField
from ..document.request import Rendered, Request, Response, ResponseReader
from ..document.summaries import is_shown
from ..exceptions import FormatError
from ..ids import EntryId
from .export import export
from .format import Draft, Format, Outline
from .handles import NOTHING, Handle, Held, handle_name
from .json_input import bad, check_json, object_at, parse
from .native import mapping
from .registry import format_of, names
from .tool_names import with_true_names

_VERSION = 3
"""Of the renderers: another one where a format writes the same transcript otherwise."""
_HINT = (
    "Pass the body of the response as JSON: its text, or the value of it, such as response.model_dump(by_alias=True)."
)


class ProviderFormats:
    """The formats of the registry, as ``document.request.Formats``."""

    def complete(self, target: Target, entries: Sequence[Entry]) -> Target:
        """A target with what a request would say: of its API, or of the one that has its provider's name."""
        api = target.api or target.provider
        if api not in names():
            return target
        return replace(target, more={**format_of(api).facts(entries), **target.more})

    def request(
        self,
        entries: Sequence[Entry],
        api: str,
        *,
        model: str | None,
        provider: str | None,
        account: str | None,
        now: float,
        since: EntryId | None = None,
        without: Collection[tuple[EntryId, str]] = (),
    ) -> Rendered:
        """A transcript for an API: the log, and a request with it."""
        if not isinstance(api, str):
            raise FormatError("An API is named by a text.", hint=f"Known formats: {', '.join(names())}.")
        form = format_of(api)
        target = form.target(provider=provider, model=model or form.model_of(entries), account=account)
        made = export(form, entries, target, now=now, read_blob=content_of, since=since, without=without)
        check_says_something(form, entries, made.body)
        renderer = f"llmcrdt.interop.{form.name}/{_VERSION}"
        rest = (made.tool_names, made.since, made.whole_because, made.held.count, made.held.hash)
        return Rendered(made.messages, made.body, made.report, made.target, renderer, *rest)

    def response(
        self, request: Request, answer: JSON | bytes, *, sent: JSON | bytes = None, now: float | None = None
    ) -> Response:
        """The answer to a request of these. Its hidden fields are bound to where the request went, and those that hold
        on the list before them alone to the request's frame. One of them is the handle, where the provider keeps all
        that it was sent."""
        form, target = format_of(request.target.api or ""), request.target
        value = parse(_text(answer)) if isinstance(answer, (str, bytes)) else answer
        check_json(value)
        body = object_at(value, "The response")
        if body.get("error") is not None:
            raise FormatError(
                f"The response is an error: {exact_json(body['error'])[:200]}.", hint="Send the request again."
            )
        said = form.answer(body)
        answered = said.model if isinstance(said.model, str) else None
        items = [(path, _without_nulls(item)) for path, item in said.items]
        draft = _draft(form, items, Outline(None, target.provider, model=target.model or answered))
        whole = {"frame": request.frame_hash, **target.more}
        hidden = {
            name: _bound(field, target, answered, whole if name in draft.frame_bound else {})
            for name, field in draft.hidden.items()
        }
        if now is not None:
            kept = _handle(
                form, request, request.body if sent is None else sent, body, [item for _, item in items], now
            )
            hidden |= {handle_name(form.name): _bound(kept, target, None, whole)} if kept else {}
        finish = {"finish": said.finish} if isinstance(said.finish, str) else {}
        model, author = _named(target, answered)
        parts = with_true_names(draft.parts, request.tool_names)
        return Response(parts, hidden, model, {**mapping(said.usage), **finish}, author)

    def stream(self, request: Request, *, sent: JSON | bytes = None, now: float | None = None) -> ResponseReader:
        """A reader of the streamed answer to a request of these; ``sent`` and ``now`` as of ``response``."""
        return _RequestStream(self, request, sent, now)


class _RequestStream:
    """A streamed answer to a request, as ``document.request.ResponseReader``."""

    def __init__(self, formats: ProviderFormats, request: Request, sent: JSON | bytes, now: float | None) -> None:
        self._formats, self._request, self._sent, self._now = formats, request, sent, now
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
        if said is None:
            return None
        now = self._now if self._stream.ended else None  # else nobody can tell what the provider holds
        return self._formats.response(self._request, said, sent=self._sent, now=now)


FORMATS = ProviderFormats()


def _named(target: Target, answered: str | None) -> tuple[Mapping[str, JSON], str]:
    """The account that an entry gives of whoever made it: the API and the model; the author."""
    name = answered or target.model
    return {"api": target.api, **({"name": name} if name else {})}, name or target.provider


def check_says_something(form: Format, entries: Sequence[Entry], body: Mapping[str, JSON]) -> None:
    """Raises FormatError for a conversation in which nothing stands that could be sent: every API refuses that."""
    if not body[form.member] or not any(is_shown(entry) for entry in entries):
        raise FormatError(
            "The conversation says nothing that could be sent.",
            hint='Say something first: conv.append("user", "...").',
        )


def _text(answer: str | bytes) -> str:
    try:
        return answer if isinstance(answer, str) else answer.decode("utf-8")
    except UnicodeDecodeError:
        raise FormatError("The response is not UTF-8 text.", hint=_HINT) from None


def _handle(
    form: Format, request: Request, sent: JSON | bytes, response: Mapping[str, JSON], said: Sequence[JSON], now: float
) -> HiddenField | None:
    """The handle of the state that the provider keeps after its response. None where it keeps none, or nobody can tell
    from ``sent`` what it holds."""
    body: JSON = sent if isinstance(sent, dict) else {}
    listed = body.get(form.member)
    kept = form.kept(body, response) if isinstance(listed, list) else None
    if kept is None:
        return None
    before = Held(request.held_count, request.held) if request.since else NOTHING
    held = before.and_then(form.bare([*list(listed or ()), *(form.said(item) for item in said)]))
    binding = {"provider": request.target.provider, "api": form.name, "expires": now + kept.seconds}
    return Handle(kept.id, held).field(binding)


def _draft(form: Format, items: Sequence[tuple[str, Mapping[str, JSON]]], outline: Outline) -> Draft:
    """The one entry that an answer is."""
    reader = form.reader(outline)
    drafts = [draft for path, item in items for draft in reader.read(item, path)]
    drafts += reader.end()
    if [draft.role for draft in drafts] != ["assistant"]:
        raise bad(items[0][0] if items else "", "holds no answer of a model's", _HINT)
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

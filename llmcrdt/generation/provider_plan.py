"""The next request to a provider, before it is sent."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from ..document.binding import FieldReport
from ..document.canonical import JSON, exact_json
from ..document.conversation import Conversation
from ..document.entry import Entry
from ..document.request import Request
from ..document.transcript import Transcript
from ..exceptions import FormatError
from ..ids import EntryId, tagged_hash
from ..interop.handles import handle_name
from ..interop.registry import format_of
from ..providers.base import Provider

REFUSED = "refused"
"""The key in an entry's ``usage``."""


@dataclass(frozen=True)
class ProviderPlan:
    """The next request to a provider. ``request``: all of it, with the report of every hidden field. ``total``: how
    many messages (items, contents) its list has; ``reused`` of them, from the beginning, were in the last request to
    this API and model as they are now, with the same instructions and tools: what the provider's cache may hold.
    ``size``: characters of the request as JSON. ``str()`` says it in words."""

    request: Request
    total: int
    reused: int
    size: int

    @property
    def left_out(self) -> tuple[FieldReport, ...]:
        """The hidden fields that do not go out, each with the reason."""
        return self.request.left_out

    def __str__(self) -> str:
        counts = f"{self.total} messages, {self.size} characters; the first {self.reused} were sent before."
        return "\n".join([counts, *map(str, self.left_out)])


def request_for(
    conversation: Conversation,
    provider: Provider,
    instead_of: Entry | EntryId | None,
    *,
    since: Entry | EntryId | None = None,
    without: Collection[tuple[EntryId, str]] = (),
    on: Transcript | None = None,
) -> Request:
    """The next request to a provider. ``since``, ``without``, ``on``: as of ``conversation.messages``."""
    return conversation.messages(
        provider.api,
        model=provider.model,
        provider=provider.name,
        account=provider.account,
        instead_of=instead_of,
        since=since,
        without=without,
        on=on,
    )


def refusal_noted(
    conversation: Conversation, provider: Provider, fields: Collection[tuple[EntryId, str]]
) -> Mapping[str, JSON]:
    """The note that an answer keeps beside its usage: these fields were refused before it, so that no later request,
    on whatever device, sends them there again. The account stands there as a hash: relays read notes."""
    place = {"provider": provider.name, "model": provider.model, "account": _account(conversation, provider)}
    return {REFUSED: {**place, "fields": [[entry, name] for entry, name in fields]}} if fields else {}


def _account(conversation: Conversation, provider: Provider) -> str | None:
    if provider.account is None:
        return None
    return tagged_hash("llmcrdt/account/1", conversation.id.encode(), provider.account.encode("utf-8", "surrogatepass"))


def refused_before(conversation: Conversation, provider: Provider) -> set[tuple[EntryId, str]]:
    """The hidden fields that a provider refused, as the answers of this API say."""
    found: set[tuple[EntryId, str]] = set()
    place = {"provider": provider.name, "model": provider.model}
    account = _account(conversation, provider)
    for answer in conversation.generations():
        noted = answer.usage.get(REFUSED) if answer.model.get("api") == provider.api else None
        if (
            isinstance(noted, Mapping)
            and all(noted.get(key) == value for key, value in place.items())
            and noted.get("account") in (account, provider.account)  # notes of before have it as it is
        ):
            fields = noted.get("fields")
            for field in fields if isinstance(fields, list) else ():  # anybody may have written it
                if isinstance(field, list) and len(field) == 2 and all(isinstance(one, str) for one in field):
                    found.add((EntryId(field[0]), field[1]))
    return found


def last_kept(conversation: Conversation, provider: Provider) -> Entry | None:
    """The last answer after which the provider may keep all before it; None where it is not asked to."""
    if not provider.keep:
        return None
    name = handle_name(provider.api)
    return next((entry for entry in reversed(conversation.transcript()) if name in entry.hidden), None)


def plan_request(
    conversation: Conversation, provider: Provider, instead_of: Entry | EntryId | None = None
) -> ProviderPlan:
    """The plan of the next request. Nothing is sent or written."""
    request = request_for(conversation, provider, instead_of, without=refused_before(conversation, provider))
    now = _list(request.body, provider.api)
    then = _last_sent(conversation, request, provider)
    reused = 0
    if _beside(then, provider.api) == _beside(request.body, provider.api):
        for before, after in zip(_list(then, provider.api), now, strict=False):
            if exact_json(before) != exact_json(after):
                break
            reused += 1
    return ProviderPlan(request, len(now), reused, len(exact_json(request.body)))


def _last_sent(conversation: Conversation, request: Request, provider: Provider) -> Mapping[str, JSON]:
    """The body of the request that the latest answer of this model was computed on; empty where there is none."""
    last = next((entry for entry in conversation.generations() if _is_of(entry, request, provider)), None)
    try:
        return request_for(conversation, provider, last).body if last is not None else {}
    except FormatError:  # all that it was computed on was erased since
        return {}


def _is_of(entry: Entry, request: Request, provider: Provider) -> bool:
    """Whether an answer came from this API and model, also where that goes by a second name."""
    if entry.model.get("api") != provider.api:
        return False
    bound = (field.binding.get("model") for field in entry.hidden.values() if not field.locked)
    names = [entry.model.get("name"), *(name for names in bound if isinstance(names, list) for name in names)]
    return provider.model in names


def _list(body: Mapping[str, JSON], api: str) -> list[JSON]:
    found = body.get(format_of(api).member)
    return found if isinstance(found, list) else []


def _beside(body: Mapping[str, JSON], api: str) -> str:
    """All before the list: instructions and tools."""
    return exact_json({key: value for key, value in body.items() if key != format_of(api).member})

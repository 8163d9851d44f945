"""All that a person does on the page, as functions from JSON to JSON. Each checks what it is given."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from ..document.ask import Ask
from ..document.conversation import Conversation
from ..document.erasure import Held
from ..exceptions import EntryNotFound, InvalidContent, SyncTimeout
from ..ids import EntryId
from ..repo.repo import Repo
from ..repo.titles import title_from
from .views import JSONObject, ask_json, detail_json, first_words

Given = Mapping[str, Any]
Action = Callable[[Repo, Conversation, Given], JSONObject]

_LOOK: Final = 0.5
"""Seconds that a request waits for an attachment."""


def text_of(given: Given, name: str, default: str | None = None) -> str:
    """A text of the request. Raises InvalidContent."""
    value = given.get(name, default)
    if not isinstance(value, str):
        raise InvalidContent(f"{name} is missing.", hint=f'Send {{"{name}": text}}.')
    return value


def _entry(given: Given, name: str = "entry") -> EntryId:
    return EntryId(text_of(given, name))


def _asked(ask: Ask) -> JSONObject:
    return {"ask": ask_json(ask)}


def _say(repo: Repo, conversation: Conversation, given: Given) -> JSONObject:
    text = text_of(given, "text")
    if not text.strip():
        raise InvalidContent("There is nothing to say.", hint="Write something first.")
    if not conversation.title:
        repo.rename(conversation.id, title_from(text))
    if given.get("ask", True):
        return _asked(conversation.ask(text, model=text_of(given, "model", "")))
    return {"entry": conversation.append("user", text).id}


def _ask(repo: Repo, conversation: Conversation, given: Given) -> JSONObject:
    entry = given.get("entry")
    instead_of = None if entry is None else _entry(given)
    return _asked(conversation.ask(model=text_of(given, "model", ""), instead_of=instead_of))


def _edit(repo: Repo, conversation: Conversation, given: Given) -> JSONObject:
    text = text_of(given, "text")
    with conversation.batch():
        edited = conversation.edit(_entry(given), text)
        if given.get("ask", edited.role == "user"):
            return {"entry": edited.id, **_asked(conversation.ask(model=text_of(given, "model", "")))}
    return {"entry": edited.id}


def _select(repo: Repo, conversation: Conversation, given: Given) -> JSONObject:
    conversation.select(_entry(given))
    return {}


def _erase(repo: Repo, conversation: Conversation, given: Given) -> JSONObject:
    also = given.get("also", [])
    if not isinstance(also, list):
        raise InvalidContent("also is no list.", hint="Send the list that the last answer gave.")
    held = [_held(each) for each in also]
    for copy in held:
        if copy.conversation != conversation.id:
            repo.get(copy.conversation).erase(copy.entry)
    here = [each for each in held if each.conversation == conversation.id]
    erased = conversation.erase(_entry(given), also=here)
    return {"erased": list(erased.entries), "still_held": [_held_json(repo, each) for each in erased.still_held]}


def _held(value: Any) -> Held:
    if not isinstance(value, dict):
        raise InvalidContent("also holds something else than entries.", hint="Send what the last answer gave.")
    return Held(text_of(value, "conversation"), EntryId(text_of(value, "entry")), text_of(value, "kind"))  # type: ignore[arg-type]


def _held_json(repo: Repo, held: Held) -> JSONObject:
    try:
        words = first_words(repo.get(held.conversation).entry(held.entry))
    except EntryNotFound:
        words = ""
    return {"conversation": held.conversation, "entry": held.entry, "kind": held.kind, "words": words}


def _keep(repo: Repo, conversation: Conversation, given: Given) -> JSONObject:
    conversation.keep(_entry(given))
    return {}


def _fork(repo: Repo, conversation: Conversation, given: Given) -> JSONObject:
    title = text_of(given, "title", conversation.title)
    return {"conversation": repo.fork(conversation, at=_entry(given), title=title).id}


def _adopt(repo: Repo, conversation: Conversation, given: Given) -> JSONObject:
    """Take what is new in this fork into the conversation that it was made of."""
    origin = (conversation.forked_from or {}).get("conversation")
    if not isinstance(origin, str):
        raise InvalidContent("This conversation is no fork.", hint="Open the fork, and give it back from there.")
    repo.get(origin).adopt(conversation)
    return {"conversation": origin}


def _stop(repo: Repo, conversation: Conversation, given: Given) -> JSONObject:
    if "ask" in given:
        ask = text_of(given, "ask")
        for each in conversation.asks():
            if each.id == ask:
                each.cancel()
                return {}
        raise EntryNotFound(f"There is no ask {ask!r}.", hint="It may have been answered meanwhile.")
    conversation.stop(_entry(given))
    return {}


def _seal(repo: Repo, conversation: Conversation, given: Given) -> JSONObject:
    return {"entry": conversation.seal(_entry(given)).id}


def _summarize(repo: Repo, conversation: Conversation, given: Given) -> JSONObject:
    return {"entry": conversation.summarize(until=_entry(given), text=text_of(given, "text")).id}


def _rename(repo: Repo, conversation: Conversation, given: Given) -> JSONObject:
    repo.rename(conversation.id, text_of(given, "title"))
    return {}


def _archive(repo: Repo, conversation: Conversation, given: Given) -> JSONObject:
    repo.archive(conversation.id, bool(given.get("archived", True)))
    return {}


def _delete(repo: Repo, conversation: Conversation, given: Given) -> JSONObject:
    repo.delete(conversation.id)
    return {}


def _fetch(repo: Repo, conversation: Conversation, given: Given) -> JSONObject:
    """Have an attachment come from the relay, and say how far it is: the page asks again until it is here."""
    transfer = repo.attachments.fetch(conversation.id, text_of(given, "hash"))
    try:
        transfer.wait(_LOOK)
    except SyncTimeout:
        return {"here": False, "done": transfer.done, "size": transfer.size}
    return {"here": True, "done": transfer.size, "size": transfer.size}


def _typing(repo: Repo, conversation: Conversation, given: Given) -> JSONObject:
    conversation.present({"typing": True} if given.get("typing") else None)
    return {}


def _detail(repo: Repo, conversation: Conversation, given: Given) -> JSONObject:
    return detail_json(conversation, conversation.entry(_entry(given)))


ACTIONS: Final[Mapping[str, Action]] = {
    "say": _say,
    "ask": _ask,
    "edit": _edit,
    "select": _select,
    "erase": _erase,
    "keep": _keep,
    "fork": _fork,
    "adopt": _adopt,
    "stop": _stop,
    "seal": _seal,
    "summarize": _summarize,
    "rename": _rename,
    "archive": _archive,
    "delete": _delete,
    "fetch": _fetch,
    "typing": _typing,
    "detail": _detail,
}
"""By the last word of the address that a page posts to."""

"""Conversation: the face that people use of one conversation."""

from __future__ import annotations

from collections.abc import AsyncIterable, Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Literal

from ..arguments import check_callback
from ..ids import DocumentId, EntryId, KeyId
from ..observation import Observation
from .act_writer import ActWriter
from .acts import ToolClaim, ValidWhile
from .ask import Ask, asks_of
from .asks import turn_of
from .binding import FieldReport, Target
from .canonical import JSON
from .core import ConversationCore
from .entry import Entry, Role, ToolCall
from .eraser import Eraser
from .erasure import Erased, Held
from .fork_adopt import Adopted, adopt
from .frame import Frame
from .observers import Change
from .presence import Present
from .reader import ConversationReader
from .request import Beside, Request, check_request
from .stream import Stream
from .streamed_response import Piece, StreamedResponse
from .transcript import Transcript
from .verify import Problem
from .writer import Content, EntryWriter, Hidden


class Conversation:
    """One conversation. Any method from any thread; what a method wrote is on disk when it returns.

    Made by a repo. It has more methods than any other class: it is the one place for all that people do with a
    conversation, its names are public and stay (docs/api.md), and each hands on to the object that does it.
    """

    def __init__(self, core: ConversationCore) -> None:
        self._core = core
        self._reader = ConversationReader(core)
        self._entries = EntryWriter(core)
        self._acts = ActWriter(core)
        self._eraser = Eraser(core)

    @property
    def id(self) -> DocumentId:
        """Its id, the same on every device."""
        return self._core.id

    @property
    def author(self) -> str:
        """The signature of entries written here, unless ``author=`` gives another one."""
        return self._core.host.author

    @property
    def title(self) -> str:
        """The title that the library gives it."""
        return self._core.host.title()

    @property
    def created_at(self) -> float:
        """Seconds since 1970 on its creator's clock; 0 while nothing has arrived."""
        return self._reader.created_at()

    @property
    def forked_from(self) -> Mapping[str, JSON] | None:
        """The origin of a fork: ``conversation``, ``entry``, and the hash of the ``transcript`` it stood in; else None.
        ``left_out``: the hidden fields that it could not take along, as pairs of entry and name, for their key was not
        here."""
        return self._reader.origin()

    def close(self) -> None:
        """Stop using this object. The conversation stays where it is; ``repo.get`` opens it again."""
        self._core.close()

    # reading

    def transcript(self) -> Transcript:
        """The conversation in order (docs/semantics.md)."""
        return self._reader.transcript()

    def entries(self, *, last: int = 50, before: Entry | EntryId | None = None) -> tuple[Entry, ...]:
        """A page of the transcript: the ``last`` entries, or the ones before an entry of it. Loads no replica if
        the entry index has the answer."""
        return self._reader.page(last, before)

    def entry(self, entry: Entry | EntryId) -> Entry:
        """An entry as it is now, shown or not. Raises EntryNotFound."""
        return self._reader.entry(entry)

    def alternatives(self, entry: Entry | EntryId) -> tuple[Entry, ...]:
        """All entries that stand for the same turn, oldest first, the entry itself among them; without those that an
        erase withholds."""
        return self._reader.alternatives(entry)

    def frame_entries(self, entry: Entry | EntryId) -> tuple[Entry, ...]:
        """The entries that a generation was computed on: exactly these versions, in this order."""
        return self._reader.frame_entries(entry)

    def generations(self) -> Iterator[Entry]:
        """The sealed generations, shown or not, youngest first."""
        return self._reader.generations()

    def results(self, call: ToolCall) -> tuple[Entry, ...]:
        """Every result of a tool call, shown or not, oldest first: more than one where two devices ran it. Those
        that an erase withholds are left out."""
        return self._reader.results(call)

    def unsealed(self) -> tuple[Entry, ...]:
        """Entries that somebody began to write and nobody finished, except those that are being written here."""
        return self._reader.unsealed()

    def blobs(self) -> set[str]:
        """The hashes of all attachments that any version of any entry names, shown or not."""
        return self._reader.blobs()

    def verify(self) -> list[Problem]:
        """Derive every hash and frame again, and open every encrypted field whose key is here; the problems, oldest
        first."""
        return self._reader.verify()

    def hidden_report(self, target: Target, *, now: float | None = None) -> tuple[FieldReport, ...]:
        """Every hidden field of this conversation: whether it would be sent to ``target`` with the transcript, and why
        not; those of the transcript first. ``now``: seconds since 1970; None is now."""
        return self._reader.hidden_report(target, now)

    def messages(
        self,
        for_: str,
        *,
        model: str | None = None,
        provider: str | None = None,
        account: str | None = None,
        instead_of: Entry | EntryId | None = None,
        since: Entry | EntryId | None = None,
        without: Collection[tuple[EntryId, str]] = (),
        on: Transcript | None = None,
    ) -> Request:
        """The request to send to a provider for the next answer: the transcript as of now, in the JSON of its API, as
        ``messages`` and as a whole request, ``body``.

        ``for_``: the API, by the name of its format (docs/interop.md): "openai-chat", "anthropic", "openai-responses",
        "gemini" and others. Tool calls get their results, summaries stand for what they cover, and hidden fields go
        out where their bindings hold for ``provider`` (None: the API's own), ``model`` (None: the one that an import
        named) and ``account``; ``left_out`` lists the others, with the reasons. ``instead_of``: ask again for a
        generated answer, on the list that it was computed on. ``since``: an answer after which the provider keeps all
        that was said (docs/interop.md, *Deltas*): the request says only what is new where that still holds, else
        everything, and ``whole_because`` says why. ``without``: hidden fields, by entry and name, that the provider
        refused (``llmcrdt.interop.failures``). ``on``: this list of its entries, in place of the transcript as of now.
        Nothing is written. Pass the result on to
        ``append_response``, or its ``frame`` to ``append`` or ``stream``. Raises FormatError where there is no such
        API, NotSealed where something was written on an entry that nobody finished, InvalidContent where
        ``instead_of`` is no generation.
        """
        return self._reader.request(for_, model, provider, account, instead_of, since, without, on)

    # writing

    def append(
        self,
        role: Role,
        content: Content = (),
        *,
        call: ToolCall | None = None,
        frame: Transcript | None = None,
        assumed: bool = False,
        sent: JSON | bytes = None,
        renderer: str = "",
        hidden: Hidden | None = None,
        instead_of: Entry | EntryId | None = None,
        model: Mapping[str, JSON] | None = None,
        author: str | None = None,
        **config: JSON,
    ) -> Entry:
        """Add an entry at the end of what is visible; it is on disk when this returns.

        An attachment (``Blob``) is copied into the repo first; its source may go afterwards.
        ``call``: the tool call that a tool result answers (from ``entry.tool_calls``). ``frame``: the transcript that a
        generation was computed on. ``sent``: what was really sent for it, bytes or a JSON value such as the request's
        body; the frame records its hash (``frame.sent``), and ``renderer``, the name and version of whoever made it.
        ``assumed``: an imported generation, nobody knows what was really sent. ``hidden``: fields that people don't
        see, by name, as bytes or ``HiddenField``.
        ``instead_of``: stand for the same turn as that entry. ``config``: settings that count from here on
        (``tools=[...]``, ``date="2026-11-22"``, ``template={...}``); system entries only.
        """
        return self._entries.append(
            role,
            content,
            call=call,
            frame=frame,
            assumed=assumed,
            sent=sent,
            renderer=renderer,
            hidden=hidden,
            instead_of=instead_of,
            model=model,
            author=author,
            config=config,
        )

    def append_response(
        self,
        request: Request,
        response: JSON | bytes,
        *,
        sent: JSON | bytes = None,
        sealed: bool = False,
        author: str | None = None,
        beside: Beside | None = None,
    ) -> Entry:
        """Append a provider's answer to a request of ``messages``, with its frame; it is on disk when this returns.

        ``response``: the body of the response as it came, JSON or its text. The answer's text, reasoning and calls are
        parts of one entry; signatures and all else that is opaque are hidden fields, bound to where the request went,
        and encrypted where ``sealed`` says so. ``entry.model`` names the API and the model, ``entry.usage`` is the
        provider's, with the reason why it ended under ``finish``. ``sent``: what was really sent, where that was not
        ``request.body`` as it is; the frame records its hash. ``author``: None is the model's name. ``beside``: what
        is kept beside the provider's usage, such as a price, as a function of it. Two responses to one request are
        alternatives. Raises FormatError for what is no answer, and appends nothing.
        """
        return self._entries.append_response(request, response, sent=sent, sealed=sealed, author=author, beside=beside)

    def stream_response(
        self,
        request: Request,
        events: Iterable[Piece] | AsyncIterable[Piece],
        *,
        sent: JSON | bytes = None,
        sealed: bool = False,
        author: str | None = None,
        interval: float | None = None,
        beside: Beside | None = None,
        ask: Ask | None = None,
    ) -> StreamedResponse:
        """Append a provider's answer to a request of ``messages`` while it streams in: others see text and reasoning
        grow, and the sealed entry is the one that ``append_response`` makes of the whole answer.

        ``events``: the response's body in pieces of bytes, cut anywhere, or its events as JSON objects; an iterable, or
        an async one. It is read as the result is: iterate over it, or call its ``result()``. An answer that ends early
        is sealed as stopped. ``interval``, ``ask``: as of ``stream``; all else as of ``append_response``. Where
        ``sealed`` can't be, it raises before anything is read (``check_key``).
        """
        if sealed:
            self.check_key()
        host = self._core.host
        reader = host.formats.stream(check_request(request), sent=sent, now=host.clock())
        sent = request.body if sent is None else sent
        begin = partial(self.stream, frame=request.frame, instead_of=request.instead_of, sent=sent, interval=interval)
        begin = partial(begin, renderer=request.renderer, ask=ask)
        return StreamedResponse(begin, reader, events, sealed=sealed, author=author, beside=beside)

    def stream(
        self,
        role: Role = "assistant",
        *,
        frame: Transcript | None = None,
        instead_of: Entry | EntryId | None = None,
        model: Mapping[str, JSON] | None = None,
        author: str | None = None,
        frame_as: Frame | None = None,
        sent: JSON | bytes = None,
        renderer: str = "",
        interval: float | None = None,
        ask: Ask | None = None,
    ) -> Stream:
        """Begin an entry that others see grow; a context manager that seals it at the end (docs/semantics.md, O9).

        ``interval``: seconds between two writes to the document while text keeps coming. None: 0.1, and up to 1.5 where
        so few letters come that a piece would cost whoever watches several times what it says.
        ``sent``, ``renderer``: as of ``append``. ``frame_as``: the frame to record as it is, in place of all three.
        ``ask``: the ask that it answers.
        """
        core = self._core
        with core.editing():
            entry = self._entries.begin(
                role,
                frame=frame,
                instead_of=instead_of,
                model=model,
                author=author,
                frame_as=frame_as,
                sent=sent,
                renderer=renderer,
                turn=turn_of(core.view, ask.id, frame.ids if frame else ()) if ask is not None else None,
            )
            if ask is not None:
                self._acts.reply(ask.id, entry)
            stream = Stream(core, entry, role, interval=interval)
            core.streams[entry] = stream
        return stream

    def edit(self, entry: Entry | EntryId, content: Content, *, author: str | None = None) -> Entry:
        """Say something else in an entry's place. The old one stays, as an alternative. Parts that are not text stay
        too, but for settings that a younger entry has changed. An edit of an erased entry is an entry of its own in
        that place: nothing of the erased one comes back. Entries after a system entry go on being shown, as does
        the old one where an answer was computed on it: then the new one stands at the end, and counts from there on."""
        return self._entries.edit(entry, content, author)

    def select(self, entry: Entry | EntryId) -> None:
        """Show an entry, and with it everything on the way to it; what was shown instead goes elsewhere. Raises
        Withheld."""
        self._acts.select(entry)

    def keep(self, entry: Entry | EntryId) -> None:
        """Have an alternative take part that an erase withholds: one made of the erased entry by somebody who had not
        seen the erase. Read it first: it may say what was erased. Nothing happens if it is not withheld.

        Which alternative is shown is for ``select`` and the rules, as for any other one.
        """
        self._acts.keep(entry)

    def summarize(self, *, until: Entry | EntryId, text: str, role: Role = "user", author: str | None = None) -> Entry:
        """Say in a few words what the transcript says up to and with ``until``: prompts hold the summary instead (O10).

        The entries stay in the transcript; system entries stay in prompts. A later summary may cover earlier ones. So a
        conversation outgrows any context window.
        """
        return self._entries.summarize(until, text, role, author)

    def erase(self, entry: Entry | EntryId, *, also: Iterable[Entry | EntryId | Held] = ()) -> Erased:
        """Remove an entry's words for good, on every device that ever merges with this one (O7).

        Every version, live text and hidden field goes, with the alternatives of the same content, and the token logs of
        every answer that was computed on it. The entry's place stays, and a model that is asked again is not shown it.
        Copies on other devices, in caches and on the relay go when the erase reaches them. An edit of the entry that
        nobody here had seen is withheld when it comes: ``transcript().elsewhere`` lists it, until it is kept (``keep``)
        or erased.

        The result says which entries were erased, and what still holds the words (``still_held``): edits of them,
        summaries, other entries, copies in other conversations of this repo. ``also``: more entries to erase, such as
        those of that list; a copy in another conversation is erased there.
        """
        return self._eraser.erase(entry, also)

    def adopt(self, fork: Conversation) -> Adopted:
        """Take in what is new in a fork of this conversation, as if it had been written here, beside what was said
        meanwhile. To adopt it again, here or on another device, adds only what has come since.

        New entries get ids of their own here, derived from those in the fork; selections, and what was kept of withheld
        entries, stay behind. Erased entries stay erased, and alternatives of what is erased here are
        withheld. Encrypted fields are encrypted anew where their keys are here. Raises InvalidContent where ``fork`` is
        no fork of this conversation, EntryNotFound where one of both is not synced yet.
        """
        return adopt(self._core, core_of(fork))

    def seal(self, entry: Entry | EntryId, status: Literal["stopped", "failed"] = "stopped") -> Entry:
        """End an entry that its writer left unfinished. If the writer lives after all, its own seal is another
        version."""
        return self._reader.entry(self._entries.end(entry, status))

    @contextmanager
    def batch(self) -> Iterator[None]:
        """Everything written inside becomes one update: all of it is kept, or none."""
        with self._core.editing():
            yield

    def stop(self, entry: Entry | EntryId) -> None:
        """Ask whoever is writing an entry, on whatever device, to stop. A generation obeys, and keeps what was said."""
        self._acts.stop(entry)

    def stop_asked(self, entry: Entry | EntryId) -> bool:
        """Whether somebody asked the writer of an entry to stop."""
        return self._reader.stop_asked(entry)

    def claim(self, call: ToolCall, *, take_over: bool = False) -> ToolClaim:
        """Say that this device means to run a tool call; run it only if the claim is ``granted()``.

        ``take_over``: the sessions whose claims to it are known here count as dead. This claim takes theirs over, and
        is granted unless another one came first meanwhile; then call this again. A session that lives after all sees
        that it lost (``taken_over``).
        """
        return self._acts.claim(call, take_over=take_over)

    def ask(
        self,
        text: Content | None = None,
        *,
        model: str = "",
        valid_while: ValidWhile = "frame",
        settings: Mapping[str, JSON] | None = None,
        instead_of: Entry | EntryId | None = None,
        author: str | None = None,
    ) -> Ask:
        """Ask a model to answer, wherever one is: on this device, another one, or a server that follows the library
        (``llmcrdt serve``). It is on disk when this returns, and is answered when somebody with such a model gets it.

        ``text``: what a user says first, in the same update. ``model``: a name, a pattern such as "smol*", "" for any.
        ``settings``: options of ``generate``, such as ``{"max_tokens": 200}``. ``valid_while``: "frame": it is answered
        only while the conversation begins with what stands here now; "always": after whatever stands there then.
        ``instead_of``: ask again for that answer. Raises InvalidContent, NotSealed where an answer is being written.
        """
        with self._core.editing():
            if text is not None:
                self.append("user", text, author=author)
            question = self._acts.ask(
                model=model, valid_while=valid_while, settings=settings or {}, instead_of=instead_of, author=author
            )
        return Ask(self._core, question)

    def asks(self) -> tuple[Ask, ...]:
        """Every ask of this conversation, answered or not, oldest first."""
        return asks_of(self._core)

    def rotate_key(self) -> KeyId:
        """Encrypt hidden fields under a new key from now on; returns its id. Older keys still open older fields. Other
        devices need the new key to read newer ones (``repo.keyring.export``). A device that lacks the key of the newest
        fields encrypts nothing (KeyMissing) until it gets that key, or calls this."""
        return self._core.rotate_key()

    def check_key(self) -> None:
        """Raises what encrypting a hidden field here would raise now, so that an app knows before it asks for what it
        is to encrypt: KeyMissing, SealingMissing, KeyringUnusable. Makes the conversation's first key where it has
        none."""
        self._core.check_encrypts()

    # the document as bytes

    def diff(self, since: bytes | None = None) -> bytes:
        """All that a replica at ``since`` (its ``version()``) may lack, as one update; everything if None."""
        return self._core.document.diff(since)

    def version(self) -> bytes:
        """The state of this replica, for another one's ``diff``."""
        return self._core.document.version()

    def apply(self, update: bytes) -> None:
        """Merge an update from any transport; it is on disk when this returns. Raises MalformedUpdate, and
        OtherDocument for one of another conversation, a fork for instance; nothing is kept."""
        self._core.document.apply(update)

    # observers and presence

    def observe(self, callback: Callable[[Change], None] | None = None) -> Observation[Change]:
        """Call back after every change, local and remote, in order, from one thread; without ``callback``, the result
        is read in a loop: ``async for change in conv.observe()``, or ``for`` in a thread. Call the result to stop it.

        The last change of a conversation that is deleted has ``deleted``; a loop ends after it, and when the
        conversation is closed."""
        check_callback(callback)
        core = self._core
        with core.document.lock:
            core.document.check_usable()
            core.document.load()
            observation = core.observers.add(callback)
        core.host.observed()
        return observation

    def present(self, state: Mapping[str, JSON] | None) -> None:
        """Say to whoever has this conversation open what goes on here: ``{"typing": True}``, say, or {} for just being
        here. None takes it back. Kept nowhere; without a relay nothing happens. At most 3,584 bytes as JSON.

        Keys with a meaning: ``typing`` (bool), ``author`` (as the repo's, where left out), ``generating`` (a model's
        name; ``generate`` sets it). Closing the conversation takes the state back. Raises InvalidContent."""
        self._core.host.presence().present(state)

    def presence(self) -> tuple[Present, ...]:
        """Everybody else who is here, on other devices and in other processes, as far as a relay reports it. A peer
        that is silent for 30 s is considered gone."""
        return self._core.host.presence().others()

    def observe_presence(self, callback: Callable[[tuple[Present, ...]], None]) -> Callable[[], None]:
        """Call back with ``presence()`` whenever it changes, from one thread. Returns a function that stops it."""
        return self._core.host.presence().observe(callback)


def core_of(conversation: Conversation) -> ConversationCore:
    """The conversation in use, for its repo and for generations; people need none of it."""
    return conversation._core

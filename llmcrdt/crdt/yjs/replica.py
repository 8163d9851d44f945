"""Replica over pycrdt: a Yjs document, which any Yjs client can read."""

from __future__ import annotations

import weakref
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any, NamedTuple

import pycrdt

from ...exceptions import LLMCRDTError, MalformedUpdate
from ..backend import Applied, Node, Other, Scalar, SharedText, Touched, check_value
from .nesting import Nesting, part_update
from .update import (
    Id,
    UpdateRange,
    check_state_vector,
    foreign_key,
    less_ranges,
    read_state_vector,
    read_structs,
    read_update,
    write_deletes,
)
from .waiting import Waiting

_EMPTY = b"\x00\x00"  # the update that says nothing


class Place(NamedTuple):
    """What a document held at some moment: its version, and what it had deleted."""

    version: bytes
    deletes: dict[int, list[tuple[int, int]]]


class YjsReplica:
    """One Yjs document. ``roots`` names its root maps; ``client_id`` None draws a fresh one.

    The core gets no update before all that it depends on (``yjs_nesting.py`` says why): yrs 0.28 would also show some
    of it, take what is behind a hole in what a client wrote, and go wrong when one run of structs comes for both."""

    kind = "yjs"

    def __init__(self, roots: Iterable[str], *, client_id: int | None = None) -> None:
        self._doc: Any = pycrdt.Doc() if client_id is None else pycrdt.Doc(client_id=client_id)
        self._maps: dict[str, Any] = {root: self._doc.get(root, type=pycrdt.Map) for root in roots}
        self._pending = Waiting()
        # Of what waited: what is to be looked at again.
        self._ready: dict[bytes, None] = {}
        # Of some clients a clock up to which nothing is missing; the state vector, where nothing came in beside it.
        self._known: dict[int, int] = {}
        self._exact = True
        self._sure = True
        self._nesting = Nesting()
        self._heard = _Heard()
        self._subscriptions: list[Any] = []
        self.broken = False

    def apply(self, update: bytes) -> Applied:
        span = read_update(update)
        self._watch()
        waited = bool(self._pending)
        with self._guarded("The update broke the CRDT core."):
            pending = self._give(update, span)
            self._retry()
            # Told again as it came: all of it is in, and the version, which names every client, needn't be read.
            if not self._heard.only(update):
                self._confirm()
            self._sure = True
        touched, emitted = self._take()
        changed = bool(emitted or touched)
        if pending or (waited and changed):
            # yrs 0.28 does not tell of all that it deletes when what waited is there
            touched = Touched({root: touched.of(root) | set(self.keys(root)) for root in self._maps})
        news = _merged(emitted) if emitted and not pending and not waited else update
        return Applied(touched, changed, pending, news)

    def foreign_key(self, update: bytes, root: str, prefix: str, own: str) -> str | None:
        return foreign_key(update, root, prefix, own)

    def adds(self, update: bytes) -> bool:
        """Whether ``apply`` would change anything. Nothing is applied. Raises MalformedUpdate."""
        span = read_update(update)
        version = self.version()
        if not span.covered_by(read_state_vector(version)):
            return True
        if not span.deletes:
            return False
        with self._guarded("The CRDT core could not encode the document."):
            gone = read_update(self._doc.get_update(version)).deletes
        return not all(_within(ranges, gone.get(client, [])) for client, ranges in span.deletes.items())

    def load(self, snapshot: bytes | None, updates: Iterable[bytes]) -> None:
        """Merge what was stored. The snapshot came from ``snapshot``, so it waits for nothing and isn't read again.
        More calls may follow, until the first ``apply``."""
        self._load([(update, read_update(update)) for update in updates], snapshot)

    def take_in(self, updates: Sequence[tuple[bytes, UpdateRange]]) -> None:
        """Apply updates that were read (``read_update``) in one transaction, which costs far less than one for each;
        what they did isn't told. Raises MalformedUpdate; where there are several, some may be in then, so the replica
        is broken."""
        self._watch()  # encoding what it did is one more thing that a bad update can't survive
        try:
            self._load(updates)
        except MalformedUpdate:
            self.broken = self.broken or len(updates) > 1
            raise
        finally:
            self._heard.take()

    def _load(self, updates: Sequence[tuple[bytes, UpdateRange]], snapshot: bytes | None = None) -> None:
        with self._guarded("The updates broke the CRDT core."):
            with self._doc.transaction():
                if snapshot:
                    self._doc.apply_update(snapshot)
                    self._exact = False
                    self._nesting.doubt()
                for update, span in updates:
                    self._give(update, span)
                self._retry()
            self._confirm()

    def snapshot(self) -> tuple[bytes, list[bytes]]:
        with self._guarded("The CRDT core could not encode the document."):
            return self._doc.get_update(), list(self._pending)

    def diff(self, since: bytes | None = None) -> bytes:
        if since is not None:
            check_state_vector(since)
        with self._guarded("The CRDT core could not encode the document."):
            update: bytes = self._doc.get_update(since)
            if self._pending:
                update = pycrdt.merge_updates(update, *self._pending)
        return update

    def place(self) -> Place:
        """Where it stands, for ``since``. Raises MalformedUpdate where updates wait."""
        self._let_nothing_wait()
        with self._guarded("The CRDT core could not encode the document."):
            version = self.version()
            deletes = read_update(self._doc.get_update(version)).deletes
        return Place(version, deletes)

    def since(self, place: Place) -> bytes:
        """What came since it stood at a place, as one update. Of deletes only the new ones, which ``diff`` can't tell.
        Raises MalformedUpdate where updates wait."""
        self._let_nothing_wait()
        with self._guarded("The CRDT core could not encode the document."):
            update: bytes = self._doc.get_update(place.version)
            version = self.version()
        span, before = read_update(update), read_state_vector(place.version)
        grown = {client: end for client, end in read_state_vector(version).items() if end > before.get(client, 0)}
        if span.written != grown or any(start != before.get(client, 0) for client, start in span.begun.items()):
            raise MalformedUpdate("The CRDT core did not encode what is new.")
        _, deletes = read_structs(update)
        return update[: -len(deletes)] + write_deletes(less_ranges(span.deletes, place.deletes))

    def _let_nothing_wait(self) -> None:
        if self._pending:
            raise MalformedUpdate("Updates wait for others.")

    def version(self) -> bytes:
        state: bytes = self._doc.get_state()
        return state

    @contextmanager
    def edit(self) -> Iterator[YjsEdit]:
        self._watch()
        edit = YjsEdit(self._maps, self._guarded("The CRDT core refused the change."))
        self._heard.touching = False  # the edit itself knows
        try:
            with self._doc.transaction():  # what the caller raises inside is the caller's affair
                yield edit
        except BaseException:
            self._nesting.doubt()
            raise
        finally:
            self._heard.touching, self._exact = True, False
        _, emitted = self._take()
        edit.update = _merged(emitted) if emitted else b""
        self._nesting.wrote(edit.update)

    def keys(self, root: str) -> Iterator[str]:
        return iter(list(self._maps[root].keys()))

    def get(self, root: str, key: str) -> Scalar | None:
        return _scalar(self._maps[root].get(key))

    def node(self, root: str, key: str) -> Node | None:
        found = self._maps[root].get(key)
        if not isinstance(found, pycrdt.Map):
            return None
        fields: dict[str, Scalar | SharedText] = {}
        for name, value in found.items():
            shown = SharedText(str(value)) if isinstance(value, pycrdt.Text) else _scalar(value)
            fields[name] = Other() if shown is None else shown
        return fields

    def _watch(self) -> None:
        """Observe from the first change after loading on: events for what is loaded would only cost time."""
        if self._subscriptions:
            return
        subscription = self._doc.observe(self._heard.on_transaction)
        self._subscriptions.append(subscription)
        # An observed document is freed only after unobserve (pycrdt 0.14.13, whatever the callback refers to).
        weakref.finalize(self, self._doc.unobserve, subscription).atexit = False
        for root, shared in self._maps.items():
            self._subscriptions.append(shared.observe_deep(self._heard.events_of(root)))

    def _take(self) -> tuple[Touched, list[bytes]]:
        return self._heard.take()

    def _give(self, update: bytes, span: UpdateRange) -> bool:
        """Give the core what it can take of an update, and keep it where some of it waits; whether that is new. Raises
        MalformedUpdate for what the core must not take."""
        if not self._exact and (span.nested or span.odd or span.lacks(self._known)):
            self._look()
        missing = {} if span.odd else span.behind(self._known)
        if not missing and (span.odd or span.lacks(self._known)):
            now, missing = part_update(update, self._known)
            self._put(now, read_update(now))
        elif not missing:
            self._put(update, span)
        missing = missing or (self._not_deleted(span) if span.deletes else {})
        return bool(missing or self._pending) and self._pending.put(update, missing)

    def _put(self, update: bytes, span: UpdateRange) -> None:
        if span.written and not span.covered_by(self._known):
            self._nesting.admit(update, span, self._known, self._doc.get_update)
        self._sure = False
        try:
            self._doc.apply_update(update)
        except BaseException:
            self._nesting.doubt()
            raise
        self._reach(span.written)

    def _reach(self, ends: Mapping[int, int]) -> None:
        for client, end in ends.items():
            if end > self._known.get(client, 0):
                self._known[client] = end
                if self._pending:
                    self._ready.update(dict.fromkeys(self._pending.reached(client, end)))

    def _not_deleted(self, span: UpdateRange) -> dict[int, Id]:
        """What an update deletes that isn't there yet, under numbers that no client has."""
        if not self._exact and any(end > self._known.get(client, 0) for client, end in span.deleted.items()):
            self._look()
        ends = span.deleted.items()
        return {~client: (client, end - 1) for client, end in ends if end > self._known.get(client, 0)}

    def _retry(self) -> None:
        """Look again at what need not wait any more, until nothing moves."""
        while self._ready:
            update = next(iter(self._ready))
            del self._ready[update]
            try:
                self._give(update, read_update(update))
            except (MalformedUpdate, ValueError):  # it nests too deep, as shows only now: nobody takes it
                self._pending.put(update, {})

    def _look(self) -> None:
        state = read_state_vector(self.version())
        self._exact = True
        self._reach(state)

    def _confirm(self) -> None:
        """Look whether the core took all that it was given. Raises MalformedUpdate where something waits for itself."""
        if self._sure:
            return
        state = read_state_vector(self.version())
        if any(end > state.get(client, 0) for client, end in self._known.items()):
            self.broken = True
            raise MalformedUpdate("The update waits for itself.")
        self._reach(state)
        self._exact = self._sure = True

    def _guarded(self, message: str) -> _Guard:
        return _Guard(self, message)


class _Guard:
    """pycrdt raises ValueError for bad bytes, RuntimeError for an update that it gives up in the middle of, and a panic
    in the core arrives as a BaseException of its own: here all become MalformedUpdate. It may be entered again and
    again."""

    def __init__(self, replica: YjsReplica, message: str) -> None:
        self._replica = replica
        self._message = message

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        match error:
            case None | LLMCRDTError():
                return
            case ValueError():
                self._replica._take()
                raise MalformedUpdate(f"{self._message} ({error})") from None
            case RuntimeError():
                pass
            case Exception() | KeyboardInterrupt() | SystemExit() | GeneratorExit():
                return
        self._replica.broken = True
        raise MalformedUpdate(self._message, hint="It was not kept; the document is loaded again.") from None


class _Heard:
    """What a document tells its observers. It must not know the replica: a callback that leads back to it is a cycle
    through Rust, which Python's garbage collector can't see, and neither would ever be freed."""

    def __init__(self) -> None:
        self.touching = True
        """Whether to find out what is touched."""
        self._touched: dict[str, set[str]] = {}
        self._emitted: list[bytes] = []

    def on_transaction(self, event: Any) -> None:
        if event.update != _EMPTY:
            self._emitted.append(bytes(event.update))

    def events_of(self, root: str) -> Callable[[Any], None]:
        def on_events(events: Any) -> None:
            if not self.touching:
                return
            touched = self._touched.setdefault(root, set())
            for event in events:
                path = event.path
                touched.update([str(path[0])] if path else event.keys)

        return on_events

    def only(self, update: bytes) -> bool:
        """Whether just this was told since the last ``take``."""
        return len(self._emitted) == 1 and self._emitted[0] == update

    def take(self) -> tuple[Touched, list[bytes]]:
        touched = Touched({root: frozenset(keys) for root, keys in self._touched.items()})
        emitted, self._touched, self._emitted = self._emitted, {}, []
        return touched, emitted


class YjsEdit:
    """The writes of one transaction."""

    def __init__(self, maps: Mapping[str, Any], guard: _Guard) -> None:
        self._maps = maps
        self._guard = guard
        self._touched: dict[str, set[str]] = {}
        self._nodes: dict[tuple[str, str], Node] = {}
        self.update = b""

    def put(self, root: str, key: str, value: Scalar) -> None:
        check_value(value)
        with self._guard:
            self._touch(root, key)[key] = value

    def put_node(self, root: str, key: str, fields: Mapping[str, Scalar], *, copied: bool = False) -> None:
        for value in () if copied else fields.values():
            check_value(value)
        with self._guard:
            self._touch(root, key)[key] = pycrdt.Map(dict(fields))
        self._nodes[root, key] = {name: v if isinstance(v, bytes) else str(v) for name, v in fields.items()}

    def put_field(self, root: str, key: str, name: str, value: Scalar) -> None:
        check_value(value)
        with self._guard:
            self._touch(root, key)[key][name] = value

    def put_text(self, root: str, key: str, name: str) -> None:
        with self._guard:
            self._touch(root, key)[key][name] = pycrdt.Text()

    def append_text(self, root: str, key: str, name: str, text: str) -> bool:
        with self._guard:
            node = self._touch(root, key).get(key)
            grown = node.get(name) if isinstance(node, pycrdt.Map) else None
            if not isinstance(grown, pycrdt.Text):
                return False
            grown += text
        return True

    def delete_field(self, root: str, key: str, name: str) -> None:
        with self._guard:
            node = self._touch(root, key).get(key)
            if isinstance(node, pycrdt.Map) and name in node:
                del node[name]

    def take_touched(self) -> Touched:
        touched = Touched({root: frozenset(keys) for root, keys in self._touched.items()}, self._nodes)
        self._touched, self._nodes = {}, {}
        return touched

    def _touch(self, root: str, key: str) -> Any:
        """The root map, in which a key is about to be written."""
        self._touched.setdefault(root, set()).add(key)
        self._nodes.pop((root, key), None)
        return self._maps[root]


def _within(ranges: Iterable[tuple[int, int]], others: Sequence[tuple[int, int]]) -> bool:
    """Whether every (start, end) lies inside one of the others; those are in order and don't touch."""
    starts = [start for start, _ in others]
    places = ((bisect_right(starts, start) - 1, end) for start, end in ranges)
    return all(at >= 0 and end <= others[at][1] for at, end in places)


def _merged(updates: Sequence[bytes]) -> bytes:
    return updates[0] if len(updates) == 1 else bytes(pycrdt.merge_updates(*updates))


def _scalar(value: object) -> Scalar | None:
    if isinstance(value, (bytes, bytearray)):
        return bytes(value)
    return value if isinstance(value, str) else None

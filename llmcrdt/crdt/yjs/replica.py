"""Replica over pycrdt: a Yjs document, which any Yjs client can read."""

from __future__ import annotations

import weakref
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from types import TracebackType
from typing import Any, NamedTuple

import pycrdt
from pycrdt import _pycrdt

from ...exceptions import LLMCRDTError, MalformedUpdate
from ..backend import Applied, Node, Other, ParsedUpdate, Scalar, SharedText, Touched, check_value, is_named
from .intake import Intake
from .pairs import Clocks, merge_whole, replace_pairs
from .update import (
    UpdateRange,
    check_state_vector,
    foreign_key,
    less_ranges,
    parse_update,
    read_state_vector,
    read_structs,
    read_update,
    write_deletes,
)

_Map: Any = _pycrdt.Map  # the core's own types, which know more than their stubs say
_Text: Any = _pycrdt.Text
_EMPTY = b"\x00\x00"  # the update that says nothing
_JOINED, _JOINED_SIZE = 32, 256 << 10
"""Stored updates that are joined before they are applied, and their bytes: past it the core takes longer than that
saves."""


class Place(NamedTuple):
    """The state of a document at some moment: its version, and what it had deleted."""

    version: bytes
    deletes: dict[int, list[tuple[int, int]]]


class YjsReplica:
    """One Yjs document. ``roots`` names its root maps; ``client_id`` None draws a fresh one. ``applying`` is entered
    while bytes are applied or loaded."""

    kind = "yjs"

    def __init__(
        self,
        roots: Iterable[str],
        *,
        client_id: int | None = None,
        applying: AbstractContextManager[None] | None = None,
    ) -> None:
        self._applying = nullcontext() if applying is None else applying
        self._doc: Any = pycrdt.Doc() if client_id is None else pycrdt.Doc(client_id=client_id)
        self._maps: dict[str, Any] = {root: self._doc.get(root, type=pycrdt.Map) for root in roots}
        # Weak: a circle would keep the document until somebody looks for garbage.
        self._intake = Intake(self._doc, pycrdt.get_state, weakref.WeakMethod(self._renew))
        self._heard = _Heard()
        self._subscriptions: list[Any] = []
        self._unobserve: weakref.finalize[..., YjsReplica] | None = None
        self.broken = False

    def apply(self, update: bytes) -> Applied:
        with self._applying:
            return self._apply(update, read_update(update))

    def _apply(self, update: bytes, span: UpdateRange) -> Applied:
        if not self._subscriptions and span.written and _is_empty(self._doc, self._intake):
            return self._apply_first(update, span)
        self._watch()
        waited = bool(self._intake.waiting)
        with self._guarded("The update broke the CRDT core."):
            pending = self._intake.give(update, span)
            self._intake.retry()
            # Told again as it came: all of it is in, and the version, which names every client, needn't be read.
            if self._heard.only(update):
                self._intake.sure = True
            else:
                self._confirm()
        touched, emitted = self._heard.take()
        changed = bool(emitted or touched)
        if pending or (waited and changed):
            # yrs 0.28 does not tell of all that it deletes when what waited is there
            touched = Touched({root: touched.of(root) | set(self.keys(root)) for root in self._maps})
        news = _merged(emitted) if emitted and not pending and not waited else update
        return Applied(touched, changed, pending, news)

    def _apply_first(self, update: bytes, span: UpdateRange) -> Applied:
        """Apply the update with which a replica begins: all that is there afterwards is new, and nobody need tell of
        each item, which costs more than to take it in."""
        with self._guarded("The update broke the CRDT core."):
            pending = self._intake.give(update, span)
            self._intake.retry()
            self._confirm()
            # Content that it both writes and deletes is not kept.
            news = update if pending or not span.deletes else self._doc.get_update()
        touched = Touched({root: frozenset(self.keys(root)) for root in self._maps})
        return Applied(touched, bool(touched) or not _is_empty(self._doc, self._intake), pending, news)

    def foreign_key(self, update: bytes, root: str, prefix: str, own: str) -> str | None:
        return foreign_key(update, root, prefix, own)

    def adds(self, update: bytes) -> bool:
        span = read_update(update)
        version = self.version()
        if not span.covered_by(read_state_vector(version)):
            return True
        if not span.deletes:
            return False
        with self._guarded("The CRDT core could not encode the document."):
            gone = read_update(self._doc.get_update(version), whole=True).deletes
        return not all(_within(ranges, gone.get(client, [])) for client, ranges in span.deletes.items())

    def load(self, snapshot: bytes | None, updates: Iterable[bytes]) -> None:
        """The snapshot waits for nothing, and isn't read again."""
        with self._applying:
            self._load(_joined(list(updates)), snapshot)

    def apply_together(self, updates: Sequence[ParsedUpdate]) -> None:
        self._watch()  # encoding what it did is one more thing that a bad update can't survive
        try:
            self._load([(update, [update.data]) for update in updates])
        except MalformedUpdate:
            self.broken = self.broken or len(updates) > 1
            raise
        finally:
            self._heard.take()

    def merge(self, updates: Sequence[ParsedUpdate]) -> list[bytes]:
        self._watch()
        kept: list[bytes] = []
        try:
            # The event of a transaction in which something waited does not tell all of it.
            together = 0 if len(updates) == 1 or self._intake.waiting else self._merge_together(updates, kept)
            for update, span in updates[together:]:
                applied = self._apply(update, span)
                if applied.news:
                    kept.append(applied.update)
        except MalformedUpdate:
            self.broken = self.broken or len(updates) > 1
            raise
        return kept

    def _merge_together(self, updates: Sequence[ParsedUpdate], kept: list[bytes]) -> int:
        """Apply updates in one transaction, up to the first that waits for another; how many that were."""
        count, waits = 0, False
        with self._guarded("The updates broke the CRDT core."):
            with self._intake.together():
                while count < len(updates) and not waits:
                    waits = self._intake.give(*updates[count])
                    count += 1
            _, emitted = self._heard.take()
            news = _merged(emitted) if emitted else _EMPTY
            # If all was told again, all of it is in, and the version, which names every client, needn't be read.
            told = read_update(news, whole=True).written
            given = (item for _, span in updates[:count] for item in span.written.items())
            if not waits and all(end <= told.get(client, 0) for client, end in given):
                self._intake.sure = True
            else:
                self._confirm()
        if emitted:
            kept.append(news)
        if waits:
            kept.append(updates[count - 1].data)
        return count

    def _load(self, groups: Sequence[_Group], snapshot: bytes | None = None) -> None:
        with self._guarded("The updates broke the CRDT core."):
            with self._intake.together():
                if snapshot:
                    self._doc.apply_update(snapshot)
                    self._intake.doubt()
                for whole, updates in groups:
                    self._intake.give_joined(*whole, updates)
                self._intake.retry()
            if len(groups) == 1 and self._heard.only(groups[0][0].data):  # as _apply does
                self._intake.sure = True
            else:
                self._confirm()

    def snapshot(self) -> tuple[bytes, list[bytes]]:
        with self._guarded("The CRDT core could not encode the document."):
            return self._doc.get_update(), list(self._intake.waiting)

    def diff(self, since: bytes | None = None) -> bytes:
        if since is not None:
            check_state_vector(since)
            since = self._intake.on_letters(since)
        with self._guarded("The CRDT core could not encode the document."):
            update: bytes = self._doc.get_update(since)
            if self._intake.waiting:
                update = merge_whole([update, *self._intake.waiting], pycrdt.merge_updates)
        return update

    def place(self) -> Place:
        """Its present state, for ``since``. Raises MalformedUpdate where updates wait."""
        self._intake.let_nothing_wait()
        with self._guarded("The CRDT core could not encode the document."):
            version = self.version()
            deletes = read_update(self._doc.get_update(version), whole=True).deletes
        return Place(version, deletes)

    def since(self, place: Place) -> bytes:
        """All that came since that state, as one update. Of deletes only the new ones, which ``diff`` can't tell.
        Raises MalformedUpdate where updates wait, or it is more than one may hold."""
        self._intake.let_nothing_wait()
        with self._guarded("The CRDT core could not encode the document."):
            update: bytes = self._doc.get_update(place.version)
            version = self.version()
        span, before = read_update(update, whole=True), read_state_vector(place.version)
        grown = {client: end for client, end in read_state_vector(version).items() if end > before.get(client, 0)}
        if span.written != grown or any(start != before.get(client, 0) for client, start in span.begun.items()):
            raise MalformedUpdate("The CRDT core did not encode what is new.")
        _, deletes = read_structs(update, whole=True)
        news = update[: -len(deletes)] + write_deletes(less_ranges(span.deletes, place.deletes))
        read_update(news)  # as whoever gets it will
        return news

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
            self._intake.doubt()
            raise
        finally:
            self._heard.touching = True
        _, emitted = self._heard.take()
        edit.update = _merged(emitted) if emitted else b""
        self._intake.wrote(edit.update)

    def keeps_deleted(self, root: str, key: str, names: Iterable[str]) -> bool:
        return False

    def keys(self, root: str) -> Iterator[str]:
        return iter(list(self._maps[root].keys()))

    def get(self, root: str, key: str) -> Scalar | None:
        return _scalar(self._maps[root].get(key))

    def node(self, root: str, key: str) -> Node | None:
        with self._doc.transaction() as transaction:
            # Below pycrdt's own classes: of its dozen calls for each field, this makes one.
            inside = transaction._txn
            found: Any = self._maps[root].integrated
            node: Any = found.get(inside, key) if found.has(inside, key) else None
            if type(node) is not _Map:
                return None
            fields: dict[str, Scalar | SharedText] = {}
            for name in node.keys(inside):
                value = node.get(inside, name)
                if isinstance(value, (str, bytes)):
                    fields[name] = value
                elif isinstance(value, _Text):
                    fields[name] = SharedText(value.get_string(inside))
                else:
                    fields[name] = bytes(value) if isinstance(value, bytearray) else Other()
            return fields

    def _watch(self) -> None:
        """Observe from the first change after loading on: events for what is loaded would only cost time."""
        if self._subscriptions:
            return
        subscription = self._doc.observe(self._heard.on_transaction)
        self._subscriptions.append(subscription)
        # An observed document is freed only after unobserve (pycrdt 0.14.13, whatever the callback refers to).
        self._unobserve = weakref.finalize(self, self._doc.unobserve, subscription)
        self._unobserve.atexit = False
        for root, shared in self._maps.items():
            self._subscriptions.append(shared.observe_deep(self._heard.events_of(root)))

    def _renew(self, clocks: Clocks) -> Any:
        """Go on with the same document, in which the letters with these second units are U+FFFD twice."""
        whole = replace_pairs(self._doc.get_update(), clocks)
        watched = bool(self._subscriptions)
        if self._unobserve is not None:
            self._unobserve()
        self._subscriptions.clear()
        self._doc = pycrdt.Doc(client_id=self._doc.client_id)
        self._maps = {root: self._doc.get(root, type=pycrdt.Map) for root in self._maps}
        self._doc.apply_update(whole)
        if watched:
            self._watch()
        return self._doc

    def _confirm(self) -> None:
        """Raises MalformedUpdate where something that was given to the core waits for itself."""
        if not self._intake.took_all():
            self.broken = True
            raise MalformedUpdate("The update waits for itself.")

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
                self._replica._heard.take()
                raise MalformedUpdate(f"{self._message} ({error})") from None
            case RuntimeError():
                pass
            case Exception() | KeyboardInterrupt() | SystemExit() | GeneratorExit():
                return
        self._replica.broken = True
        raise MalformedUpdate(self._message, hint="It was not kept; the document is loaded again.") from None


class _Heard:
    """The events of a document. It must not know the replica: a callback that leads back to it is a cycle
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

    def put_node(self, root: str, key: str, fields: Mapping[str, Scalar]) -> None:
        for value in fields.values():
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

    def erase_fields(self, root: str, key: str, names: Iterable[str]) -> None:
        with self._guard:
            node = self._touch(root, key)[key]
            for name in [name for name in node if is_named(name, names)]:
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


def _is_empty(doc: Any, intake: Intake) -> bool:
    return not intake.waiting and doc.get_state() == b"\x00"


def _within(ranges: Iterable[tuple[int, int]], others: Sequence[tuple[int, int]]) -> bool:
    """Whether every (start, end) lies inside one of the others; those are in order and don't touch."""
    starts = [start for start, _ in others]
    places = ((bisect_right(starts, start) - 1, end) for start, end in ranges)
    return all(at >= 0 and end <= others[at][1] for at, end in places)


def _merged(updates: Sequence[bytes]) -> bytes:
    return updates[0] if len(updates) == 1 else merge_whole(updates, pycrdt.merge_updates)


_Group = tuple[ParsedUpdate, Sequence[bytes]]


def _joined(updates: Sequence[bytes]) -> list[_Group]:
    """Stored updates in groups: each as one, if that can be, and as they are. The core joins many for what it costs to
    check one. Raises MalformedUpdate, before anything is applied."""
    groups: list[_Group] = []
    at = 0
    while at < len(updates):
        size, end = len(updates[at]), at + 1
        while end < len(updates) and end - at < _JOINED and (size := size + len(updates[end])) <= _JOINED_SIZE:
            end += 1
        group = updates[at:end]
        whole = _join(group)
        if whole is None:
            groups += [(parse_update(each), [each]) for each in group]
        else:
            groups.append((whole, group))
        at = end
    return groups


def _join(updates: Sequence[bytes]) -> ParsedUpdate | None:
    """Several updates as one; None where that can't be: each says for itself what is wrong."""
    if len(updates) == 1:
        return parse_update(updates[0])
    try:
        return parse_update(merge_whole(updates, pycrdt.merge_updates))
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException:  # a panic of the core is one of those
        return None


def _scalar(value: object) -> Scalar | None:
    if isinstance(value, (bytes, bytearray)):
        return bytes(value)
    return value if isinstance(value, str) else None

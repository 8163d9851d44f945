"""Bytes that merge: Backend is all that anybody asks of one kind of CRDT, Replica is one document of it.

A replica knows maps, texts and updates; it knows no conversations. Registered backends: ``registry.py``. The contract
as tests: ``testing.backend_suite.BackendSuite``.

A document is a few named root maps. A root's values are scalars (str, bytes) or *nodes*: nested maps whose fields are
scalars or shared texts. That is all the document layer needs, and every backend can give it.

Invariants of every backend:

* **Updates commute and repeat harmlessly.** ``apply`` in any order, any number of times, ends in the same document.
* **Nothing waits for ever unseen.** An update that needs another one first is kept, is part of ``diff``, and counts as
  ``pending`` until the other arrives.
* **Bytes from outside are checked first.** ``apply`` raises MalformedUpdate and changes nothing, or the replica says
  ``broken`` and must be thrown away and loaded again.
* **A conflict winner means nothing.** Which of two concurrent writes to one key survives is the backend's affair; the
  document layer never lets two writers use one key.
* **One writer identity per replica object,** fresh and random, never stored: copies of a file can't collide. What
  ``derive`` makes is the one exception: its identities are hashes of all that they ever write.
* **Pieces say what the whole said.** ``cut`` and ``split`` make updates that do together what the one did; ``compact``
  and ``redact`` leave out only what the document has deleted: all that was erased, and where the backend ``forgets``
  everything else too.
* **Bytes are read without a document.** ``read``, ``touches``, ``repeats``, ``foreign_key``, ``estimate_work``,
  ``join`` and ``locate`` build none, and take time in proportion to the bytes that they get.

A replica is not thread-safe; its owner holds a lock.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from ..exceptions import InvalidContent

Scalar = str | bytes

MAX_VALUE = 4 << 20
"""Bytes of one scalar that is written here, as UTF-8. It can't be cut, so it has to fit into one record; a relay takes
8 MiB as one where nobody set less. A value from elsewhere may be larger."""


def check_value(value: Scalar) -> None:
    """Raises InvalidContent where a value is too large."""
    if len(value) * 4 > MAX_VALUE and (size := len(value if isinstance(value, bytes) else value.encode())) > MAX_VALUE:
        raise InvalidContent(
            f"{size:,} bytes in one piece are too many; {MAX_VALUE:,} may be.",
            hint="Attach them as a Blob, or divide them among several entries.",
        )


def is_named(field: str, names: Iterable[str]) -> bool:
    """Whether a field is one of these. A name that ends with ``:`` stands for all fields that begin with it."""
    return any(field.startswith(name) if name.endswith(":") else field == name for name in names)


class SharedText(str):
    """The present content of a shared text; tells it apart from a scalar str."""

    __slots__ = ()


class Other(bytes):
    """A field of another shape: a number, a list, a map, ... It says only that it is there."""

    __slots__ = ()


Node = Mapping[str, Scalar | SharedText]


class NewNode(NamedTuple):
    """A node that ``Backend.derive`` makes, with its first fields. ``copied``: it is that of another document, and may
    have fields of any size."""

    root: str
    key: str
    fields: Mapping[str, Scalar]
    copied: bool = False


class NewField(NamedTuple):
    """A field that ``Backend.derive`` adds to a node which is, or was, made in a group of its own."""

    node: NewNode
    name: str
    value: Scalar


@dataclass(frozen=True)
class Touched:
    """Which keys of each root a change touched, or more. A node is touched when any field of it is. ``nodes``: by root
    and key, the fields of nodes that are known to hold just these, so that nobody has to read them."""

    keys: Mapping[str, frozenset[str]] = field(default_factory=dict)
    nodes: Mapping[tuple[str, str], Node] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return any(self.keys.values())

    def of(self, root: str) -> frozenset[str]:
        return self.keys.get(root, frozenset())


@dataclass(frozen=True)
class Applied:
    """The effect of an update. ``pending``: some of it now waits for another update; some may be readable all the same.
    Neither: it said nothing new. ``update``: what has to be kept of it; what the document had already is left out where
    that is possible, for it may be something that was deleted since."""

    touched: Touched
    changed: bool
    pending: bool
    update: bytes

    @property
    def news(self) -> bool:
        """Whether the bytes must be kept."""
        return self.changed or self.pending


class ParsedUpdate(NamedTuple):
    """An update whose structure was checked. ``structure`` is for the backend that read it, and for nobody else."""

    data: bytes
    structure: Any


class Work(NamedTuple):
    """``seconds``: processor time that an update takes at most, or about that; ``blocks``: how many it adds to its
    document."""

    seconds: float
    blocks: int


class Edit(Protocol):
    """The writes of one transaction: they become one update. A scalar of more than ``MAX_VALUE`` bytes is refused
    with InvalidContent."""

    def put(self, root: str, key: str, value: Scalar) -> None:
        """Set a scalar of a root map."""
        ...

    def put_node(self, root: str, key: str, fields: Mapping[str, Scalar]) -> None:
        """Create a node. The key must be new: two nodes under one key lose one of them."""
        ...

    def put_field(self, root: str, key: str, name: str, value: Scalar) -> None:
        """Set a field of an existing node."""
        ...

    def put_text(self, root: str, key: str, name: str) -> None:
        """Create an empty shared text as a field of an existing node."""
        ...

    def append_text(self, root: str, key: str, name: str, text: str) -> bool:
        """Append to a shared text. False, and nothing written, where it is not there any more."""
        ...

    def delete_field(self, root: str, key: str, name: str) -> None:
        """Remove a field of a node; absent is fine."""
        ...

    def erase_fields(self, root: str, key: str, names: Iterable[str]) -> None:
        """Remove fields of an existing node, and all that ever stood in them: when the transaction has ended, it is in
        no bytes of the document. A name that ends with ``:`` stands for all fields that begin with it. A replica that
        knows of it writes nothing into them any more."""
        ...

    def take_touched(self) -> Touched:
        """All that was touched since the last call. Writes can be read at once, also before the transaction ends."""
        ...

    @property
    def update(self) -> bytes:
        """After the transaction: its update; b"" if nothing was written. To write a value that stood there already may
        write nothing."""
        ...


class Replica(Protocol):
    """One document in memory."""

    @property
    def kind(self) -> str:
        """The document kind of the sync protocol: "yjs", "automerge"."""
        ...

    @property
    def broken(self) -> bool:
        """Whether the backend failed inside. Then only throwing the replica away is safe."""
        ...

    def apply(self, update: bytes) -> Applied:
        """Merge an update from anywhere. Raises MalformedUpdate; afterwards look at ``broken``."""
        ...

    def apply_together(self, updates: Sequence[ParsedUpdate]) -> None:
        """Apply updates in one transaction, which costs far less than one for each; what they did isn't told. Raises
        MalformedUpdate; where there are several, some may be in then, so the replica is ``broken``."""
        ...

    def merge(self, updates: Sequence[ParsedUpdate]) -> list[bytes]:
        """Apply updates, in as few transactions as can be; what has to be kept of them, as updates that say together
        what ``apply`` of each says: none where all is there already. Raises MalformedUpdate, as ``apply_together``."""
        ...

    def adds(self, update: bytes) -> bool:
        """Whether ``apply`` would change anything. Nothing is applied. Raises MalformedUpdate."""
        ...

    def foreign_key(self, update: bytes, root: str, prefix: str, own: str) -> str | None:
        """``Backend.foreign_key``, of bytes that nobody has read yet. Raises MalformedUpdate."""
        ...

    def load(self, snapshot: bytes | None, updates: Iterable[bytes]) -> None:
        """Merge what was stored, without reporting what it touched. The snapshot must come from ``snapshot``, or from
        ``Backend.compact``. More calls, without one, may follow until the first ``apply``. Raises MalformedUpdate."""
        ...

    def snapshot(self) -> tuple[bytes, list[bytes]]:
        """The document as one update, and, apart, the updates that still wait for another one."""
        ...

    def diff(self, since: bytes | None = None) -> bytes:
        """One update with all that a replica at version ``since`` may lack: everything if None, deletes always.

        Includes what is pending. Raises MalformedUpdate if ``since`` is not a version.
        """
        ...

    def version(self) -> bytes:
        """A name for all that this replica holds, for ``diff``. Equal versions do not prove equal deletes."""
        ...

    def edit(self) -> AbstractContextManager[Edit]:
        """A transaction. Validate before: what was written stays if the block raises."""
        ...

    def keeps_deleted(self, root: str, key: str, names: Iterable[str]) -> bool:
        """Whether the document's bytes may hold what stood in these fields of a node (as ``Edit.erase_fields`` takes
        them) and was removed without being erased."""
        ...

    def keys(self, root: str) -> Iterator[str]: ...

    def get(self, root: str, key: str) -> Scalar | None:
        """A scalar of a root map; None if absent or of another shape."""
        ...

    def node(self, root: str, key: str) -> Node | None:
        """All fields of a node, as they are now; those of another shape are ``Other()``. None if it is not a node."""
        ...


class Backend(Protocol):
    """One kind of CRDT. It holds no document, and any thread may call it.

    A method that gets an update raises MalformedUpdate for bytes that are none, unless it says something else.
    """

    @property
    def kind(self) -> str:
        """The document kind of the sync protocol: "yjs", "automerge"."""
        ...

    @property
    def empty(self) -> bytes:
        """The update that says nothing."""
        ...

    @property
    def forgets(self) -> bool:
        """Whether all that a document has deleted leaves its bytes, and not only what was erased
        (``Edit.erase_fields``): ``snapshot``, ``compact``, ``catch_up`` and ``redact`` leave it out."""
        ...

    def make_replica(self, roots: Iterable[str], applying: AbstractContextManager[None] | None = None) -> Replica:
        """A new, empty document with these root maps. ``applying`` is entered while the replica applies or loads bytes:
        if the bytes kill the process, its owner can tell which document did it."""
        ...

    # of one document

    def reply(self, replica: Replica, question: bytes) -> bytes:
        """The answer to somebody who speaks the CRDT's own sync protocol: for a state vector of Yjs the update that he
        lacks, for a sync message of Automerge another one. Raises MalformedUpdate for bytes that are no question."""
        ...

    def mark(self, replica: Replica) -> bytes:
        """A few bytes about the present state, for those who are sent updates in the CRDT's own sync protocol: for
        Automerge the part of a sync message before its changes. Empty where they need none, or it would be long."""
        ...

    # of no document

    def derive(self, groups: Iterable[Sequence[NewNode]], fields: Iterable[NewField] = ()) -> bytes:
        """The update that makes nodes, each group under a writer identity that is a hash of all that the group says,
        and adds fields, each under one of its own. So replicas that make the same group, or add the same field, write
        the same: it is there once, with all that anybody writes into it. Of a key that two groups hold which differ,
        one node is lost. Raises InvalidContent for a value that is too large."""
        ...

    # of one update

    def read(self, update: bytes) -> ParsedUpdate:
        """Check the structure of an update. One that passes may still break the replica that applies it."""
        ...

    def touches(self, update: ParsedUpdate, prefix: str) -> bool:
        """Whether an update may set a new field of a node whose name begins with ``prefix``. False is certain; True may
        be wrong. Raises nothing."""
        ...

    def foreign_key(self, update: ParsedUpdate, root: str, prefix: str, own: str) -> str | None:
        """A key that begins with ``prefix`` and that an update writes into a root map without writing ``own``. None
        where there is none; a key that already existed may be left out."""
        ...

    def repeats(self, updates: Iterable[ParsedUpdate], version: bytes) -> bool:
        """Whether any of these updates writes something that a replica at ``version`` has already."""
        ...

    def estimate_work(self, update: bytes, blocks: int) -> Work:
        """The cost of an update to a document that has so many blocks. A malformed one costs what was read of it."""
        ...

    def join(self, updates: Sequence[bytes], first: int, most: float) -> tuple[bytes, int]:
        """One update that says what some updates in a row say, from the ``first`` on, and how many those are: of a
        streamed answer many, else mostly one. Several are joined only where each can be read, to ``most`` bytes.
        Raises nothing."""
        ...

    def cut(self, update: bytes) -> list[bytes]:
        """Updates that say the same, in an order in which they can be applied, each small enough for a record that any
        relay takes. A thing that can't be divided, such as one large value, has one of its own. Bytes that are no
        update stay as they are."""
        ...

    def split(self, update: bytes, limit: int) -> list[bytes]:
        """Updates of at most ``limit`` bytes, in an order in which they can be applied. Raises MalformedUpdate where
        that can't be, for instance for one value that is larger. An edit made here is never so large but for that."""
        ...

    def locate(self, piece: bytes, root: str) -> Mapping[str, int]:
        """The nodes of a root that seem to begin in a piece of a ``Replica.snapshot``, cut out anywhere, and where in
        it: what they were made with stands behind. It is no more than a hint: some may be missing, others wrong.
        Raises nothing."""
        ...

    # of many updates

    def redact(self, whole: bytes, updates: Sequence[bytes]) -> list[bytes] | None:
        """Updates, cut as by ``cut``, that say of the document ``whole`` what ``updates`` say, without what it has
        deleted; they may say more of it. None where the updates hold nothing of that which leaves its bytes."""
        ...

    def compact(self, updates: Iterable[bytes]) -> list[bytes]:
        """The document that the updates make, as one update, or as several where no other replica would take one; after
        it those that still wait for others, and those that can't be applied, as they came. Content that the document
        has deleted is in none of the first, where it was erased or the backend ``forgets``."""
        ...

    def catch_up(self, snapshot: Sequence[bytes], before: Sequence[bytes], tail: Sequence[bytes]) -> bytes:
        """All that ``tail`` adds to the document that ``snapshot`` (from ``compact``) and ``before`` make, without what
        the tail says and deletes again. Raises MalformedUpdate also where something waits for other updates."""
        ...

    def begin(self, first: bytes) -> Replica:
        """A replica without roots that holds the first record of a log. A record that came from ``compact`` need not be
        read again. Raises MalformedUpdate."""
        ...

    def load_all(self, updates: Iterable[bytes]) -> tuple[Replica, list[bytes]]:
        """A replica without roots that holds all updates that can be applied, and those that can't."""
        ...

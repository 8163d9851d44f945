"""Writes a whole conversation into another document, which may be of another kind: all entries with all that they ever
said, acts and facts, under the same names. So ids, order and hashes are the same there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from ..crdt.backend import Edit, NewNode, Scalar, SharedText
from ..exceptions import KeyMissing
from ..ids import EntryId
from . import schema
from .blob import named_in
from .core import ConversationCore
from .encryption import EncryptedField
from .entry_fields import hidden_key

_PIECE = 1 << 19
"""Characters of content that are written as one update, which has to fit into a record."""


def copy_whole(
    source: ConversationCore, target: ConversationCore, told: Callable[[int, int], None] = lambda done, of: None
) -> None:
    """Write all of ``source`` into ``target``, of which nothing is here. Part of the caller's transaction. ``told``:
    how many entries are written, of how many. Raises KeyMissing for an encrypted field that can't be encrypted anew for
    another document."""
    document, replica = target.document, target.host.make_replica()
    with source.reading():
        with replica.edit() as edit:
            _copy_facts(source, target, edit)
        document.journal.append(edit.update, document.session, ())
        done, total = 0, sum(1 for _ in source.replica.keys(schema.ENTRIES))
        for nodes in _pieces(_copied(source, target)):
            made = target.host.derive([nodes])
            replica.apply(made)
            document.journal.append(made, document.session, [node.key for node in nodes])
            done += len(nodes)
            told(done, total)
        for entry, texts in _live(source):
            with replica.edit() as edit:
                for name, text in texts.items():
                    edit.put_text(schema.ENTRIES, entry, name)
                    edit.append_text(schema.ENTRIES, entry, name, text)
            document.journal.append(edit.update, document.session, [entry])
        if target.host.blobs is not None:
            target.host.blobs.named({*named_in(source.replica, schema.ENTRIES)})
    if document.loaded:
        document.load_again()


def _copy_facts(source: ConversationCore, target: ConversationCore, edit: Edit) -> None:
    for root in (schema.META, schema.ACTS):
        for key in sorted(source.replica.keys(root)):
            value = source.replica.get(root, key)
            if value is not None and not (root == schema.META and key.startswith(schema.IDENTITY)):
                edit.put(root, key, value)
    edit.put(schema.META, schema.IDENTITY + target.id, "1")


def _copied(source: ConversationCore, target: ConversationCore) -> Iterator[NewNode]:
    """The entries with their fields, but for texts that grow."""
    for key in sorted(source.replica.keys(schema.ENTRIES)):
        node = source.replica.node(schema.ENTRIES, key)
        if node is None:
            continue
        fields: dict[str, Scalar] = {
            name: value if isinstance(value, bytes) else str(value)
            for name, value in node.items()
            if type(value) in (str, bytes)
        }
        fields.update(_encrypted_anew(source, target, EntryId(key)))
        yield NewNode(schema.ENTRIES, key, fields, copied=True)


def _encrypted_anew(source: ConversationCore, target: ConversationCore, entry: EntryId) -> Mapping[str, bytes]:
    state, anew = source.view.states.get(entry), dict[str, bytes]()
    for name, field in sorted(state.hidden.items()) if state is not None else ():
        if isinstance(field, EncryptedField):
            if field.locked:
                raise KeyMissing(
                    f"Field {name!r} of entry {entry} is encrypted under a key that is not here.",
                    hint="Take the key in first, or convert where it is known. Nothing was changed.",
                )
            anew[hidden_key(name)] = field.encrypted_for(target.address(entry, name), target.document.random)
    return anew


def _live(source: ConversationCore) -> Iterator[tuple[EntryId, Mapping[str, str]]]:
    for key in sorted(source.replica.keys(schema.ENTRIES)):
        node = source.replica.node(schema.ENTRIES, key) or {}
        texts = {name: str(value) for name, value in node.items() if isinstance(value, SharedText)}
        if texts:
            yield EntryId(key), texts


def _pieces(nodes: Iterator[NewNode]) -> Iterator[list[NewNode]]:
    piece: list[NewNode] = []
    size = 0
    for node in nodes:
        more = sum(map(len, node.fields.values()))
        if piece and size + more > _PIECE:
            yield piece
            piece, size = [], 0
        piece.append(node)
        size += more
    if piece:
        yield piece

"""Writes a fork: one conversation up to an entry, copied into another one of which nothing is here yet.

No replica of the fork is needed for it, and one is loaded afterwards. The entries are written as derived updates, an
arrangement of the copies says where they stand, and their rows in the entry index are those of the originals.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from ..crdt.backend import NewNode, Scalar
from ..ids import EntryId
from . import schema
from .act_writer import ActWriter
from .acts import Keep, read_act, read_selection
from .arrangement import Arrangement
from .blob import named_by
from .core import ConversationCore
from .encryption import EncryptedField
from .entry import Entry
from .entry_fields import hidden_key
from .entry_state import entry_state_of
from .fork import Copied, copy_acts, copy_until, provenance
from .nodes import Selection
from .order import Order
from .projection import IndexRow
from .projector import row_of, withheld_of
from .transcript import NoCollections
from .view import ConversationView

_PIECE = 1 << 19
"""Characters of content that are written as one update, which has to fit into a record."""

Fields = Mapping[EntryId, Mapping[str, Scalar]]


def copy_conversation(
    source: ConversationCore,
    target: ConversationCore,
    entry: Entry | EntryId,
    created_at: float,
    told: Callable[[int, int], None] = lambda done, of: None,
) -> None:
    """Write ``source`` up to an entry of its transcript into ``target``, of which nothing is here; ``created_at``: in
    seconds since 1970. ``told``: how many entries are written, of how many. Part of the caller's transaction.
    Afterwards ``target`` is loaded: whoever forks is about to write there. Raises EntryNotFound, NotSealed."""
    with source.reading(), NoCollections():
        view = source.view
        chosen = view.find(entry, shown=True)
        copies = copy_until(view, source.replica, chosen)
        acts = copy_acts(view, source.replica, copies)
        fields, left_out = _fields(source, target, copies)
        transcript = view.transcript().hash
        origin = provenance(source.id, chosen, transcript, copies.keys(), view.order.sound(), left_out)
        now = _arranged(view, copies, acts)
        _write(target, fields, acts, origin, created_at, told)
        _copy_rows(source, target, copies, fields, now)
    if target.host.blobs is not None:
        target.host.blobs.named({*named_by(fields.values())})
    target.document.load_again()
    if chosen not in now.visible:  # what was written on it, and so kept it beside a rival, is not in the fork
        ActWriter(target).select(chosen)


def _fields(
    source: ConversationCore, target: ConversationCore, copies: Mapping[EntryId, Copied]
) -> tuple[Fields, list[tuple[EntryId, str]]]:
    """The fields of the copies. Encrypted ones that open in ``source`` are encrypted anew; those that don't are left
    out."""
    fields: dict[EntryId, Mapping[str, Scalar]] = {}
    left_out: list[tuple[EntryId, str]] = []
    for each, copied in copies.items():
        fields[each] = copied.fields
        if copied.encrypted:
            anew = _encrypted_anew(source, target, each)
            fields[each] = {**copied.fields, **anew}
            left_out += [(each, name) for name in copied.encrypted if hidden_key(name) not in anew]
    return fields, left_out


def _encrypted_anew(source: ConversationCore, target: ConversationCore, entry: EntryId) -> dict[str, bytes]:
    """The encrypted fields of an entry that open in ``source``, encrypted for its copy in ``target``."""
    return {
        hidden_key(name): field.encrypted_for(target.address(entry, name), target.document.random)
        for name, field in sorted(source.view.states[entry].hidden.items())
        if isinstance(field, EncryptedField) and not field.locked
    }


def _arranged(view: ConversationView, copies: Mapping[EntryId, object], acts: Mapping[str, Scalar]) -> Arrangement:
    """The order of the copies, by the rules for what the fork holds. ``copies``: oldest first."""
    order, sound = Order(), view.order.sound()
    for each in copies:
        order.put(sound[each])
    for each in view.erased.intersection(copies):
        order.erase(each, view.states[each].erases)
    for key, text in acts.items():
        match read_selection(key, text) or read_act(key, text):
            case Selection() as selection:
                order.select(selection)
            case Keep() as keep:
                order.keep(key, keep.entry)
    return order.now()


def _write(
    target: ConversationCore,
    fields: Fields,
    acts: Mapping[str, Scalar],
    origin: str,
    created_at: float,
    told: Callable[[int, int], None],
) -> None:
    document, replica = target.document, target.host.make_replica()
    with replica.edit() as edit:
        schema.write_identity(edit, target.id, created_at)
        edit.put(schema.META, "forked_from", origin)
        for key, text in acts.items():
            edit.put(schema.ACTS, key, text)
    document.journal.append(edit.update, document.session, ())
    done = 0
    for nodes in _pieces(fields):
        document.journal.append(target.host.derive([nodes]), document.session, [node.key for node in nodes])
        done += len(nodes)
        told(done, len(fields))


def _pieces(fields: Fields) -> Iterator[list[NewNode]]:
    piece: list[NewNode] = []
    size = 0
    for each, said in fields.items():
        more = sum(map(len, said.values()))
        if piece and size + more > _PIECE:
            yield piece
            piece, size = [], 0
        piece.append(NewNode(schema.ENTRIES, each, said, copied=True))
        size += more
    if piece:
        yield piece


def _copy_rows(
    source: ConversationCore,
    target: ConversationCore,
    copies: Mapping[EntryId, Copied],
    fields: Fields,
    now: Arrangement,
) -> None:
    """Have the entry index of the fork say what stands in it, with the rows of the originals; those that say something
    else in the fork are made anew."""
    if target.host.index is None:
        return
    before, withheld = source.view.order.now(), withheld_of(now)
    same: list[EntryId] = []
    rows: list[IndexRow] = []
    shown = [*now.head, *now.tail]
    for each in dict.fromkeys((*shown, *copies)):  # rows are numbered as the transcript has them
        pin = now.pins.get(each)
        moved = pin != before.pins.get(each) and source.view.has_choice(each)
        if copies[each].whole and not moved:  # what is withheld there is so here: all that decides it was copied
            same.append(each)
        else:
            state = entry_state_of(each, fields[each], target.address)
            rows.append(row_of(each, state, fields[each], pin, findable=each not in withheld))
    source.refresh_index()
    target.host.index.copy(source.id, same, rows, shown)

"""Whether a hidden field may go out, or why not: the one place that decides. Pure; the time is an argument.

A field's binding says what it is valid for. These keys have a meaning of their own, and all are optional:

- ``provider``: where it is not there, what stands before the "/" in the field's name; a field without either goes
  nowhere.
- ``expires``: seconds since 1970; from then on it does not hold.
- ``frame``: the hash of the list before the entry (``transcript.hash``), for fields that hold on exactly that list.
- ``group``: fields with one text here go out all, or none. ``group_size``: how many they are.
- ``version``: the hash of the version that the field belongs to; not needed where versions vouch for their fields.
- ``erased``: entries that were erased before, as its author knew.

Any other key (``api``, ``model``, ``account``, ...) has to be what the target says, or a list that holds it. A target
that says nothing of it is another one: what this version does not understand, it does not send.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace

from ..ids import EntryId, FrameHash
from .canonical import JSON
from .entry import Entry, HiddenField
from .frame import EMPTY_FRAME, Pin, extend_frame_hash
from .summaries import summaries

_OWN_KEYS = ("provider", "expires", "frame", "group", "group_size", "version", "erased")


@dataclass(frozen=True)
class Target:
    """The place where hidden fields would be sent. ``more``: values for other keys of bindings. ``whole_prefix``:
    every field of a generation holds only on the list that it was computed on, also where its binding does not say
    so."""

    provider: str
    api: str | None = None
    model: str | None = None
    account: str | None = None
    more: Mapping[str, str] = field(default_factory=dict)
    whole_prefix: bool = False

    def value(self, key: str) -> str | None:
        """Its value for a key of a binding."""
        known = {"provider": self.provider, "api": self.api, "model": self.model, "account": self.account}
        return known[key] if key in known else self.more.get(key)


_REASONS = {
    "elsewhere": "its entry is not shown",
    "covered": "a summary stands for its entry",
    "missing": "it is not here",
    "replaced": "it is not what its entry was sealed with",
    "added": "it was added after its entry was sealed",
    "locked": "it is encrypted, and its key is not here",
    "unreadable": "its binding can't be read",
    "version": "it came with another version of its entry",
    "expired": "it has expired",
    "erased": "something in its frame was erased",
    "frame": "the list before its entry is not the one that it holds on",
    "group": "its group is not complete",
    "refused": "its provider refused it",
    "unused": "the rules of the API leave out what it belongs to",
}


@dataclass(frozen=True)
class FieldReport:
    """One hidden field: whether it would go out, and why not. ``reason``: "" if it would; elsewhere, covered, missing,
    replaced, added, locked, unreadable, version, expired, erased, frame, group; of a request also unused or refused;
    or the key of the binding that is for another target, as provider or account. ``by``: the entry through which that
    is so, where there is one.

    ``str()`` says it in words, without any value of the binding."""

    entry: EntryId
    name: str
    reason: str = ""
    by: EntryId | None = None

    @property
    def sent(self) -> bool:
        """Whether it would go out."""
        return not self.reason

    def __str__(self) -> str:
        what = f"hidden field {self.name!r} of entry {self.entry}"
        if self.sent:
            return f"{what} is sent"
        return f"{what} is not sent: {self.why}" + (f" (entry {self.by})" if self.by else "")

    @property
    def why(self) -> str:
        """``reason`` in words; empty if it would go out."""
        if self.sent:
            return ""
        other = (
            self.reason if self.reason.isidentifier() else repr(self.reason)
        )  # a stranger's binding may say anything
        return _REASONS.get(self.reason, f"it is for another {other}")


def own_report(report: Callable[[Target], Sequence[FieldReport]], entry: Entry, name: str) -> FieldReport | None:
    """Whether a hidden field of an entry would go back to where it came from, as its binding names that. ``report``:
    the conversation's ``hidden_report``."""
    given = {key: value for key, value in entry.hidden[name].binding.items() if isinstance(value, str)}
    target = Target(given.get("provider", ""), given.get("api"), given.get("model"), given.get("account"))
    return next((each for each in report(target) if (each.entry, each.name) == (entry.id, name)), None)


@dataclass(frozen=True)
class Standing:
    """How an entry stands in what is sent. ``before``: the hash of the list before it. ``erased``: the entries of its
    frame that are erased, and were not when it was computed. ``summary``: one that its author had not seen and that
    stands for a part of the list before. ``parted_by``: the entry by which that list is no longer its frame."""

    entry: Entry
    before: FrameHash
    erased: Collection[EntryId] = ()
    summary: EntryId | None = None
    parted_by: Callable[[], EntryId | None] = lambda: None


def evaluate(name: str, field: HiddenField, target: Target, standing: Standing, now: float) -> FieldReport:
    """Whether a field would go to ``target`` at ``now`` (seconds since 1970), its group aside."""
    reason, by = _why_not(name, field, target, standing, now)
    return FieldReport(standing.entry.id, name, reason, by)


def _why_not(
    name: str, field: HiddenField, target: Target, standing: Standing, now: float
) -> tuple[str, EntryId | None]:
    entry = standing.entry
    if field.refused or field.locked:
        return field.refused or "locked", None
    binding = field.binding
    if (field.versions and entry.hash not in field.versions) or binding.get("version", entry.hash) != entry.hash:
        return "version", None
    if not _fits(binding.get("provider", name.partition("/")[0] if "/" in name else None), target.provider):
        return "provider", None
    for key in sorted(binding.keys() - _OWN_KEYS):
        if not _fits(binding[key], target.value(key)):
            return key, None
    expires, frame, known = binding.get("expires"), binding.get("frame"), binding.get("erased", [])
    if not (_is_number(expires) and _is_text(frame) and _is_text(binding.get("group")) and isinstance(known, list)):
        return "unreadable", None
    if expires is not None and now >= expires:
        return "expired", None
    erased = sorted(set(standing.erased) - {i for i in known if isinstance(i, str)})
    if erased:
        return "erased", erased[0]
    if frame is None and target.whole_prefix and entry.frame:
        frame = entry.frame.hash
    if frame is not None and frame != standing.before:
        return "frame", standing.parted_by()
    if frame is not None and standing.summary:
        return "frame", standing.summary
    return "", None


def _fits(bound: JSON, value: str | None) -> bool:
    return value is not None and (bound == value or (isinstance(bound, list) and value in bound))


def _is_number(value: JSON) -> bool:
    return value is None or (isinstance(value, (int, float)) and not isinstance(value, bool))


def _is_text(value: JSON) -> bool:
    return value is None or isinstance(value, str)


def report(
    entries: Sequence[Entry],
    target: Target,
    now: float,
    elsewhere: Sequence[tuple[Entry, EntryId]] = (),
    refused: Collection[tuple[EntryId, str]] = (),
) -> tuple[FieldReport, ...]:
    """Every hidden field of ``entries``, a whole transcript in order, and then of those that are elsewhere, each of
    them with the entry that hides it. ``refused``: those, by entry and name, that the target would not take."""
    printed = summaries(entries)
    covered = {i: summary for summary, ids in printed.items() for i in ids}
    made: list[FieldReport] = []
    bound: list[HiddenField | None] = []

    def add(entry: Entry, judge: Callable[[str, HiddenField], FieldReport]) -> None:
        for name in sorted({*entry.hidden, *entry.missing}):
            found = entry.hidden.get(name)
            line = judge(name, found) if found else FieldReport(entry.id, name, "missing")
            made.append(replace(line, reason="refused") if line.sent and (entry.id, name) in refused else line)
            bound.append(found)

    for standing in _standings(entries, printed):
        entry, summary = standing.entry, covered.get(standing.entry.id)
        if summary:
            add(entry, lambda name, _, i=entry.id, by=summary: FieldReport(i, name, "covered", by))  # type: ignore[misc]
        else:
            add(entry, lambda name, found, at=standing: evaluate(name, found, target, at, now))  # type: ignore[misc]
    for entry, by in elsewhere:
        add(entry, lambda name, _, i=entry.id, by=by: FieldReport(i, name, "elsewhere", by))  # type: ignore[misc]
    return tuple(_whole_groups(made, bound))


def fields_to_send(entries: Sequence[Entry], target: Target, now: float) -> dict[EntryId, dict[str, HiddenField]]:
    """The hidden fields that go to ``target`` with ``entries``, a whole transcript in order."""
    return fields_of(report(entries, target, now), entries)


def fields_of(lines: Iterable[FieldReport], entries: Sequence[Entry]) -> dict[EntryId, dict[str, HiddenField]]:
    """The hidden fields that a report of these entries says go out."""
    here = {entry.id: entry for entry in entries}
    found: dict[EntryId, dict[str, HiddenField]] = {}
    for line in lines:
        if line.sent:
            found.setdefault(line.entry, {})[line.name] = here[line.entry].hidden[line.name]
    return found


def _standings(entries: Sequence[Entry], printed: Mapping[EntryId, Set[EntryId]]) -> list[Standing]:
    """The entries that have hidden fields, in order."""
    at = {entry.id: index for index, entry in enumerate(entries)}
    here = {entry.id: entry for entry in entries}
    gone = {entry.id for entry in entries if entry.status == "erased"}
    stands = [(min(at[i] for i in ids), at[summary], summary) for summary, ids in printed.items() if ids]
    found: list[Standing] = []
    before = EMPTY_FRAME
    for index, entry in enumerate(entries):
        if entry.hidden or entry.missing:
            summary = next((by for first, last, by in stands if first < index < last), None)
            erased = gone & {i for i, _ in _frame_pins(entry, here)} - _known(entry, here) if gone else ()
            found.append(Standing(entry, before, erased, summary, _parted_by(entries, index, here)))
        if entry.hash is not None:
            before = extend_frame_hash(before, [(entry.id, entry.hash)])
    return found


def _frame_pins(entry: Entry, here: Mapping[EntryId, Entry]) -> list[Pin]:
    """The list that an entry was computed on, as far as its bases are here."""
    pieces: list[Sequence[Pin]] = []
    frame = entry.frame
    while frame is not None:
        pieces.append(frame.pins)
        base = here.get(frame.base[0]) if frame.base else None
        frame = base.frame if base else None
    return [pin for piece in reversed(pieces) for pin in piece]


def _known(entry: Entry, here: Mapping[EntryId, Entry]) -> set[EntryId]:
    """The entries of its frame that its author knew to be erased; each generation names those that its base doesn't."""
    known: set[EntryId] = set()
    one: Entry | None = entry
    while one is not None:
        known.update(one.saw_erased)
        one = here.get(one.frame.base[0]) if one.frame and one.frame.base else None
    return known


def _parted_by(entries: Sequence[Entry], index: int, here: Mapping[EntryId, Entry]) -> Callable[[], EntryId | None]:
    def find() -> EntryId | None:
        then = _frame_pins(entries[index], here)
        now = [(entry.id, entry.hash) for entry in entries[:index] if entry.hash is not None]
        same = next((i for i, (a, b) in enumerate(zip(then, now, strict=False)) if a != b), min(len(then), len(now)))
        if same < len(now) and (same == len(then) or now[same][0] not in {i for i, _ in then[same + 1 :]}):
            return now[same][0]
        return then[same][0] if same < len(then) else None

    return find


def _whole_groups(made: list[FieldReport], bound: Sequence[HiddenField | None]) -> list[FieldReport]:
    """If a field of a group does not go out, none of it does."""
    groups: dict[str, list[int]] = {}
    unknown: dict[EntryId, bool] = {}  # entries with a field that nobody here can tell the group of
    for index, found in enumerate(bound):
        group = found.binding.get("group") if found and not found.locked else None
        if isinstance(group, str):
            groups.setdefault(group, []).append(index)
        if found is None or found.locked:
            unknown[made[index].entry] = True
    for members in groups.values():
        sizes = [found.binding["group_size"] for i in members if (found := bound[i]) and "group_size" in found.binding]
        lacking = [i for i in members if not made[i].sent]
        if sizes:
            whole = all(size == len(members) for size in sizes)
        else:
            whole = not any(unknown.get(made[i].entry) for i in members)
        if lacking or not whole:
            by = made[lacking[0]].entry if lacking else None
            for i in members:
                if made[i].sent:
                    made[i] = replace(made[i], reason="group", by=by if by != made[i].entry else None)
    return made

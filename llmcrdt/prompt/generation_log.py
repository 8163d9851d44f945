"""The token log: the ids that a generation was shown and sampled as, kept in a hidden field of its entry.

A log holds only what its generation added: the prompt ids after the logged generation ``base``, then the sampled ids.
Concatenated along the bases the logs are the prompt, so that nothing a model has seen is ever tokenized again.

Bytes, version 1: ``01``; the length of ``base`` (0 or 16) in one byte, and its ASCII; then two lists, the prompt's and
the sampled ids: a count and the ids, all of them unsigned LEB128 in its shortest form.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..document.binding import Standing, Target, evaluate
from ..document.entry import TOKENS, Entry, HiddenField
from ..document.frame import EMPTY_FRAME, extend_frame_hash
from ..exceptions import InvalidContent
from ..ids import EntryId, FrameHash, is_entry_id
from ..tokenizer import Tokenizer

_VERSION = 1
_MAX_ID = 2**31 - 1


@dataclass(frozen=True)
class TokenLog:
    """``base``: the logged generation that this prompt continues, None if it starts at the very beginning.

    ``prompt``: ids after the base's last sampled id. ``sampled``: what the model drew, its end-of-turn token included.
    """

    base: EntryId | None
    prompt: tuple[int, ...]
    sampled: tuple[int, ...]

    def pack(self) -> bytes:
        """Raises InvalidContent for an id that is not a token id, or a base that is not an entry id."""
        if self.base is not None and not is_entry_id(self.base):
            raise InvalidContent(f"{self.base!r} is not an entry id.")
        base = (self.base or "").encode("ascii")
        out = bytearray((_VERSION, len(base))) + base
        for ids in (self.prompt, self.sampled):
            _put(out, len(ids))
            for token in ids:
                _put(out, token)
        return bytes(out)

    @classmethod
    def unpack(cls, data: bytes) -> TokenLog:
        """The log of these bytes. Raises InvalidContent for bytes that ``pack`` doesn't make."""
        if len(data) < 2 or data[0] != _VERSION:
            raise InvalidContent("Not a token log of version 1.")
        at = 2 + data[1]
        base = data[2:at].decode("latin-1")
        if base and not is_entry_id(base):
            raise InvalidContent("A token log names a base that is not an entry id.")
        prompt, at = _take_list(data, at)
        sampled, at = _take_list(data, at)
        if at != len(data):
            raise InvalidContent("A token log has bytes after its end.")
        return cls(EntryId(base) if base else None, prompt, sampled)


def token_field(log: TokenLog, tokenizer: Tokenizer, erased: Sequence[EntryId] = ()) -> HiddenField:
    """The hidden field that stores ``log`` on its generation; the version that it is sealed with vouches for it.

    ``erased``: entries that were erased before this prompt was made, so none of their words are in it
    (``Prompt.erased``). An erased entry that is not named here makes the log invalid.
    """
    binding = {"tokenizer": tokenizer.hash}
    return HiddenField(log.pack(), {**binding, "erased": list(erased)} if erased else binding)


@dataclass(frozen=True)
class Logged:
    """A generation whose log is valid, at ``index`` of the entries; ``base`` is the one before it in the chain."""

    entry: Entry
    index: int
    log: TokenLog
    base: Logged | None

    def chain(self) -> tuple[Logged, ...]:
        """From the first logged generation to this one."""
        out: list[Logged] = []
        link: Logged | None = self
        while link is not None:
            out.append(link)
            link = link.base
        return tuple(reversed(out))


def logged_generations(entries: Sequence[Entry], tokenizer: Tokenizer) -> list[Logged]:
    """Generations among ``entries``, a transcript in order, whose logs hold, in order.

    A log holds if its field does (``binding.evaluate``): it is bound to this tokenizer and to the entry's version, the
    entry's frame is exactly the list before it, and no entry was erased whose words its ids may spell. The tokenizer
    has to have all of its ids, and its base has to hold too. Costs one pass.
    """
    found: dict[EntryId, Logged] = {}
    erased: list[tuple[int, EntryId]] = []
    before = EMPTY_FRAME
    target = Target("llmcrdt", more={"tokenizer": tokenizer.hash}, whole_prefix=True)
    for index, entry in enumerate(entries):
        if entry.hash is None:
            continue
        if entry.frame is not None and not entry.frame.assumed:
            log = _bound_log(entry, target, before, tokenizer)
            base = found.get(log.base) if log and log.base else None
            if log and (base is not None or log.base is None):
                gone = {name for at, name in erased if at > (base.index if base else -1)}
                if not gone or evaluate(TOKENS, entry.hidden[TOKENS], target, Standing(entry, before, gone), 0.0).sent:
                    found[entry.id] = Logged(entry, index, log, base)
        if entry.status == "erased":
            erased.append((index, entry.id))
        before = extend_frame_hash(before, [(entry.id, entry.hash)])
    return list(found.values())


def _bound_log(entry: Entry, target: Target, before: FrameHash, tokenizer: Tokenizer) -> TokenLog | None:
    field = entry.hidden.get(TOKENS)
    if field is None or entry.role != "assistant" or entry.status == "erased":
        return None
    if not evaluate(TOKENS, field, target, Standing(entry, before), 0.0).sent:  # a token log does not expire
        return None
    try:
        log = TokenLog.unpack(field.data)
    except InvalidContent:
        return None
    return log if max((*log.prompt, *log.sampled), default=0) < tokenizer.n_vocab else None  # a stranger's may not


def _put(out: bytearray, number: int) -> None:
    if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number <= _MAX_ID:
        raise InvalidContent(f"{number!r} is not a token id.")
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)


def _take_list(data: bytes, at: int) -> tuple[tuple[int, ...], int]:
    count, at = _take(data, at)
    if count > len(data) - at:  # each id takes a byte or more
        raise InvalidContent("A token log announces more ids than it has bytes.")
    ids = []
    for _ in range(count):
        token, at = _take(data, at)
        ids.append(token)
    return tuple(ids), at


def _take(data: bytes, at: int) -> tuple[int, int]:
    number = 0
    for shift in range(0, 35, 7):
        if at >= len(data):
            break
        byte = data[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            if number > _MAX_ID or (byte == 0 and shift):
                break
            return number, at
    raise InvalidContent("A token log is cut short, or holds a number out of range.")

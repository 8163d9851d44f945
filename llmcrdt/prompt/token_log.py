"""A transcript as the token ids that a model is given. Pure.

Ids that a model has already seen come from the token logs; only what came after the last logged generation is rendered
and tokenized. The rest is found by difference: the template renders the frame, an answer that is one made-up word, and
the new messages; what stands after that word is the end of the answer's turn, the new messages, and the beginning of
the next answer.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from ..document.entry import TOKENS, Entry
from ..document.repairs import is_shown
from ..exceptions import TemplateFailed
from ..ids import EntryId
from ..tokenizer import Tokenizer
from .adapt import Level
from .generation_log import Logged, TokenLog, logged_generations, token_field
from .messages import Chat, Message, Settings, messages, settings, summaries, words_of
from .render import Renderer

__all__ = ["TOKENS", "Prompt", "Span", "TokenLog", "entry_ends", "prompt_ids", "sources", "token_field"]

Span = tuple[EntryId | None, int, int]
"""(entry, start, stop): these ids of the prompt are that entry's. None: the template's own, or not told apart."""


@dataclass(frozen=True)
class Prompt:
    """The prompt of a generation. The next token log is ``TokenLog(prompt.base, prompt.appended, sampled)``.

    ``logged``: how many of ``ids`` come from token logs, up to and with the generation ``base``; ``appended`` follow.
    ``template_rewrites``: the template, asked anew, would print earlier turns otherwise (it drops reasoning, say); the
    ids keep what the model has seen. ``erased``: erased entries since ``base``, for ``token_field``.
    """

    ids: tuple[int, ...]
    logged: int
    base: EntryId | None
    segments: tuple[Span, ...]
    template_rewrites: bool = False
    erased: tuple[EntryId, ...] = ()

    @property
    def appended(self) -> tuple[int, ...]:
        return self.ids[self.logged :]


def prompt_ids(entries: Sequence[Entry], tokenizer: Tokenizer, *, created_at: float, use_log: bool = True) -> Prompt:
    """The prompt for an answer to ``entries``, a whole transcript in order.

    ``created_at`` is when the conversation began, in seconds since 1970: the date for templates that print one, unless
    a config part sets it. ``use_log=False`` renders everything anew. Raises TemplateFailed.
    """
    chat = messages(entries)
    renderer = Renderer.of(chat, tokenizer, created_at)
    last = _usable(entries, chat, renderer) if use_log else None
    if last is not None:
        chain = last.chain()
        rest = _after(chat, entries, last, renderer)
        if rest is not None:
            text, rewrites = rest
            return _join(entries, chain, renderer.ids(text), rewrites)
    text, _ = renderer.first(chat.messages, chat.settings, generating=True)
    return _join(entries, (), renderer.with_bos(text), False)


def sources(prompt: Prompt, entries: Sequence[Entry], tokenizer: Tokenizer) -> list[Span]:
    """Which entry each stretch of the prompt's ids comes from, without gaps: words are found again in the text."""
    out: list[Span] = []
    todo = [entry for entry in entries if is_shown(entry)]
    for name, start, stop in prompt.segments:
        if name is not None:
            out.append((name, start, stop))
            place = next((i for i, entry in enumerate(todo) if entry.id == name), -1)
            todo = todo[place + 1 :]
            continue
        out += _found(prompt.ids, start, stop, todo, tokenizer)
    return out


def entry_ends(prompt: Prompt, entries: Sequence[Entry], tokenizer: Tokenizer) -> tuple[int, ...]:
    """After how many ids an entry ends, ascending. In what was logged, only the ends of answers and of what was added
    for each are told: to find the others, all words would be searched for again."""
    spans = prompt.segments if prompt.logged else sources(prompt, entries, tokenizer)
    return tuple(stop for name, _, stop in spans if name is not None or prompt.logged)


def _join(entries: Sequence[Entry], chain: Sequence[Logged], rest: Sequence[int], rewrites: bool) -> Prompt:
    ids: list[int] = []
    segments: list[Span] = []

    def add(name: EntryId | None, more: Sequence[int]) -> None:
        if more:
            segments.append((name, len(ids), len(ids) + len(more)))
            ids.extend(more)

    for link in chain:
        add(None, link.log.prompt)
        add(link.entry.id, link.log.sampled)
    logged, last = len(ids), chain[-1] if chain else None
    add(None, rest)
    since = last.index if last else -1
    erased = tuple(entry.id for entry in entries[since + 1 :] if entry.status == "erased" and entry.sealed)
    return Prompt(tuple(ids), logged, last.entry.id if last else None, tuple(segments), rewrites, erased)


def _usable(entries: Sequence[Entry], chat: Chat, renderer: Renderer) -> Logged | None:
    """The last logged generation whose prompt was made with what counts now: other tools need another prompt."""
    shown = set(chat.sources)
    logged = [link for link in logged_generations(entries, renderer.tokenizer) if link.entry.id in shown]
    now = summaries(entries)
    for link in reversed(logged):
        if now and summaries(entries[: link.index]) != now:
            continue
        then = settings(entries[: link.index])
        if then == chat.settings or (link is logged[-1] and _same_head(chat, link, then, renderer)):
            return link
    return None


def _same_head(chat: Chat, link: Logged, then: Settings, renderer: Renderer) -> bool:
    """Whether the template prints the same before an answer under the settings of then and of now."""
    head = [*chat.messages[: chat.sources.index(link.entry.id)], {"role": "assistant", "content": _word(chat)}]
    other = Renderer.of(Chat(chat.messages, chat.sources, then), renderer.tokenizer, renderer.created_at)
    try:
        now, _ = renderer.first(head, chat.settings, generating=False)
        before, _ = other.first(head, then, generating=False)
    except TemplateFailed:
        return False
    return renderer.guard.plain(now) == other.guard.plain(before)


def _word(chat: Chat) -> str:
    """A word that stands in no message and that no template has a reason to change."""
    everything, n = repr((chat.messages, chat.settings)), 0
    while (word := f"Qzj{n}xAnswerStandsHereQzj") in everything:
        n += 1
    return word


def _after(chat: Chat, entries: Sequence[Entry], last: Logged, renderer: Renderer) -> tuple[str, bool] | None:
    """The marked text after what ``last`` sampled, and whether the template would now rewrite what stands before.

    None where the template can't be made to tell.
    """
    place = chat.sources.index(last.entry.id)
    head, real, new = chat.messages[:place], chat.messages[place], chat.messages[place + 1 :]
    word = _word(chat)
    answer: Message = {"role": "assistant", "content": word}
    if "reasoning_content" in real:
        answer["reasoning_content"] = real["reasoning_content"]
    said, end = _said(last, renderer.tokenizer)
    difference = _Difference(renderer, chat.settings, tuple(head), answer, tuple(new), word, end)
    if "tool_calls" not in real:
        return difference.after_word()
    calls = {**answer, "tool_calls": real["tool_calls"]}
    return (
        difference.after_calls(calls)
        or difference.after_said({**calls, "content": real["content"]}, said)
        or difference.after_word()
    )


def _said(last: Logged, tokenizer: Tokenizer) -> tuple[str, str]:
    """The text that was sampled, and the text of the end-of-turn token after it; "" if the turn was cut short."""
    sampled = last.log.sampled
    ended = bool(sampled) and tokenizer.is_end(sampled[-1])
    control = frozenset(tokenizer.special.values())
    said = b"".join(_spelled(token, tokenizer, control) for token in (sampled[:-1] if ended else sampled))
    return said.decode("utf-8", "replace"), tokenizer.token_text(sampled[-1]) if ended else ""


@dataclass(frozen=True)
class _Difference:
    """Finds, in rendered text, what a template prints after an answer that ended with ``end``."""

    renderer: Renderer
    settings: Settings
    head: tuple[Message, ...]
    answer: Message
    new: tuple[Message, ...]
    word: str
    end: str

    def after_word(self) -> tuple[str, bool] | None:
        """The answer as one word: what stands after it, less the end of the turn if that was sampled."""
        try:
            whole, level = self._whole(self.answer)
        except TemplateFailed:
            return None
        before, found, rest = whole.rpartition(self.word)
        if not found:
            return None
        opening, _, closing = (self._alone(self.answer, level) or "").partition(self.word)
        return self._unclosed(rest, closing), opening != before

    def after_calls(self, answer: Message) -> tuple[str, bool] | None:
        """The answer with its real calls, which the sampled ids hold: what stands after those.

        Rendered without the new messages, the text ends where the answer's turn ends. If it is the beginning of the
        text with them, the remainder is new; the closing of the turn is what follows the end token there.
        """
        try:
            whole, level = self._whole(answer)
        except TemplateFailed:
            return None
        if level >= Level.NO_TOOLS:
            return None
        turn = self._alone(answer, level)
        if turn is None or not whole.startswith(turn):
            return None
        closing = self._closing(turn, level)
        return None if closing is None else (closing + whole[len(turn) :], False)

    def after_said(self, answer: Message, said: str) -> tuple[str, bool] | None:
        """The text that follows, if the template prints calls as they were sampled, and goes on in the same turn."""
        try:
            whole, level = self._whole(answer)
        except TemplateFailed:
            return None
        opening = (self._alone(self.answer, level) or "").partition(self.word)[0]
        at = whole.find(said.strip(), len(_common(opening, whole))) if level < Level.NO_TOOLS and said.strip() else -1
        if at < 0:
            return None
        return whole[at + len(said.strip()) :].removeprefix(self.end), False

    def _unclosed(self, rest: str, closing: str) -> str:
        """``rest`` less the end of the answer's turn, if that was sampled. ``closing``: the end of a turn that is the
        last; where the template has another token for that, it stands for the one amid a conversation."""
        end = self.end
        if not end:
            return rest
        at = _common(rest, closing).find(end)
        if at >= 0:
            return rest[at + len(end) :]
        if closing.startswith(end) and not rest.startswith(end):
            control = (text for text in self.renderer.tokenizer.special if text and rest.startswith(text))
            return rest.removeprefix(max(control, key=len, default=""))
        return rest.removeprefix(end)

    def _closing(self, turn: str, level: Level) -> str | None:
        """How the template closes a turn that ends with calls, after the end token."""
        plain = self._alone(self.answer, level)
        if plain is None:
            return None
        opening, _, closing = plain.partition(self.word)
        at = turn.rfind(self.end) if self.end else -1
        if at >= len(_common(opening, turn)):
            return turn[at + len(self.end) :]
        return closing if turn.endswith(closing) else None

    def _whole(self, answer: Message) -> tuple[str, Level]:
        return self.renderer.first([*self.head, answer, *self.new], self.settings, generating=True)

    def _alone(self, answer: Message, level: Level) -> str | None:
        try:
            return self.renderer.text([*self.head, answer], self.settings, level=level, generating=False)
        except TemplateFailed:
            return None


def _common(one: str, other: str) -> str:
    """The beginning that both have."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if one[:middle] == other[:middle] else (low, middle - 1)
    return one[:low]


def _found(ids: Sequence[int], start: int, stop: int, todo: list[Entry], tokenizer: Tokenizer) -> list[Span]:
    """The spans of ``ids[start:stop]``; takes from ``todo`` the entries whose words it finds, in order."""
    starts, data = [0], bytearray()
    control = frozenset(tokenizer.special.values())
    for token in ids[start:stop]:
        data += _spelled(token, tokenizer, control)
        starts.append(len(data))
    places: list[tuple[EntryId, int, int]] = []
    at = 0
    while todo:
        words = [piece for text in words_of(todo[0]) if (piece := text.strip().encode("utf-8"))]
        spots = [data.find(word, at) for word in words]
        if words and -1 in spots:
            break
        entry = todo.pop(0)
        if words:
            begin, at = min(spots), max(spot + len(word) for spot, word in zip(spots, words, strict=True))
            places.append((entry.id, begin, at))
    return _spans(places, starts, start, stop)


def _spelled(token: int, tokenizer: Tokenizer, control: frozenset[int]) -> bytes:
    """The bytes that a token prints, those of control tokens too."""
    return tokenizer.token_text(token).encode("utf-8") if token in control else tokenizer.decode([token])


def _spans(places: Sequence[tuple[EntryId, int, int]], starts: Sequence[int], start: int, stop: int) -> list[Span]:
    """Byte ranges as id ranges; what lies between belongs to nobody."""
    out: list[Span] = []
    at = start
    for name, begin, end in places:
        first = max(at, start + bisect_right(starts, begin) - 1)
        past = min(stop, start + bisect_left(starts, end))
        if past <= first:
            continue
        if first > at:
            out.append((None, at, first))
        out.append((name, first, past))
        at = past
    if stop > at:
        out.append((None, at, stop))
    return out

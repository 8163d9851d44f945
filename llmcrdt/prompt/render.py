"""One chat rendered for one model, at the first level of form that its template takes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ..exceptions import TemplateFailed
from ..tokenizer import Tokenizer
from .adapt import Level, adapt
from .dates import moment
from .guard import Guard, guard_settings, strings
from .messages import Chat, Message, Settings

PLAIN_TEMPLATE = (
    "{% for m in messages %}{{ m.role + ': ' + m.content }}"
    "{% for c in m.tool_calls or [] %}{{ ' ' + c.function.name + ' ' + c.function.arguments | tojson }}{% endfor %}"
    "{{ '\\n' }}{% endfor %}{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
)
"""For models that bring no template (base models): one line for each message."""


@dataclass(frozen=True)
class Renderer:
    """Renders chats for one tokenizer, all with one guard, so that the texts can be compared."""

    tokenizer: Tokenizer
    guard: Guard
    created_at: float

    @classmethod
    def of(cls, chat: Chat, tokenizer: Tokenizer, created_at: float, *more: str) -> Renderer:
        """A renderer whose guard knows every string of ``chat``."""
        words = [*strings(list(chat.messages)), *strings([chat.settings.tools, chat.settings.template]), *more]
        return cls(tokenizer, Guard(tokenizer.special, [*words, tokenizer.chat_template]), created_at)

    def text(self, messages: Sequence[Message], settings: Settings, *, level: Level, generating: bool) -> str:
        """The marked text at one level. Raises TemplateFailed."""
        from .chat_template import render

        adapted = adapt(messages, level, generating=generating)
        tools, arguments = self._settings(settings)

        def render_with(tools: list[Any] | None) -> str:
            return render(
                self.tokenizer.chat_template or PLAIN_TEMPLATE,
                [self.guard.message(message) for message in adapted],
                tools=tools,
                arguments=arguments,
                date=self._date(settings),
                add_generation_prompt=generating,
                bos=self.tokenizer.bos,
                eos=self.tokenizer.eos,
            )

        try:
            rendered = render_with(tools)
        except TemplateFailed:
            if tools is not None:
                raise
            rendered = render_with([])  # some ask no question before they list the tools
        return self.guard.restore(rendered)

    def first(self, messages: Sequence[Message], settings: Settings, *, generating: bool) -> tuple[str, Level]:
        """The text at the first level that the template takes, and that level. Raises the first level's failure."""
        failure: TemplateFailed | None = None
        silent: tuple[str, Level] | None = None
        for level in Level:
            try:
                text = self.text(messages, settings, level=level, generating=generating)
            except TemplateFailed as error:
                failure = failure or error
                continue
            if all(self.shows(text, message) for message in messages if message["role"] in ("system", "tool")):
                return text, level
            silent = silent or (text, level)
        if silent:
            return silent
        assert failure is not None
        raise failure

    def ids(self, text: str) -> list[int]:
        return self.guard.encode(text, self.tokenizer)

    def with_bos(self, text: str) -> list[int]:
        """Ids of a whole prompt: it begins with one ``bos`` if the model wants one, whoever prints it."""
        ids, bos = self.ids(text), self.tokenizer.bos
        if not bos or not self.tokenizer.add_bos:
            return ids
        first = self.tokenizer.special.get(bos)
        token = [first] if first is not None else self.tokenizer.encode(bos, special=True)
        return ids if ids[: len(token)] == token else [*token, *ids]

    def shows(self, text: str, message: Message) -> bool:
        """Whether a marked text has the words of ``message``: some templates drop a message without a word."""
        words, plain = message["content"].strip(), self.guard.plain(text)
        return words in plain or json.dumps(words, ensure_ascii=False)[1:-1] in plain

    def _settings(self, settings: Settings) -> tuple[list[Any] | None, Mapping[str, Any]]:
        try:
            return guard_settings(self.guard, settings)
        except RecursionError:
            raise TemplateFailed(
                "Tools or template arguments nest too deeply.", hint="Append a simpler config."
            ) from None

    def _date(self, settings: Settings) -> datetime:
        return moment(settings.date, self.created_at)

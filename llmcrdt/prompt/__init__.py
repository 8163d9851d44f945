"""Document -> token ids: chat messages, the model's template, the token log. Pure; no clock, no network, no engine."""

from .messages import RENDERER, Chat, Settings, messages
from .token_log import TOKENS, Prompt, TokenLog, prompt_ids, sources, token_field

__all__ = [
    "RENDERER",
    "TOKENS",
    "Chat",
    "Prompt",
    "Settings",
    "TokenLog",
    "messages",
    "prompt_ids",
    "sources",
    "token_field",
]

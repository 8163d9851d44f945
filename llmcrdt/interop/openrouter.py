"""``openrouter``: chat completions as OpenRouter has them.

``reasoning_details``, whatever provider they are of, are a hidden field: they go back whole, in their order, to
OpenRouter and the model that they came from.
"""

from __future__ import annotations

from ..document.canonical import JSON
from .format import Rule, Survey
from .openai_chat import ChatFormat, OpenAIChat

_SETTINGS = ("models", "route", "provider", "transforms", "plugins")


class OpenRouter(ChatFormat):
    """OpenRouter's chat completions."""

    name = "openrouter"
    provider = "openrouter"
    rules = (
        *OpenAIChat.rules,
        Rule("details are whole", "Invalid input: reasoning_details", "left out, all of a message's", quoted=False),
    )

    def detect(self, about: Survey) -> int:
        if not super().detect(about):
            return 0
        if any("reasoning_details" in item for item in about.sample):
            return 60
        if any(key in about.whole for key in _SETTINGS) or isinstance(about.whole.get("reasoning"), dict):
            return 60
        return 45 if _is_routed(about.whole.get("model")) else 0


def _is_routed(model: JSON) -> bool:
    """Whether a model is named as OpenRouter names them: provider/model."""
    return isinstance(model, str) and model.count("/") == 1

"""Conversations with language models as replicated documents.

Public names are imported on first use: ``import llmcrdt`` itself loads nothing but this file.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "repo.repo": ("Hit", "Hits", "Repo", "open"),
    "repo.library_changes": ("LibraryChange", "Listing"),
    "repo.importer": ("Imported", "ImportProgress", "NotImported", "import_files"),
    "document.ask": ("Ask",),
    "document.asks": ("AskStatus",),
    "document.conversation": ("Conversation",),
    "document.observers": ("Change",),
    "observation": ("Observation",),
    "document.presence": ("Present",),
    "document.transcript": ("Elsewhere", "Transcript"),
    "document.stream": ("Stream",),
    "document.frame": ("Frame",),
    "document.erasure": ("Erased", "Held"),
    "document.fork_adopt": ("Adopted",),
    "document.request": ("Request",),
    "document.streamed_response": ("StreamedResponse",),
    "document.deltas": (
        "AnswerEnded",
        "AnswerFailed",
        "CallArguments",
        "CallBegun",
        "CallEnded",
        "Delta",
        "ReasoningDelta",
        "TextDelta",
        "UsageDelta",
    ),
    "document.verify": ("Problem",),
    "document.binding": ("FieldReport", "Target"),
    "document.blob": ("Blob",),
    "document.entry": (
        "Config",
        "Entry",
        "HiddenField",
        "Part",
        "Reasoning",
        "Text",
        "ToolCall",
        "ToolResult",
        "Unknown",
    ),
    "generation.generate": ("generate",),
    "generation.generation": ("Events", "Generation"),
    "generation.options": ("GenerationOptions",),
    "generation.events": ("Ended", "GenerationEvent", "GenerationStats", "Usage"),
    "generation.plan": ("Plan", "plan"),
    "generation.provider_plan": ("ProviderPlan",),
    "generation.pinning": ("pin", "unpin"),
    "generation.prefetch": ("Prefetch", "prefetch"),
    "generation.cache_miss": ("CacheMiss",),
    "engine.base": ("Engine", "Reuse", "Sampling"),
    "engine.llama.engine": ("LlamaEngine",),
    "sync.link": ("Link",),
    "sync.progress": ("LinkStatus", "Progress"),
    "exceptions": ("LLMCRDTError",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}
_ALIASES = {"Warming": "Prefetch", "warm": "prefetch", "Why": "CacheMiss"}
"""Older names that go on working."""

_MODULES = ("exceptions", "providers")

__all__ = ["__version__", *_MODULES, *_HOME_OF, *_ALIASES]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f".{name}", __name__)
    now = _ALIASES.get(name, name)
    home = _HOME_OF.get(now)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{home}", __name__), now)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)

"""``openai-responses``: the items of OpenAI's Responses API <-> entries.

A request is ``{"input": [...] | "text", "instructions": ..., "tools": [...], ...}``; the bare list is that of items.
All that a model put out between two inputs is one entry: its messages, reasoning, calls and all other items, in their
order. Each output of a tool is an entry, and so is each message of others.

Hidden fields: ids and encrypted content of reasoning, so that it goes out whole with the items after it or not at all;
compaction; fingerprints of programs; references to items that the server keeps.
"""

from .format import OpenAIResponses

__all__ = ["OpenAIResponses"]

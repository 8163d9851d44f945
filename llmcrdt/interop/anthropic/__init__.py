"""``anthropic``: the Messages API's JSON <-> entries.

A request is ``{"system": ..., "messages": [...], "tools": [...], ...}``; the bare list of messages has no system
prompt. A message of the user's with results of tools is an entry for each result, and one for what stands beside
them. Blocks are parts in their order; the rest of a block stands in its part's ``extra``, a block of another type is
kept whole.

Hidden fields: signatures and redacted thinking (bound to the model and to the whole list before), encrypted search
results and their citations, encrypted output of code, compaction, cache points, the container.
"""

from .format import Anthropic

__all__ = ["Anthropic"]

"""``openai-chat``: OpenAI's chat-completions JSON <-> entries, and the family of those that are written like it.

``write(read(x)) == x`` for all that ``read`` takes. ``export`` makes a valid request of any transcript, also of one
that was merged.

A conversation is ``{"messages": [...], "tools": [...]}`` or the bare list of messages. All that our parts can't hold is
kept beside them, verbatim: unknown fields of a text or a call in the part's ``extra``, unknown kinds of content as
``Unknown`` parts, and what belongs to a message or a file as a whole in an ``Unknown`` part of type
``openai_chat/message`` or in the ``openai_chat`` key of a config part. Fields with a provider's own state (``PLACES``)
become hidden fields.
"""

from ..format import Draft
from ..json_input import parse
from .files import export, read, read_text, title_of, write
from .format import ChatFormat, OpenAIChat

__all__ = ["ChatFormat", "Draft", "OpenAIChat", "export", "parse", "read", "read_text", "title_of", "write"]

"""The chat on a whole terminal (extra ``tui``): the library, a transcript that grows, keys for everything."""

from .app import ChatApp as ChatApp

__all__ = ["ChatApp"]

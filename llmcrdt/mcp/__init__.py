"""An MCP server over one repo: agents search and read its conversations, and write where a person allowed it."""

from .server import serve as serve

__all__ = ["serve"]

"""The page: one repo in a browser on this machine, with all that is known of each turn.

``Page`` serves it on loopback, to whoever has its address with the token. It reads and writes through the public names
of ``Repo`` and ``Conversation``, and *asks* for answers (docs/state-sync.md): a worker gives them, in this process or
elsewhere.
"""

from .server import Page as Page

__all__ = ["Page"]

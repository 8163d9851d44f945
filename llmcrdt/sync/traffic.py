"""Counts the bytes of a WebSocket connection as they are on the wire: frames with their headers, compressed."""

from __future__ import annotations

from typing import Any

from websockets.asyncio.client import ClientConnection
from websockets.client import ClientProtocol
from websockets.protocol import State


class Traffic:
    """Bytes of WebSocket frames, over all connections that count here; without the HTTP upgrades."""

    def __init__(self) -> None:
        self.sent = 0
        self.received = 0

    def connection(self) -> type[ClientConnection]:
        """The class of connection that counts here, for ``websockets.connect(create_connection=...)``."""
        traffic = self

        class Counted(ClientConnection):
            def __init__(self, protocol: ClientProtocol, *arguments: Any, **options: Any) -> None:
                super().__init__(protocol, *arguments, **options)
                self._data_to_send = protocol.data_to_send
                protocol.data_to_send = self._counting  # type: ignore[method-assign]

            def _counting(self) -> list[bytes]:
                pieces = self._data_to_send()
                # The client's half of the upgrade leaves while the connection is still being made.
                if self.protocol.state is not State.CONNECTING:
                    traffic.sent += sum(map(len, pieces))
                return [b"".join(pieces)] if len(pieces) > 1 and all(pieces) else pieces  # an empty one is the end

            def data_received(self, data: bytes) -> None:
                if self.protocol.state is not State.CONNECTING:
                    traffic.received += len(data)
                super().data_received(data)

        return Counted

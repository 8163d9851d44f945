"""pycrdt-websocket as it comes, nothing stored, behind `websockets` without compression. Says where it listens."""

from __future__ import annotations

import asyncio
import sys
from contextlib import suppress

from pycrdt.websocket import WebsocketServer
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed


class Channel:
    """A WebSocket as pycrdt wants it."""

    def __init__(self, socket: ServerConnection, path: str) -> None:
        self._socket = socket
        self.path = path

    def __aiter__(self) -> Channel:
        return self

    async def __anext__(self) -> bytes:
        try:
            return await self.recv()
        except ConnectionClosed:
            raise StopAsyncIteration from None

    async def send(self, message: bytes) -> None:
        with suppress(ConnectionClosed):
            await self._socket.send(message)

    async def recv(self) -> bytes:
        message = await self._socket.recv()
        assert isinstance(message, bytes)
        return message


async def main(port: int) -> None:
    async with WebsocketServer() as rooms:

        async def handle(socket: ServerConnection) -> None:
            assert socket.request is not None
            await rooms.serve(Channel(socket, socket.request.path))

        async with serve(handle, "127.0.0.1", port, compression=None, max_size=None) as server:
            print(f"listening ws://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
            await server.serve_forever()


asyncio.run(main(int(sys.argv[1])))

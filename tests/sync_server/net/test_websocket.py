"""The relay's WebSocket over loopback: messages come whole and in order, and large ones leave piece by piece."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import cast

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import ServerConnection, serve

from sync_server.net.large import LargeRoom
from sync_server.net.outgoing import SLICE, Outgoing
from sync_server.net.strangers import Strangers
from sync_server.net.turns import SocketTurns
from sync_server.net.websocket import Socket

MOST = 1 << 20
Message = bytes | str


@asynccontextmanager
async def pair(compression: str | None = None) -> AsyncIterator[tuple[Socket, ClientConnection]]:
    """Both ends of one WebSocket."""
    made: asyncio.Future[Socket] = asyncio.get_running_loop().create_future()

    async def keep(socket: ServerConnection) -> None:
        made.set_result(cast(Socket, socket))
        await socket.wait_closed()

    make = partial(Socket, turns=SocketTurns(), strangers=Strangers(4), large=LargeRoom(4 * MOST))
    async with serve(
        keep,
        "127.0.0.1",
        0,
        create_connection=cast("type[ServerConnection]", make),
        compression=compression,
        max_size=MOST,
        ping_interval=None,
        write_limit=(SLICE - 1, SLICE // 4),
    ) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        address = f"ws://127.0.0.1:{port}"
        async with connect(address, compression=compression, max_size=None, ping_interval=None) as client:
            yield await made, client


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def limited() -> None:
        async with asyncio.timeout(60):
            await test()

    asyncio.run(limited())


async def until(ask: Callable[[], object]) -> None:
    while not ask():
        await asyncio.sleep(0.005)


@pytest.mark.parametrize("compression", [None, "deflate"])
@pytest.mark.parametrize("seed", range(4))
def test_messages_are_handed_over_as_they_were_sent(seed: int, compression: str | None) -> None:
    rng = random.Random(seed)

    def some_message() -> Message:
        size = rng.choice((0, 1, 100, 5_000, 70_000))
        return rng.randbytes(size) if rng.random() < 0.7 else "ä" * size

    async def test() -> None:
        sent, heard = [some_message() for _ in range(30)], list[Message]()
        async with pair(compression) as (socket, client):
            for n, message in enumerate(sent):
                if n == 5:  # what came before is kept until somebody takes it
                    socket.hand_to(lambda messages, _: heard.extend(messages))
                if rng.random() < 0.3:
                    cut = rng.randrange(len(message) + 1)
                    await client.send([message[:cut], message[cut:]])
                else:
                    await client.send(message)
            await until(lambda: len(heard) == len(sent))
        assert heard == sent

    run(test)


def test_nothing_is_read_while_too_much_is_in_work() -> None:
    """Messages that one read brought are handed over; those that the peer goes on sending stay in the network."""
    sent = [b"%03d" % n + bytes(60_000) for n in range(200)]

    async def test() -> None:
        heard, pauses = list[Message](), 0
        async with pair() as (socket, client):

            def take(messages: Sequence[Message], _: int) -> None:
                heard.extend(messages)
                if messages:
                    socket.reader.listen(False)

            async def send() -> None:
                for message in sent:
                    await client.send(message)

            socket.hand_to(take)
            sending = asyncio.create_task(send())
            while len(heard) < len(sent):
                await until(lambda: not socket.transport.is_reading())
                before = len(heard)
                for _ in range(3):
                    await asyncio.sleep(0)
                assert len(heard) == before
                pauses += 1
                socket.reader.listen(True)
                await asyncio.sleep(0)
            assert heard == sent
            assert pauses > 10
            await sending
            socket.reader.listen(True)

    run(test)


def test_a_large_message_leaves_piece_by_piece_and_nothing_comes_between() -> None:
    payload = random.Random(1).randbytes(8 << 20)

    async def test() -> None:
        async with pair() as (socket, client):
            socket.hand_to(lambda messages, others: None)
            out, place, rounds = Outgoing(payload, b"after"), 0, 0
            reading = asyncio.create_task(client.recv())
            while (now := socket.writer.write(out, place)) is not None:
                assert now >= place
                assert socket.writer.waiting <= 2 * SLICE, "little of it is copied"
                socket.ask()  # a ping between its pieces would end the connection
                place, rounds = now, rounds + 1
                await (socket.drain() if socket.paused else asyncio.sleep(0))
            assert rounds > 1
            assert await reading == payload
            assert await client.recv() == b"after"
            assert socket.given >= len(payload)

    run(test)

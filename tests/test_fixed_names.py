"""The names that other people's code relies on, used just as they are promised."""

from __future__ import annotations

import asyncio
import inspect
from pathlib import Path

import pytest

import llmcrdt
from llmcrdt.testing.models import write_model
from sync_server.thread import RelayThread


def test_the_names_work_as_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_model("model.gguf")
    with RelayThread(tmp_path / "relay") as relay:
        repo = llmcrdt.open("chats.db", library=None)
        other = llmcrdt.open("other.db", library=repo.library)
        conv = repo.create(title="Trip")
        assert (conv.id, conv.title) == (repo.list(limit=50, before=None)[0].id, "Trip")
        assert repo.get(conv.id) is conv

        e = conv.append("user", "Hello")
        assert (e.role, e.text, e.parents, e.frame) == ("user", "Hello", (), None)
        assert (e.status, e.sync) == ("complete", "local")
        assert (e.parts, e.author, dict(e.hidden)) == ((llmcrdt.Text("Hello"),), "", {})
        conv.append("system", "Be brief.", tools=[{"type": "function", "function": {"name": "f"}}])
        asked = conv.append("assistant", [llmcrdt.ToolCall("1", "f", "{}")], frame=conv.transcript())
        (c,) = asked.tool_calls
        result = "a result"
        conv.append("tool", result, call=c)
        t = conv.transcript()
        assert isinstance(t.hash, str)
        assert (tuple(t.elsewhere), dict(t.malformed)) == ((), {})
        assert [x.id for x in conv.entries(last=2, before=None)] == [x.id for x in t[-2:]]
        conv.append("assistant", "Hi", frame=t, hidden={"anthropic/signature": b"..."})
        with conv.stream("assistant", frame=conv.transcript()) as s:
            s.write("tok")
        edited = conv.edit(e, "Hello there")
        assert {x.id for x in conv.alternatives(e)} == {e.id, edited.id}
        conv.select(e)
        conv.summarize(until=asked, text="It was asked.")
        conv.erase(edited)
        assert conv.unsealed() == ()
        crashed = conv.stream("assistant", frame=None)
        crashed.write("half")
        crashed.flush()
        assert conv.seal(crashed.id).status == "stopped"

        changes: list[llmcrdt.Change] = []
        stop = conv.observe(changes.append)
        same = other.join(conv.id)
        u = conv.diff(since=None)
        same.apply(u)
        assert conv.diff(since=same.version()) is not None
        assert same.transcript().hash == conv.transcript().hash

        with repo.connect(relay.url, token=None, only=None) as link:
            link.wait_synced(10)

        async def over_asyncio() -> None:
            async with other.connect(relay.url) as link:
                await link.synced()

        asyncio.run(over_asyncio())
        assert conv.entry(e).sync == "durable"

        engine = llmcrdt.LlamaEngine(
            "model.gguf", cache=tmp_path / "kv", n_ctx=None, cache_memory=1 << 30, cache_disk=8 << 30
        )
        plan = llmcrdt.plan(conv, engine)
        assert plan.total == plan.reused + plan.evaluate
        assert str(plan.why)
        gen = llmcrdt.generate(conv, engine, max_tokens=8)
        assert "".join(gen) == gen.result().text

        async def generate() -> llmcrdt.Entry:
            gen = llmcrdt.generate(conv, engine, max_tokens=8)
            pieces = [piece async for piece in gen]
            entry = await gen
            assert "".join(pieces) == entry.text
            gen.cancel()
            return entry

        entry = asyncio.run(generate())
        assert gen.stats["total"] > 0
        again = llmcrdt.generate(conv, engine, max_tokens=8, instead_of=entry).result()
        assert again.alternative_of == entry.id
        conv.append("assistant", "x", instead_of=again)
        for call in (conv.append, conv.stream, llmcrdt.generate):
            assert "instead_of" in inspect.signature(call).parameters
        engine.close()
        stop()
        conv.close()
        repo.delete(conv.id)
        assert list(repo.list()) == []
        repo.close()
        other.close()

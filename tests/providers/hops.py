"""One history: a conversation on several devices that is answered by APIs of three providers in turn, with edits,
merges, crashes and wipes between. Decided by its seed.

This must be true of every request: the provider refuses nothing; every visible word is in it; and each hidden field
either goes out, or is reported, with a reason.
"""

from __future__ import annotations

import json
import random
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "sim"))
from sim_devices import MemoryDevice

import llmcrdt
from llmcrdt.crdt.registry import DEFAULT
from llmcrdt.document.entry import TOKENS, Entry, Part
from llmcrdt.document.summaries import summaries
from llmcrdt.exceptions import FormatError, ProviderError, Withheld
from llmcrdt.providers import Provider

from ..replicas import exchange, stands
from .anthropic_stand_in import AnthropicStandIn
from .direct import Direct
from .gemini_stand_in import GeminiStandIn, InteractionsStandIn
from .openai_stand_in import ChatStandIn, ResponsesStandIn
from .stand_in import Cut, GiveUp, Said, StandIn

MODELS = {
    "openai-chat": "chat-1", "openai-responses": "gpt-1", "anthropic": "claude-1", "gemini": "gemini-3-x",
    "gemini-interactions": "gemini-3-x",
}  # fmt: skip
OPERATIONS = {
    "say": 8, "answer": 14, "result": 8, "edit": 3, "again": 3, "select": 3, "merge": 6, "tools": 2, "instruct": 1,
    "crash": 3, "wipe": 2, "forget": 2, "erase": 1, "summarize": 1, "fail": 3,
}  # fmt: skip


Ask = Callable[[str, str], Provider]


class History:
    """``done``: what was done, and how often hidden fields went out (``sent``) and not (``left``). ``stand_ins``, and
    ``ask`` that makes a provider of an API and a model: others than those in this process."""

    def __init__(self, seed: int, stand_ins: Mapping[str, StandIn] | None = None, ask: Ask | None = None) -> None:
        self.rng = random.Random(seed)
        self.ids = random.Random(self.rng.getrandbits(64))
        self.words = 0
        self.done: Counter[str] = Counter()
        salt = str(seed)
        self.stand_ins = stand_ins or {
            "openai-chat": ChatStandIn(salt=salt, listen=False),
            "openai-responses": ResponsesStandIn(salt=salt, listen=False),
            "anthropic": AnthropicStandIn(salt=salt, listen=False),
            "gemini": GeminiStandIn(salt=salt, listen=False),
            "gemini-interactions": InteractionsStandIn(salt=salt, listen=False),
        }
        self.make = ask or (lambda api, model: Direct(self.stand_ins[api], model, keep=self.rng.random() < 0.5))
        for stand_in in self.stand_ins.values():
            stand_in.brain = self.brain  # type: ignore[method-assign]
        self.devices = [self.device("d0")]
        self.devices[0].core.write_identity(1.8e9)
        self.do_tools(self.devices[0])
        for n in range(1, self.rng.randint(2, 3)):
            self.devices.append(self.device(f"d{n}"))
        exchange(*(device.conv for device in self.devices))

    def device(self, name: str) -> MemoryDevice:
        return MemoryDevice(name, self.ids, lambda device, update: None, crdt=DEFAULT)

    def provider(self) -> Provider:
        api = self.rng.choice(list(MODELS))
        return self.make(api, MODELS[api])

    def word(self, kind: str) -> str:
        self.words += 1
        return f"<{kind}{self.words}>{self.rng.choice(('', ' ü', ' 😀'))}"

    def brain(self, body: Any) -> Said:
        """The answer of a model: words, thoughts, calls of the tools that it is offered."""
        rng = self.rng
        calls = []
        if body.get("tools") and rng.random() < 0.4:
            names = names_of(body["tools"])
            calls = [(rng.choice(names), json.dumps({"at": rng.randint(0, 9)})) for _ in range(rng.randint(1, 2))]
        text = "" if calls and rng.random() < 0.5 else self.word("a")
        return Said(text, self.word("t") if rng.random() < 0.6 else "", calls)

    def step(self) -> None:
        name = self.rng.choices(list(OPERATIONS), list(OPERATIONS.values()))[0]
        self.done[name] += 1
        getattr(self, f"do_{name}")(self.rng.choice(self.devices))

    def finish(self) -> None:
        """All devices hear of each other, and every provider answers once more."""
        conversations = [device.conv for device in self.devices]
        for conv in conversations:
            for entry in conv.unsealed():
                conv.seal(entry)
        exchange(*conversations)
        exchange(*conversations)
        assert len({repr(stands(conv)) for conv in conversations}) == 1
        for api, model in MODELS.items():
            device = self.rng.choice(self.devices)
            device.conv.append("user", self.word("u"))
            self.ask(device, self.make(api, model))
            exchange(*conversations)
        assert conversations[0].verify() == []

    # asking

    def ask(self, device: MemoryDevice, provider: Provider, instead_of: Entry | None = None) -> None:
        conv, stand_in = device.conv, self.stand_ins[provider.api]
        for entry in conv.unsealed():
            conv.seal(entry)
        try:
            plan = llmcrdt.plan(conv, provider, instead_of=instead_of)
        except FormatError:  # nobody has said anything yet, or what was said is erased
            assert not any(e.role != "system" and e.status != "erased" for e in conv.transcript()) or instead_of
            if instead_of:
                return
            self.do_say(device)
            plan = llmcrdt.plan(conv, provider)
        entries = conv.frame_entries(instead_of) if instead_of else tuple(conv.transcript())
        before = len(stand_in.accepted)
        generation = llmcrdt.generate(conv, provider, instead_of=instead_of)
        try:
            generation.result(60)
        except (ProviderError, FormatError):
            self.check_refused(stand_in)
            self.done["failed"] += 1
            return
        self.check_refused(stand_in)
        assert len(stand_in.accepted) == before + 1
        self.done["delta"] += bool(stand_in.accepted[-1].keys() & {"previous_response_id", "previous_interaction_id"})
        self.check_request(entries, plan, stand_in.read[-1])

    def check_refused(self, stand_in: StandIn) -> None:
        """Nothing is refused but what goes on from state that a provider has forgotten."""
        forgotten = [why for why in stand_in.refused if re.match(r"Previous response with id|Interaction \w+ not", why)]
        assert forgotten == stand_in.refused, stand_in.refused
        self.done["forgotten"] += len(forgotten)
        stand_in.refused.clear()

    def check_request(self, entries: tuple[Entry, ...], plan: llmcrdt.ProviderPlan, body: Any) -> None:
        text = json.dumps(body, ensure_ascii=False)
        covered = {i for ids in summaries(entries).values() for i in ids}
        for entry in entries:
            if entry.id not in covered and entry.status != "erased" and entry.role != "system":
                for part in entry.parts:
                    said = getattr(part, "text", "") if type(part) is not llmcrdt.Reasoning else ""
                    assert said in text, f"{entry.role} {said!r} is not in the request"
                    if isinstance(part, llmcrdt.Unknown) and part.type == "image_url":
                        assert f'"{part.json["image_url"]["url"]}"' in text, "a picture is not in the request"
                        self.done["picture"] += 1
                for call in entry.tool_calls:
                    assert call.name in text
        sent = {(line.entry, line.name) for line in plan.request.report if line.sent}
        left = {(line.entry, line.name): line for line in plan.left_out}
        assert all(line.reason and str(line) for line in left.values())
        for entry in entries:
            for name, field in entry.hidden.items():
                if name == TOKENS or name.endswith("/handle"):
                    continue
                goes_out = all(opaque in text for opaque in opaques(json.loads(field.data)))
                assert ((entry.id, name) in sent) == goes_out, (name, goes_out, left.get((entry.id, name)))
                assert ((entry.id, name) in left) == (not goes_out)
                self.done["sent" if goes_out else "left"] += 1

    # what happens

    def do_say(self, device: MemoryDevice) -> None:
        device.conv.append("user", self.word("u"))

    def do_answer(self, device: MemoryDevice) -> None:
        self.ask(device, self.provider())

    def do_fail(self, device: MemoryDevice) -> None:
        """The provider goes away in the middle of its answer, or gives up."""
        provider = self.provider()
        after = self.rng.randint(0, 12)
        fault = self.rng.choice((Cut(after), GiveUp(after, "It broke.")))
        if isinstance(provider, Direct):
            provider.fault = fault
        else:
            self.stand_ins[provider.api].faults = [fault]
        self.ask(device, provider)

    def do_result(self, device: MemoryDevice) -> None:
        calls = [call for entry in device.conv.transcript() for call in entry.tool_calls]
        waiting = [call for call in calls if not device.conv.results(call)]
        if waiting:
            said: list[Part] = [llmcrdt.ToolResult(self.word("r"))]
            if self.rng.random() < 0.4:
                url = f"https://example.org/{self.words}.png"
                said.append(llmcrdt.Unknown({"type": "image_url", "image_url": {"url": url}}))
            device.conv.append("tool", said, call=self.rng.choice(waiting))

    def do_edit(self, device: MemoryDevice) -> None:
        entry = self.visible(device, "user")
        if entry is not None and entry.covers is None:
            device.conv.edit(entry, self.word("u"))

    def do_again(self, device: MemoryDevice) -> None:
        entry = self.visible(device, "assistant")
        if entry is not None and entry.frame is not None and not device.conv.transcript().malformed:
            self.ask(device, self.provider(), entry)

    def do_select(self, device: MemoryDevice) -> None:
        entry = self.visible(device)
        if entry is not None:
            with suppress(Withheld):
                device.conv.select(self.rng.choice(device.conv.alternatives(entry)))

    def do_merge(self, device: MemoryDevice) -> None:
        exchange(device.conv, self.rng.choice(self.devices).conv)

    def do_tools(self, device: MemoryDevice) -> None:
        """Other tools count from here on."""
        names = self.rng.sample(["look", "search", "read"], self.rng.randint(0, 2))
        parameters = {"type": "object", "properties": {}}
        tools = [{"type": "function", "function": {"name": name, "parameters": parameters}} for name in names]
        device.conv.append("system", "", tools=tools)

    def do_instruct(self, device: MemoryDevice) -> None:
        device.conv.append("system", self.word("s"))

    def do_crash(self, device: MemoryDevice) -> None:
        """The process ends in the middle of an answer that it writes, and is started again."""
        stream = device.conv.stream("assistant", frame=device.conv.transcript() if not device.conv.unsealed() else None)
        stream.write(self.word("a"))
        stream.flush()
        device.kill()

    def do_wipe(self, device: MemoryDevice) -> None:
        """A device is lost; another one takes its place, with what the others have."""
        exchange(*(each.conv for each in self.devices))
        at = self.devices.index(device)
        self.devices[at] = self.device(device.name)
        exchange(*(each.conv for each in self.devices))

    def do_forget(self, device: MemoryDevice) -> None:
        """The providers forget all that they kept."""
        for stand_in in self.stand_ins.values():
            if isinstance(stand_in, ResponsesStandIn | InteractionsStandIn):
                stand_in.forget()

    def do_erase(self, device: MemoryDevice) -> None:
        entry = self.visible(device, "user")
        if entry is not None:
            device.conv.erase(entry)

    def do_summarize(self, device: MemoryDevice) -> None:
        entry = self.visible(device)
        if entry is not None and entry.role != "system" and not device.conv.unsealed():
            device.conv.summarize(until=entry, text=self.word("u"))

    def visible(self, device: MemoryDevice, role: str | None = None) -> Entry | None:
        found = [e for e in device.conv.transcript() if e.sealed and e.status != "erased" and role in (None, e.role)]
        return self.rng.choice(found) if found else None


def names_of(tools: Any) -> list[str]:
    """The names of the tools that a request offers."""
    declared = [one for tool in tools for one in tool.get("functionDeclarations", [tool])]
    return [one.get("name") or one["function"]["name"] for one in declared]


def opaques(value: Any) -> Iterator[str]:
    """The long strings of a hidden field's data."""
    if isinstance(value, str):
        if len(value) > 40:
            yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from opaques(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from opaques(inner)


def run_history(
    seed: int, steps: int | None = None, stand_ins: Mapping[str, StandIn] | None = None, ask: Ask | None = None
) -> Counter[str]:
    """One history. Raises AssertionError where a promise is broken; returns what was done."""
    history = History(seed, stand_ins, ask)
    for _ in range(history.rng.randint(6, 30) if steps is None else steps):
        history.step()
    history.finish()
    for device in history.devices:
        device.close()
    return history.done

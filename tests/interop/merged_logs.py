"""Conversations that several devices write, answer from any provider, and merge; each state in between is a merged log.

``run_schedule(seed)`` writes one in memory and checks every log on the way: each format's export of it is a request
that the format's validator takes, and no hidden value is in there whose binding does not hold. Validators know nothing
of the exporters.
"""

from __future__ import annotations

import json
import random
import re
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(1, str(Path(__file__).parents[1] / "sim"))
import anthropic_request
import gemini_request
import interactions_request
import responses_request
import ui_messages
from providers import RESPONSES, VALIDATORS
from sim_memory import MemoryFile, MemoryJournal

import llmcrdt
from llmcrdt.crdt.yjs.replica import YjsReplica
from llmcrdt.document import schema
from llmcrdt.document.canonical import exact_json
from llmcrdt.document.conversation import Conversation, core_of
from llmcrdt.document.core import ConversationCore
from llmcrdt.document.entry import Entry
from llmcrdt.document.imported import ImportChain
from llmcrdt.document.request import Request
from llmcrdt.exceptions import FormatError, Withheld
from llmcrdt.ids import DocumentId
from llmcrdt.interop.export import export
from llmcrdt.interop.format import Draft
from llmcrdt.interop.json_input import parse
from llmcrdt.interop.native import Native
from llmcrdt.interop.registry import format_of, names
from llmcrdt.testing.host import LoneHost

VECTORS = Path(__file__).parents[1] / "vectors" / "interop"
NOW = 1_800_000_000.0
_OPAQUE = re.compile(r"OPAQUE-\d+-")
_NUMBER, _TAG = re.compile(r"OPAQUE-(\d+)-"), re.compile(r"#(\d+)#")
LOGS: dict[str, Callable[[Any], list[str]]] = {
    "anthropic": lambda log: anthropic_request.problems({"messages": log}, log=True),
    "gemini": lambda log: gemini_request.problems({"contents": log}, log=True),
    "gemini-interactions": lambda log: interactions_request.problems({"input": log}, log=True),
    "openai-responses": responses_request.log_problems,
    "ai-sdk": lambda log: ui_messages.problems({"messages": log}, log=True),
}
_TOOLS = ("look", "look", "look at", "l" * 80, "été")
_WORDS = ("", " ", "one", "zwei\n", "Continue.", '{"a": 1}')
_ATTACHED = (
    Native("anthropic").block(
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "Y2F0"}}
    ),
    Native("gemini").block({"inlineData": {"mimeType": "image/png", "data": "Y2F0"}}),
    Native("openai-responses").block({"type": "input_image", "image_url": "https://example.org/cat.png"}),
    llmcrdt.Unknown({"type": "image_url", "image_url": {"url": "data:image/png;base64,Y2F0"}}),
    Native("mcp").block({"type": "audio", "data": "AAAA", "mimeType": "audio/wav"}),
)
"""Parts of results, as each API has them."""


class Device:
    """One process with the conversation open, in memory."""

    def __init__(self, name: str, rng: random.Random) -> None:
        self._rng = rng
        self.request: Request | None = None
        host = LoneHost(
            MemoryJournal(MemoryFile(), lambda update: None),
            lambda: YjsReplica(schema.ROOTS, client_id=rng.getrandbits(32)),
            author=name,
            clock=lambda: NOW,
            random=rng.randbytes,
        )
        self.conv = Conversation(ConversationCore(DocumentId("merged"), host))

    def shown(self) -> list[Entry]:
        return [entry for entry in self.conv.transcript() if entry.sealed and entry.status != "erased"]


class World:
    """Devices, and what they do. ``count``: answers so far, which names what is opaque in them. ``made_on``: the prefix
    that each signature of Claude's was made on, as its provider remembers it."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.count = 0
        self.made_on: dict[str, str] = {}
        self.devices = [Device(f"device {n}", rng) for n in range(rng.choice((2, 2, 3)))]

    # what a device does

    def do_say(self, device: Device) -> None:
        device.conv.append("user", self.rng.choice(_WORDS))

    def do_settings(self, device: Device) -> None:
        tools = [{"type": "function", "function": {"name": name}} for name in self.rng.sample(_TOOLS, 2)]
        device.conv.append("system", self.rng.choice(_WORDS), tools=tools)

    def do_ask(self, device: Device) -> None:
        api = self.rng.choice(names())
        if any(entry.role != "system" for entry in device.shown()):
            model = self.rng.choice(("m-1", "m-2"))
            with suppress(FormatError):  # half a call of a stream that crashed may be all there is
                device.request = device.conv.messages(api, model=model)

    def do_answer(self, device: Device) -> None:
        """Of a provider that was asked just now, or a while ago."""
        if device.request is None or self.rng.random() < 0.4:
            self.do_ask(device)
        if device.request is not None:
            response = self.response(device.request.target.api or "", device.request)
            device.conv.append_response(device.request, response)
            device.request = None

    def do_generate(self, device: Device) -> None:
        """An answer of a model that runs here."""
        id_ = self.rng.choice(("c1", "", "call|2", "c" * 80))
        call = llmcrdt.ToolCall(id_, self.rng.choice(_TOOLS), '{"at": 1.10}')
        parts = [llmcrdt.Reasoning("thinks"), llmcrdt.Text(self.rng.choice(_WORDS)), call]
        device.conv.append("assistant", self.rng.sample(parts, 2), frame=device.conv.transcript())

    def do_result(self, device: Device) -> None:
        calls = [call for entry in device.shown() for call in entry.tool_calls]
        if calls:
            result: list[Any] = [llmcrdt.ToolResult(self.rng.choice(_WORDS), self.rng.random() < 0.2)]
            result += self.rng.sample(_ATTACHED, self.rng.choice((0, 0, 1, 2)))
            device.conv.append("tool", result, call=self.rng.choice(calls))

    def do_edit(self, device: Device) -> None:
        said = [entry for entry in device.shown() if entry.role in ("user", "system")]
        if said:
            device.conv.edit(self.rng.choice(said), "edited")

    def do_again(self, device: Device) -> None:
        answers = [entry for entry in device.shown() if entry.frame is not None]
        if answers:
            device.conv.append("assistant", "another one", instead_of=self.rng.choice(answers))

    def do_select(self, device: Device) -> None:
        hidden = [found.entry for found in device.conv.transcript().elsewhere if found.entry.status != "erased"]
        if hidden:
            chosen = self.rng.choice(hidden)
            with suppress(Withheld):
                device.conv.select(chosen)

    def do_erase(self, device: Device) -> None:
        shown = device.shown()
        if shown:
            device.conv.erase(self.rng.choice(shown))

    def do_summarize(self, device: Device) -> None:
        shown = device.shown()
        if len(shown) > 2:
            device.conv.summarize(until=self.rng.choice(shown), text="They met.")

    def do_crash(self, device: Device) -> None:
        """A stream that ends in the middle, and is sealed by whoever finds it."""
        with device.conv.batch():
            stream = device.conv.stream(frame=device.conv.transcript(), interval=0)
            stream.write(self.rng.choice(_WORDS))
            if self.rng.random() < 0.5:
                stream.call("c1", "look")
                stream.write('{"at"', part="tool_call")
            stream.abandon()
        for entry in device.conv.unsealed():
            device.conv.seal(entry, self.rng.choice(("stopped", "failed")))

    def response(self, api: str, request: Request) -> Any:
        """A response of an API, with ids and opaque values of its own."""
        self.count += 1
        text = json.dumps(RESPONSES[api]).replace("OPAQUE", f"OPAQUE-{self.count}-")
        text = text.replace("Hm.", f"Hm. #{self.count}#").replace("Let me see.", f"Let me see. #{self.count}#")
        text = text.replace('"at": 1}', f'"at": "#{self.count}#"}}')
        if api == "anthropic":
            self.made_on[f"OPAQUE-{self.count}-"] = prefix(request.body, request.body["messages"])
        for id_ in ("msg_1", "fc_1"):
            text = text.replace(f'"{id_}"', f'"{id_}_{self.count}_of_rs_{self.count}"')
        text = text.replace('"rs_1"', f'"rs_{self.count}"').replace('"c1"', f'"c{self.rng.randrange(4)}"')
        sent = sorted(request.tool_names)
        text = text.replace('"look"', json.dumps(self.rng.choice(sent))) if sent and api != "ai-sdk" else text
        made = json.loads(text)
        if api == "anthropic":
            made["content"][:0] = _results_of_open_tools(request.body["messages"])
        return json.dumps(made)

    # what goes between devices

    def begin(self) -> None:
        """One device has what a file held."""
        if self.rng.random() < 0.6:
            conv = self.devices[0].conv
            chain, entries = ImportChain(conv.id), list[Any]()
            with core_of(conv).editing() as edit:
                for draft in self.rng.choice(_files()):
                    answers = (entries[draft.answers[0]].id, draft.answers[1]) if draft.answers else None
                    made = chain.make(
                        draft.role,
                        draft.parts,
                        author=draft.author,
                        answers=answers,
                        hidden=draft.hidden,
                        frame_bound=draft.frame_bound,
                    )
                    chain.add(made)
                    entries.append(made)
                    edit.put_node(schema.ENTRIES, made.id, dict(made.fields))

    def merge(self, device: Device, other: Device) -> None:
        device.conv.apply(other.conv.diff(device.conv.version()))


OPERATIONS = tuple(sorted(name for name in vars(World) if name.startswith("do_")))
_WEIGHTS = {"do_say": 5, "do_answer": 8, "do_result": 6, "do_generate": 3, "do_edit": 2}


@cache
def _files() -> list[list[Draft]]:
    """The content of each vector of each format."""
    paths = [(name, path) for name in names() for path in sorted((VECTORS / name).glob("*.json"))]
    return [format_of(name).read(parse(path.read_text("utf-8"))) for name, path in paths]


def _results_of_open_tools(messages: Any) -> list[Any]:
    """The beginning of a response that goes on with a turn: the results of the tools that the server was running."""
    turn: list[Any] = []
    for message in reversed(messages):
        if message["role"] != "assistant":
            break
        turn = [*(message["content"] if isinstance(message["content"], list) else []), *turn]
    done = {block.get("tool_use_id") for block in turn}
    found = []
    for block in turn:
        if block["type"] in ("server_tool_use", "mcp_tool_use") and block["id"] not in done:
            kind = "mcp" if block["type"] == "mcp_tool_use" else block["name"]
            error = {"type": f"{kind}_tool_result_error", "error_code": "unavailable"}
            content = [] if kind == "mcp" else error
            found.append({"type": f"{kind}_tool_result", "tool_use_id": block["id"], "content": content})
    return found


def prefix(body: Any, messages: Any) -> str:
    """All that stands before a signature, without cache points, which don't count."""

    def cut(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: cut(one) for key, one in value.items() if key != "cache_control"}
        return [cut(one) for one in value] if isinstance(value, list) else value

    return exact_json(cut([body.get("system"), body.get("tools"), messages]))


def signature_problems(body: Any, made_on: Mapping[str, str]) -> list[str]:
    """Signatures of Claude's that stand after another list than they were made on."""
    found = []
    for i, message in enumerate(body["messages"]):
        for block in message["content"] if isinstance(message["content"], list) else ():
            signature = block.get("signature") if block.get("type") == "thinking" else None
            if signature in made_on and made_on[signature] != prefix(body, body["messages"][:i]):
                found.append(
                    f"messages.{i}: Invalid `signature` in `thinking` block: bound to a different conversation"
                )
    return found


def misplaced(value: Any) -> list[str]:
    """Opaque values that stand in another block than they came with."""
    if isinstance(value, list):
        return [why for one in value for why in misplaced(one)]
    if not isinstance(value, dict):
        return []
    found = [why for one in value.values() for why in misplaced(one)]
    here = {n for one in value.values() if isinstance(one, str) for n in _NUMBER.findall(one)}
    others = set(_TAG.findall(json.dumps(value, default=str))) if here else set[str]()
    return found + [f"OPAQUE-{n}- stands beside #{other}#" for n in here for other in others - {n}]


def check_log(entries: Sequence[Entry], rng: random.Random, made_on: Mapping[str, str]) -> int:
    """The exports of a log to every format are valid, and hold no hidden value that must not go there, or not in that
    place. How many there were."""
    hidden = {
        (entry.id, name): _opaque(field.data.decode()) for entry in entries for name, field in entry.hidden.items()
    }
    for name in names():
        form = format_of(name)
        model = rng.choice((form.model_of(entries), "m-1", "m-2", "gemini-3"))
        provider = "another" if rng.random() < 0.1 else None
        made = export(form, entries, form.target(provider=provider, model=model), now=NOW)
        log = made.messages
        found = VALIDATORS[name](made.body) if made.body[form.member] else []
        if name in LOGS:  # of the others the request holds the whole log as it is
            found += LOGS[name](log)
        opaque = _opaque(json.dumps(made.body, default=str))
        allowed = {value for line in made.report if line.sent for value in hidden[line.entry, line.name]}
        found += [f"{value} is in there" for value in opaque - allowed] + (misplaced(made.body) if opaque else [])
        found += signature_problems(made.body, made_on) if name == "anthropic" and opaque else []
        assert not found, f"{name}: {found}\n{exact_json(made.body)}"
    return len(names())


def _opaque(text: str) -> set[str]:
    return set(_OPAQUE.findall(text))


def run_schedule(seed: int) -> Counter[str]:
    """One schedule, decided by its seed: what was done, and how many logs were checked. Raises AssertionError."""
    rng = random.Random(seed)
    world = World(rng)
    weights = [_WEIGHTS.get(name, 1) for name in OPERATIONS]
    done: Counter[str] = Counter()
    world.begin()
    for _ in range(rng.randint(3, 7)):
        for device in world.devices:
            for name in rng.choices(OPERATIONS, weights, k=rng.randint(0, 4)):
                getattr(world, name)(device)
                done[name] += 1
        device, other = rng.sample(world.devices, 2)
        world.merge(device, other)
        done["exports"] += check_log(list(device.conv.transcript()), rng, world.made_on)
        done["logs"] += 1
    for device in world.devices * 2:
        for other in world.devices:
            if other is not device:
                world.merge(device, other)
    assert len({device.conv.transcript().hash for device in world.devices}) == 1
    done["exports"] += check_log(list(world.devices[-1].conv.transcript()), rng, world.made_on)
    done["logs"] += 1
    for device in world.devices:
        device.conv.close()
    return done

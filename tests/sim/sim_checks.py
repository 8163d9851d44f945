"""All that must be true: at any moment of one device, and of all of them once everything has arrived everywhere."""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "interop"))
import chat_request
import sim_oracle as oracle
from sim_devices import Device
from sim_kinds import KINDS
from sim_world import World

from llmcrdt.document.asks import statuses
from llmcrdt.document.view import ConversationView
from llmcrdt.ids import EntryId
from llmcrdt.interop import openai_chat


def check_device(world: World, device: Device) -> None:
    """O1-O6, O9 on whatever this device has by now: a part of the document, perhaps with pieces that wait."""
    device.core.document.refresh()
    said = oracle.read(world.kind.reader(device.core.replica).plain(), world.wrong)
    transcript = device.conv.transcript()
    expected, hash_ = said.transcript()
    assert transcript.ids == tuple(entry for entry, _ in expected), "the order is the one the rules state"
    assert tuple(entry.hash or "" for entry in transcript) == tuple(v for _, v in expected), "the version is theirs too"
    assert transcript.hash == hash_, "the hash is over exactly that"
    assert transcript.tips == said.order.tips()
    shown, elsewhere = list(transcript.ids), [found.entry.id for found in transcript.elsewhere]
    assert len(set(shown + elsewhere)) == len(shown + elsewhere), "every sound entry stands in one place, once"
    assert sorted(shown + elsewhere) == sorted(said.order.sound()), "and no other one does"
    aside = {found.entry.id for found in transcript.elsewhere if found.way == "withheld"}
    assert aside == said.order.dark(), "what was made of erased entries beside the erase, and what follows it, is out"
    assert set(transcript.malformed) >= set(said.order.malformed()), "the rest is malformed"
    assert not set(transcript.malformed) & set(shown + elsewhere)
    assert device.watched == set(transcript.ids), "whoever was told each change knows what is shown"
    check_frames(world, device)


def check_frames(world: World, device: Device, *, whole: bool = False) -> None:
    """O2: what a generation was computed on is the same for ever, in these versions with this text. ``whole``: all of
    it has arrived."""
    sound = device.core.view.order.sound()
    for generation, frame in world.frames.items():
        if generation in sound:
            now = device.conv.frame_entries(EntryId(generation))
            assert [e.id for e in now] == [entry for entry, _, _ in frame], "a frame never changes"
            for entry, (_, version, text) in zip(now, frame, strict=True):
                if entry.status == "erased":
                    assert (entry.hash, entry.text) == (version, ""), "its place and its hash stay"
                elif whole or version in {v.hash for v in device.core.view.states[entry.id].versions}:
                    assert entry.hash == version and text in (entry.text, None), "nor does a version that it holds"


def merge_all(world: World) -> None:
    """The network is whole again: everything that any device has arrives everywhere."""
    held = {entry for device in world.devices for entry in device.core.view.states}
    gone = {entry for device in world.devices for entry in device.core.view.erased}
    for device in world.devices:
        world.rng.shuffle(device.inbox)
        while device.inbox:
            device.conv.apply(device.inbox.pop())
    for _ in range(2):
        for a in world.devices:
            for b in world.devices:
                if a is not b:
                    a.conv.apply(b.conv.diff(since=a.conv.version()))
    check_all(world, held)
    check_erased(world, gone)


def check_all(world: World, held: set[EntryId]) -> None:
    """After everything has arrived everywhere. ``held``: the entries that some device had before."""
    first = world.devices[0].conv
    for device in world.devices:
        conv = device.conv
        assert device.core.replica.snapshot()[1] == [] or world.at_risk, "nothing waits for what is here"
        assert conv.transcript().hash == first.transcript().hash, "one transcript"
        assert conv.transcript().ids == first.transcript().ids
        assert conv.transcript().elsewhere_hash == first.transcript().elsewhere_hash, "the same elsewhere"
        # state vectors are maps: equal documents may write their clients in another order
        assert oracle_state(conv.diff(), world.crdt) == oracle_state(first.diff(), world.crdt), "one document"
    check_device(world, world.devices[0])
    for device in world.devices:
        check_frames(world, device, whole=True)
        assert device.watched == set(device.conv.transcript().ids)
    fresh = ConversationView(lambda entry: "local", threading.RLock())
    fresh.read_all(world.devices[0].core.replica)
    for device in world.devices:
        view = device.core.view
        acts, anew = view.acts, fresh.acts
        assert (acts.claims, acts.stops) == (anew.claims, anew.stops), "acts are those that stand under their keys"
        assert (acts.questions, acts.replies) == (anew.questions, anew.replies)
        assert ask_states(view) == ask_states(fresh), "everybody says the same of every ask"
    assert fresh.transcript().elsewhere_hash == first.transcript().elsewhere_hash, "and for whoever reads it anew"
    check_reachable(world, held)
    request: Any = openai_chat.export(first.transcript())
    assert not request["messages"] or chat_request.problems(request) == [], "its export is a request that is valid"
    problems = {problem.entry for problem in first.verify()}
    lost = world.at_risk  # what refers to something that was lost with a disk
    assert problems <= world.wrong | world.touched | lost, "verify finds nothing wrong but what a stranger did"
    assert world.wrong & set(world.devices[0].core.replica.keys("entries")) <= problems, "and finds all of that"


def ask_states(view: ConversationView) -> list[tuple[object, ...]]:
    """All that is derived of every ask."""
    return [
        (
            each.question,
            each.state,
            each.answer and (each.answer.id, each.answer.hash),
            each.workers,
            each.code,
            each.text,
        )
        for each in statuses(view)
    ]


def check_reachable(world: World, held: set[EntryId]) -> None:
    """Nothing that was written, and whose disk was kept, is lost: it is shown, or listed elsewhere."""
    conv = world.devices[0].conv
    transcript = conv.transcript()
    there = {*transcript.ids, *(found.entry.id for found in transcript.elsewhere)}
    must = {entry for entry in world.said if entry not in world.at_risk or entry in held}
    lost = set(transcript.malformed) & world.at_risk  # it refers to what was lost with that disk
    assert must <= there | lost, "nothing that was written is out of reach"
    must -= lost
    must -= world.devices[0].core.view.erased
    for entry in must - world.at_risk:
        versions = world.devices[0].core.view.states[EntryId(entry)].versions
        texts = {
            "".join(getattr(p, "text", "") for p in v.parts if p.type in ("text", "tool_result")) for v in versions
        }
        assert not versions or world.said[entry] in texts, "its text is the one that was written"
    for (entry, name), data in world.hidden.items():
        if entry in must - world.at_risk:
            assert conv.entry(EntryId(entry)).hidden[name].data == data, "hidden bytes are kept"


def check_erased(world: World, gone: set[EntryId]) -> None:
    """O7: what was erased anywhere is erased everywhere, and its words are in no file."""
    words = {world.said.get(entry, "").encode() for entry in gone} - {b""}
    for device in world.devices:
        for entry in gone - world.wrong:
            shown = device.conv.entry(entry)
            assert (shown.status, shown.parts, shown.hidden) == ("erased", (), {}), "erased stays erased"
        for stored in (*device.stored(), world.kind.history(device.core.replica)):
            assert not [word for word in words if word in stored], "erased words are in no file"


def oracle_state(update: bytes, crdt: str = "yjs") -> list[str]:
    """Everything a document holds, as texts that can be compared."""
    plain, found = KINDS[crdt].stranger(update, None).plain(), []
    for root in ("meta", "entries", "acts"):
        for key, value in plain[root].items():
            fields = {n: str(v) for n, v in value.items()} if isinstance(value, dict) else value
            found.append(f"{root} {key} {sorted(fields.items()) if isinstance(fields, dict) else fields!r}")
    return sorted(found)

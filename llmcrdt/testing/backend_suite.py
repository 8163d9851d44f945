"""The contract of crdt/backend.py as tests: subclass ``BackendSuite`` in a test module, and say how to make a backend.

``ReplicaSuite`` is the part that is about one replica.
"""

from __future__ import annotations

import random
from abc import abstractmethod
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import pytest

from ..crdt.backend import MAX_VALUE, Backend, Edit, NewField, NewNode, Replica
from ..exceptions import InvalidContent, MalformedUpdate

ROOTS = ("meta", "entries", "acts")


class ReplicaSuite:
    """Each test says one sentence of Replica's contract."""

    @abstractmethod
    def make(self) -> Replica:
        """A new, empty replica with the roots ``ROOTS``."""

    def updates(self, replica: Replica, rng: random.Random, steps: int) -> list[bytes]:
        """Random writes; the updates they made."""
        made = []
        for step in range(steps):
            with replica.edit() as edit:
                keys = list(replica.keys("entries"))
                match rng.randrange(5):
                    case 0 | 1:
                        edit.put_node("entries", f"e{rng.randrange(10**9)}", {"head": f"{{{step}}}", "b": b"\0\xff"})
                    case 2 if keys:
                        key = rng.choice(keys)
                        if "live" not in (replica.node("entries", key) or {}):
                            edit.put_text("entries", key, "live")
                        edit.append_text("entries", key, "live", rng.choice(["é", "😀 ", "abc"]))
                    case 3 if keys:
                        edit.delete_field("entries", rng.choice(keys), "live")
                    case _:
                        edit.put("acts", f"a{rng.randrange(10**9)}", f"value {step}")
            if edit.update:
                made.append(edit.update)
        return made

    def foreign_key(self, update: bytes, root: str, prefix: str, own: str) -> str | None:
        return self.make().foreign_key(update, root, prefix, own)

    def shown(self, replica: Replica) -> dict[str, object]:
        entries = {key: dict(replica.node("entries", key) or {}) for key in replica.keys("entries")}
        acts = {key: replica.get("acts", key) for key in replica.keys("acts")}
        return {"entries": entries, "acts": acts}

    @pytest.mark.parametrize("seed", range(12))
    def test_updates_commute_and_repeat_harmlessly(self, seed: int) -> None:
        rng = random.Random(seed)
        a, b = self.make(), self.make()
        everything = self.updates(a, rng, 12) + self.updates(b, rng, 12)
        results = []
        for _ in range(3):
            target = self.make()
            for update in rng.sample(everything, len(everything)) + rng.choices(everything, k=6):
                target.apply(update)
            assert not target.snapshot()[1], "nothing waits once everything is here"
            results.append(self.shown(target))
        assert results[0] == results[1] == results[2]

    @pytest.mark.parametrize("seed", range(12))
    def test_what_waits_is_kept_and_survives_a_snapshot(self, seed: int) -> None:
        rng = random.Random(seed)
        writer = self.make()
        updates = self.updates(writer, rng, 10)
        late = rng.randrange(len(updates) - 1)
        reader = self.make()
        for n, update in enumerate(updates):
            if n != late:
                reader.apply(update)
        again = self.make()
        again.load(*reader.snapshot())
        third = self.make()
        third.apply(again.diff())
        for replica in (reader, again, third):
            replica.apply(updates[late])
            assert self.shown(replica) == self.shown(writer)

    @pytest.mark.parametrize("seed", range(16))
    def test_loading_is_the_same_as_applying_one_at_a_time(self, seed: int) -> None:
        rng = random.Random(seed)
        writers = [self.make() for _ in range(3)]
        stored: list[bytes] = []
        for _ in range(rng.randrange(3, 40)):
            writer, other = rng.sample(writers, 2)
            version = writer.version()
            stored += self.updates(writer, rng, rng.randrange(1, 4))
            if rng.random() < 0.3:
                stored.append(writer.diff(since=version))  # says the same again, cut elsewhere
            if rng.random() < 0.3:
                other.apply(writer.diff(since=other.version()))
        if seed % 4 == 1:
            rng.shuffle(stored)
        if seed % 4 >= 2:
            stored = [update for update in stored if rng.random() < 0.97]  # some wait for others that never come
        first = rng.randrange(len(stored)) if rng.random() < 0.5 else 0
        one, other = self.make(), self.make()
        for update in stored[:first]:
            one.apply(update)
        snapshot, waiting = one.snapshot()
        other.load(snapshot if first else None, [*waiting, *stored[first:]])
        for update in stored[first:]:
            one.apply(update)
        assert self.shown(other) == self.shown(one)
        assert not one.adds(other.snapshot()[0])
        assert not other.adds(one.snapshot()[0])
        assert bool(other.snapshot()[1]) == bool(one.snapshot()[1])
        rest = [writer.diff() for writer in writers]
        for replica in (one, other):
            for update in rest:
                replica.apply(update)
        assert self.shown(other) == self.shown(one)
        assert not other.snapshot()[1]

    def test_a_diff_is_what_the_other_lacks_deletes_included(self) -> None:
        a, b = self.make(), self.make()
        with a.edit() as edit:
            edit.put_node("entries", "x", {"head": "h"})
            edit.put_text("entries", "x", "live")
            edit.append_text("entries", "x", "live", "some text " * 50)
        b.apply(a.diff())
        with a.edit() as edit:
            edit.delete_field("entries", "x", "live")
        step = a.diff(since=b.version())
        assert len(step) < len(a.diff())
        b.apply(step)
        assert self.shown(b) == self.shown(a)
        assert not b.apply(a.diff(since=b.version())).news

    def test_an_edit_reports_what_it_touched_and_can_be_read_before_it_ends(self) -> None:
        replica = self.make()
        with replica.edit() as edit:
            edit.put_node("entries", "x", {"head": "h"})
            assert edit.take_touched().of("entries") == {"x"}
            assert replica.node("entries", "x") == {"head": "h"}
            edit.put("acts", "k", "v")
            assert edit.take_touched().of("acts") == {"k"}
        with replica.edit() as nothing:
            pass
        assert nothing.update == b""
        other = self.make()
        applied = other.apply(edit.update)
        assert applied.news
        assert applied.touched.of("entries") == {"x"}
        assert applied.touched.of("acts") == {"k"}
        assert not other.apply(edit.update).news

    def test_text_that_somebody_dropped_is_not_written_into_thin_air(self) -> None:
        replica = self.make()
        with replica.edit() as edit:
            edit.put_node("entries", "x", {"head": "h"})
            edit.put_text("entries", "x", "live")
            edit.delete_field("entries", "x", "live")
            assert not edit.append_text("entries", "x", "live", "lost?")

    def test_an_update_tells_a_foreign_key_before_it_is_applied(self) -> None:
        one, other = self.make(), self.make()
        for replica, name in ((one, "id:one"), (other, "id:other")):
            with replica.edit() as edit:
                edit.put("meta", "schema", "1.0")
                edit.put("meta", name, "1")
                edit.put("acts", "id:act", "1")
                edit.put_node("entries", "id:entry", {"id:field": "meta id:text"})
        foreign = self.foreign_key
        assert foreign(one.diff(), "meta", "id:", "id:one") is None
        assert foreign(other.diff(), "meta", "id:", "id:one") == "id:other"
        assert foreign(other.diff(), "meta", "id:", "id:ot") == "id:other"
        assert foreign(other.diff(), "meta", "other:", "other:one") is None
        at = one.version()
        with one.edit() as edit:
            edit.put("acts", "more", "meta id:three")
        assert foreign(one.diff(since=at), "meta", "id:", "id:two") is None, "an update need not say"
        one.apply(other.diff())
        assert foreign(one.diff(), "meta", "id:", "id:one") is None, "both came together before: nothing is refused"

    @pytest.mark.parametrize("seed", range(6))
    def test_malformed_bytes_are_refused_and_harm_nothing(self, seed: int) -> None:
        rng = random.Random(seed)
        replica = self.make()
        updates = self.updates(replica, rng, 6)
        before = self.shown(replica)
        for _ in range(200):
            bad = bytearray(rng.choice(updates))
            for _ in range(rng.randrange(1, 4)):
                bad[rng.randrange(len(bad))] = rng.randrange(256)
            target = self.make()
            target.load(*replica.snapshot())
            try:
                target.apply(bytes(bad[: rng.randrange(1, len(bad) + 1)]))
            except MalformedUpdate:
                assert target.broken or self.shown(target) == before
        for junk in (b"", b"\xff", b"\xff" * 40):
            with pytest.raises(MalformedUpdate):
                replica.apply(junk)
            with pytest.raises(MalformedUpdate):
                replica.diff(since=junk)
        assert self.shown(replica) == before

    @pytest.mark.parametrize("seed", range(6))
    def test_adds_tells_what_apply_would_do(self, seed: int) -> None:
        rng = random.Random(seed)
        writer, reader = self.make(), self.make()
        updates = self.updates(writer, rng, 20)
        for update in updates + rng.choices(updates, k=10):
            adds = reader.adds(update)
            assert adds == reader.apply(update).changed
        assert not reader.adds(writer.diff())

    def test_a_value_that_no_record_could_hold_is_refused(self) -> None:
        replica = self.make()
        large = "x" * (MAX_VALUE + 1)
        with replica.edit() as edit:
            with pytest.raises(InvalidContent):
                edit.put("acts", "a", large)
            with pytest.raises(InvalidContent):
                edit.put_node("entries", "a", {"head": large})
            edit.put_node("entries", "b", {"head": "h"})
            with pytest.raises(InvalidContent):
                edit.put_field("entries", "b", "more", large)
        assert set(replica.keys("entries")) == {"b"}
        assert not set(replica.keys("acts"))

    def test_fields_of_other_documents_are_read_as_they_were_written(self) -> None:
        one, other = self.make(), self.make()
        with one.edit() as edit:
            edit.put_node("entries", "x", {"head": "😀", "bytes": b"\0\xff", "empty": ""})
            edit.put("acts", "a", b"")
        other.apply(one.diff())
        assert other.node("entries", "x") == {"head": "😀", "bytes": b"\0\xff", "empty": ""}
        assert (other.get("acts", "a"), other.get("acts", "b"), other.get("entries", "x")) == (b"", None, None)
        assert other.node("acts", "a") is None


SECRET = "never say this again"


class ErasureSuite(ReplicaSuite):
    """The part of Backend's contract that is about what leaves a document's bytes."""

    @abstractmethod
    def backend(self) -> Backend:
        """A backend."""

    def make(self) -> Replica:
        return self.backend().make_replica(ROOTS)

    def foreign_key(self, update: bytes, root: str, prefix: str, own: str) -> str | None:
        backend = self.backend()
        told = backend.foreign_key(backend.read(update), root, prefix, own)
        assert told == super().foreign_key(update, root, prefix, own), "a replica tells the same"
        return told

    def loaded(self, updates: Sequence[bytes]) -> Replica:
        replica = self.make()
        replica.load(None, updates)
        return replica

    def leaves(self, erased: bool) -> bool:
        """Whether a deleted text is in no bytes any more."""
        return erased or self.backend().forgets

    def all_bytes(self, update: bytes) -> bytes:
        """All that the bytes of an update say, where a backend deflates them."""
        return update

    def with_a_deleted_secret(self, rng: random.Random, erased: bool) -> tuple[Replica, list[bytes]]:
        """A replica that has deleted a text, and all updates up to then. ``erased``: so that it leaves all bytes."""

        def delete(edit: Edit, name: str) -> None:
            if erased:
                edit.erase_fields("entries", "secret", [name])
            else:
                edit.delete_field("entries", "secret", name)

        replica = self.make()
        updates = self.updates(replica, rng, 8)
        writes: tuple[Callable[[Edit], object], ...] = (
            lambda edit: edit.put_node("entries", "secret", {"head": "h"}),
            lambda edit: edit.put_text("entries", "secret", "live"),
            lambda edit: edit.append_text("entries", "secret", "live", SECRET),
            lambda edit: edit.put_field("entries", "secret", "kept", SECRET),
            lambda edit: delete(edit, "live"),
            lambda edit: delete(edit, "kept"),
        )
        for write in writes:
            with replica.edit() as edit:
                write(edit)
            updates.append(edit.update)
        assert SECRET.encode() in b"".join(updates)
        return replica, updates

    @pytest.mark.parametrize("erased", [True, False])
    @pytest.mark.parametrize("seed", range(6))
    def test_redacted_updates_hold_nothing_deleted_and_say_the_rest(self, seed: int, erased: bool) -> None:
        rng, backend = random.Random(seed), self.backend()
        replica, updates = self.with_a_deleted_secret(rng, erased)
        whole, _ = replica.snapshot()
        redacted = backend.redact(whole, updates)
        if not self.leaves(erased):
            assert redacted is None, "there is nothing that can be left out"
            return
        assert SECRET.encode() not in self.all_bytes(whole)
        assert redacted is not None
        assert SECRET.encode() not in b"".join(map(self.all_bytes, redacted))
        assert self.shown(self.loaded(redacted)) == self.shown(replica)
        told = self.make()
        for update in [*updates[:-2], *redacted]:
            told.apply(update)
        assert self.shown(told) == self.shown(replica)
        assert backend.redact(whole, redacted) is None
        assert backend.redact(whole, []) is None

    @pytest.mark.parametrize("erased", [True, False])
    @pytest.mark.parametrize("seed", range(6))
    def test_compacting_keeps_the_document_what_waits_and_what_nobody_can_apply(self, seed: int, erased: bool) -> None:
        rng, backend = random.Random(seed), self.backend()
        replica, updates = self.with_a_deleted_secret(rng, erased)
        with replica.edit() as missing:
            missing.put("acts", "late", "v")
        with replica.edit() as waits:
            waits.put("acts", "later", "v")
        junk = b"\xff" * 9
        made = backend.compact([*updates, waits.update, junk])
        assert made[-1] == junk
        assert self.leaves(erased) == (SECRET.encode() not in b"".join(map(self.all_bytes, made[:-1])))
        again = backend.compact(made)
        assert again[0] == made[0]
        assert self.shown(self.loaded([*again[:-1], missing.update])) == self.shown(replica)

    @pytest.mark.parametrize("erased", [True, False])
    @pytest.mark.parametrize("seed", range(6))
    def test_catching_up_is_the_tail_without_what_it_took_back(self, seed: int, erased: bool) -> None:
        rng, backend = random.Random(seed), self.backend()
        replica, updates = self.with_a_deleted_secret(rng, erased)
        folded, kept = rng.randrange(4), rng.randrange(4, 8)
        snapshot = backend.compact(updates[:folded])
        step = backend.catch_up(snapshot, updates[folded:kept], updates[kept:])
        assert not self.leaves(erased) or SECRET.encode() not in self.all_bytes(step)
        behind = self.loaded(updates[:kept])
        behind.apply(step)
        assert self.shown(behind) == self.shown(replica)
        assert not behind.snapshot()[1]
        with pytest.raises(MalformedUpdate):
            backend.catch_up([], updates[1:kept], updates[kept:])
        with pytest.raises(MalformedUpdate):
            backend.catch_up(snapshot, updates[folded:kept], [b"\xff"])

    @pytest.mark.parametrize("seed", range(10))
    def test_what_is_erased_is_in_no_bytes_whatever_comes_when(self, seed: int) -> None:
        """Erased on several replicas, beside writes of all that had not heard of it, and in any order: what was said
        elsewhere stays, and who has erased fields back erases them again."""
        rng, backend = random.Random(seed), self.backend()
        replicas = [self.make() for _ in range(3)]
        updates: list[bytes] = []
        gone, kept = set[str](), set[str]()
        for n in range(40):
            at = rng.randrange(3)
            replica = replicas[at]
            keys = sorted(replica.keys("entries"))
            key = rng.choice(keys) if keys else ""
            said = key and not any(name.startswith("erased:") for name in replica.node("entries", key) or ())
            with replica.edit() as edit:
                match rng.randrange(6):
                    case 1 if said:
                        edit.put_field("entries", key, f"version:{n}", f"{key} says so, {SECRET}")
                    case 2 if key:
                        edit.put_field("entries", key, f"other:{n}", f"kept {n}")
                        kept.add(f"other:{n}")
                    case 3 if said:
                        if "live:0" not in (replica.node("entries", key) or {}):
                            edit.put_text("entries", key, "live:0")
                        edit.append_text("entries", key, "live:0", f"{key} says so, {SECRET}")
                    case 4 if key and rng.random() < 0.5:
                        edit.delete_field("entries", key, "live:0")
                    case 5 if key and rng.random() < 0.3:
                        edit.put_field("entries", key, f"erased:{n}", "")
                        edit.erase_fields("entries", key, ["version:", "live:"])
                        gone.add(key)
                    case _:
                        edit.put_node("entries", f"e{n}.", {"head": "h", "version:0": f"e{n}. says so, {SECRET}"})
            updates += [edit.update] if edit.update else []
            if rng.random() < 0.3:
                other = rng.choice(replicas)
                other.apply(replica.diff(since=other.version()) if rng.random() < 0.5 else replica.diff())
            if rng.random() < 0.1:
                replicas[at] = self.make()
                replicas[at].load(*replica.snapshot())
        replicas += [self.loaded(backend.compact(rng.sample(updates, len(updates)))), self.make()]
        for replica in replicas:
            for update in rng.sample(updates, len(updates)):
                for piece in backend.split(update, 1 << 16) if rng.random() < 0.5 else [update]:
                    replica.apply(piece)
        for replica in replicas[:2]:
            for key in sorted(gone):
                left = [name for name in replica.node("entries", key) or () if name.startswith(("version:", "live:"))]
                if left or replica.keeps_deleted("entries", key, ["version:", "live:"]):
                    with replica.edit() as edit:
                        edit.erase_fields("entries", key, ["version:", "live:"])
                    updates.append(edit.update)
                    for other in replicas:
                        other.apply(edit.update)
        shown = [self.shown(replica) for replica in replicas]
        assert all(each == shown[0] for each in shown)
        entries: Any = shown[0]["entries"]
        assert {key for key, node in entries.items() if "version:0" not in node} == gone
        assert {name for node in entries.values() for name in node if name.startswith("other:")} == kept
        for replica in replicas:
            assert not replica.snapshot()[1]
            told = [replica.diff(), replica.snapshot()[0], *backend.compact(rng.sample(updates, len(updates)))]
            redacted = backend.redact(replica.snapshot()[0], updates)
            assert bool(gone) <= (redacted is not None)
            for key in gone:
                assert f"{key} says so".encode() not in b"".join(map(self.all_bytes, [*told, *(redacted or [])]))
            assert redacted is None or self.shown(self.loaded(redacted)) == shown[0]


class BackendSuite(ErasureSuite):
    """Each test says one sentence of Backend's contract. ``locates``: whether ``locate`` finds any."""

    locates = True

    def test_a_backend_has_a_kind_and_its_empty_update_says_nothing(self) -> None:
        assert self.backend().kind
        assert self.make().kind == self.backend().kind
        backend, replica = self.backend(), self.make()
        backend.read(backend.empty)
        assert not replica.apply(backend.empty).news
        assert not replica.adds(backend.empty)
        assert not self.make().apply(replica.diff()).news
        assert backend.compact([]) == []
        assert backend.compact([backend.empty]) == []

    def test_what_is_derived_is_there(self) -> None:
        backend, replica = self.backend(), self.make()
        alone = NewNode("entries", "c", {"head": "h", "b": b"\0\xff"})
        pair = [NewNode("entries", "a", {"head": "é😀"}), NewNode("entries", "b", {})]
        update = backend.derive([pair, [alone]], [NewField(alone, "later", b"x"), NewField(alone, "more", "y")])
        assert self.backend().derive([[alone], pair], [NewField(alone, "more", "y"), NewField(alone, "later", b"x")])
        assert replica.apply(update).touched.of("entries") == {"a", "b", "c"}
        entries = {"a": {"head": "é😀"}, "b": {}, "c": {"head": "h", "b": b"\0\xff", "later": b"x", "more": "y"}}
        assert self.shown(replica)["entries"] == entries
        assert not replica.apply(update).news
        assert not replica.apply(self.backend().derive([[alone]])).news
        assert replica.snapshot()[1] == []
        assert self.shown(self.loaded([replica.diff()])) == self.shown(replica)

    def test_a_value_that_no_record_could_hold_is_derived_only_as_a_copy(self) -> None:
        backend, replica, large = self.backend(), self.make(), "x" * (MAX_VALUE + 1)
        with pytest.raises(InvalidContent):
            backend.derive([[NewNode("entries", "a", {"head": large})]])
        with pytest.raises(InvalidContent):
            backend.derive([], [NewField(NewNode("entries", "a", {}), "more", large)])
        replica.apply(backend.derive([[NewNode("entries", "a", {"head": large}, copied=True)]]))
        assert replica.node("entries", "a") == {"head": large}

    @pytest.mark.parametrize("seed", range(20))
    def test_what_two_replicas_derive_is_one(self, seed: int) -> None:
        """Nothing that anybody wrote into it is lost, and nothing that anybody deleted comes back."""
        rng, backend = random.Random(seed), self.backend()
        groups = [
            [
                NewNode("entries", f"n{g}-{n}", {"head": f"{g} {n}", "secret": SECRET})
                for n in range(rng.randrange(1, 4))
            ]
            for g in range(6)
        ]
        alone = [group[0] for group in groups if len(group) == 1]
        replicas = [self.make() for _ in range(3)]
        updates: list[bytes] = []
        gone: set[str] = set()
        added: set[tuple[str, str]] = set()
        for n, replica in enumerate(replicas):
            for _ in range(4):
                mine = rng.sample(groups, rng.randrange(1, len(groups) + 1))
                named = [node for node in alone if [node] in mine or node.key in list(replica.keys("entries"))]
                fields = [NewField(node, f"more{rng.randrange(3)}", "m") for node in named]
                added |= {(field.node.key, field.name) for field in fields}
                updates.append(backend.derive(mine, fields))
                replica.apply(updates[-1])
                key = rng.choice(sorted(replica.keys("entries")))
                with replica.edit() as edit:
                    edit.put_field("entries", key, f"by{n}", "x")
                    edit.delete_field("entries", key, "secret")
                gone.add(key)
                added.add((key, f"by{n}"))
                updates += [edit.update] if edit.update else []  # what stood there already need not be written
        shown = []
        for replica in (*replicas, self.make()):
            for update in rng.sample(updates, len(updates)):
                replica.apply(update)
            shown.append(self.shown(replica))
            for key in replica.keys("entries"):
                node = replica.node("entries", key) or {}
                assert node["head"] == key[1:].replace("-", " ")
                assert ("secret" in node) == (key not in gone)
                assert {name for name in node if name[:2] in ("by", "mo")} == {f for k, f in added if k == key}
        assert all(each == shown[0] for each in shown)
        compacted = self.loaded(backend.compact(updates))
        assert self.shown(compacted) == shown[0]
        compacted.apply(backend.derive(groups))
        assert self.shown(compacted)["entries"] | shown[0]["entries"] == self.shown(compacted)["entries"]  # type: ignore[operator]

    @pytest.mark.parametrize("seed", range(6))
    def test_updates_that_were_read_are_applied_together_as_one_by_one(self, seed: int) -> None:
        rng, backend = random.Random(seed), self.backend()
        writer, one, other = self.make(), self.make(), self.make()
        updates = self.updates(writer, rng, 15)
        rng.shuffle(updates)
        other.apply_together([backend.read(update) for update in updates])
        for update in updates:
            assert backend.read(update).data == update
            one.apply(update)
        assert self.shown(one) == self.shown(other) == self.shown(writer)
        for junk in (b"", b"\xff", b"\xff" * 40):
            with pytest.raises(MalformedUpdate):
                backend.read(junk)

    @pytest.mark.parametrize("seed", range(12))
    def test_what_is_kept_of_merged_updates_makes_the_same_document(self, seed: int) -> None:
        """In any groups and any order, with repeats: whoever gets what is kept has what the writer has."""
        rng, backend = random.Random(seed), self.backend()
        writer, merged, reader, late = self.make(), self.make(), self.make(), self.make()
        updates = self.updates(writer, rng, 30)
        if seed % 3:  # else in order: nothing waits
            for _ in range(rng.choice((2, 30))):
                a, b = rng.randrange(len(updates)), rng.randrange(len(updates))
                updates[a], updates[b] = updates[b], updates[a]
        updates += rng.sample(updates, 5)
        kept: list[bytes] = []
        at = 0
        while at < len(updates):
            count = rng.choice((1, 2, 7, 40))
            kept += merged.merge([backend.read(update) for update in updates[at : at + count]])
            at += count
        assert not merged.merge([backend.read(update) for update in updates]), "all is there"
        assert self.shown(merged) == self.shown(writer)
        for update in kept:
            reader.apply(update)
        late.apply_together([backend.read(update) for update in kept])
        assert self.shown(reader) == self.shown(late) == self.shown(writer)
        assert reader.version() == late.version() == writer.version()

    @pytest.mark.parametrize("seed", range(6))
    def test_joined_updates_say_what_they_said_one_by_one(self, seed: int) -> None:
        rng, backend = random.Random(seed), self.backend()
        writer, one, joined = self.make(), self.make(), self.make()
        updates = self.updates(writer, rng, 10)
        for part in ("an", " answer", " that", " is", " stréamed", " ", "in words") * 3:
            with writer.edit() as edit:
                if "live" not in (writer.node("entries", "answer") or {}):
                    edit.put_node("entries", "answer", {})
                    edit.put_text("entries", "answer", "live")
                edit.append_text("entries", "answer", "live", part)
            updates.append(edit.update)
        updates += self.updates(writer, rng, 5) + rng.sample(updates, 5) + [b"", b"\xff"]
        at, most = 0, rng.choice((0, 80, 1 << 20))
        while at < len(updates):
            update, count = backend.join(updates, at, most)
            assert 1 <= count <= len(updates) - at
            assert count > 1 or update == updates[at]
            assert count == 1 or len(update) <= most
            for whole in updates[at : at + count] if count > 1 else ():
                backend.read(whole)
            with suppress(MalformedUpdate):
                joined.apply(update)
            at += count
        for update in updates[:-2]:
            one.apply(update)
        assert self.shown(joined) == self.shown(one) == self.shown(writer)
        assert joined.version() == one.version()

    def test_whoever_wants_to_know_is_told_while_bytes_are_applied(self) -> None:
        told: list[str] = []

        class Applying:
            def __enter__(self) -> None:
                told.append("begin")

            def __exit__(self, *error: object) -> None:
                told.append("end")

        writer = self.make()
        with writer.edit() as edit:
            edit.put("acts", "a", "v")
        replica = self.backend().make_replica(ROOTS, Applying())
        replica.load(edit.update, ())
        assert told == ["begin", "end"]
        replica.apply(edit.update)
        with suppress(MalformedUpdate):
            replica.apply(b"\xff")
        assert told == ["begin", "end"] * 3

    @pytest.mark.parametrize("seed", range(6))
    def test_pieces_say_what_the_whole_said(self, seed: int) -> None:
        rng, backend, writer = random.Random(seed), self.backend(), self.make()
        self.updates(writer, rng, 20)
        whole = writer.diff()
        pieces = backend.split(whole, 400)
        assert len(pieces) > 1
        assert all(len(piece) <= 400 for piece in pieces)
        assert not any(self.loaded(pieces[: n + 1]).snapshot()[1] for n in range(len(pieces))), "none waits, in order"
        assert self.shown(self.loaded(rng.sample(pieces, len(pieces)))) == self.shown(writer)
        assert backend.split(whole, len(whole)) == [whole]

    def test_a_value_that_is_larger_than_a_piece_can_not_be_split(self) -> None:
        backend, writer = self.backend(), self.make()
        with writer.edit() as edit:
            edit.put("acts", "a", b"x" * 1_000)
        with pytest.raises(MalformedUpdate):
            backend.split(edit.update, 900)

    def test_a_large_update_is_cut_and_bytes_that_are_none_stay_as_they_are(self) -> None:
        backend, writer = self.backend(), self.make()
        with writer.edit() as edit:
            for n in range(40):
                edit.put("acts", f"a{n}", bytes(100_000))
        pieces = backend.cut(edit.update)
        assert len(pieces) > 1
        assert all(len(piece) <= 2 << 20 for piece in pieces)
        assert self.shown(self.loaded(pieces)) == self.shown(writer)
        assert backend.cut(pieces[0]) == [pieces[0]]
        junk = b"\xff" * (3 << 20)
        assert backend.cut(junk) == [junk]

    def test_nodes_are_found_in_the_pieces_of_a_snapshot_where_they_begin(self) -> None:
        backend = self.backend()
        replica = backend.make_replica(("r", "s"))
        values = {f"key{n}" + 'ü"' * (n % 3): f"value {n} of somebody" for n in range(40)}
        for key, value in values.items():
            with replica.edit() as edit:
                edit.put_node("r", key, {"head": value})
                edit.put_node("s", f"other {key}", {"head": "other"})
        with replica.edit() as edit:
            edit.put("r", "scalar", "no node")
        snapshot = replica.snapshot()[0]
        assert len(backend.locate(snapshot, "r")) > 10 or not self.locates
        assert backend.locate(snapshot, "r").keys() <= values.keys()
        for size in (400, 1_000, len(snapshot)):
            pieces = [snapshot[at : at + size] for at in range(0, len(snapshot), size)]
            found = [backend.locate(piece, "r") for piece in pieces]
            assert sum(map(len, found)) >= len(backend.locate(snapshot, "r")) - len(pieces), (
                "but for those that were cut"
            )
            for n, keys in enumerate(found):
                assert all(values[key].encode() in b"".join(pieces[n : n + 2])[at:] for key, at in keys.items())
                assert all(values[key].encode() not in pieces[n][:at] for key, at in keys.items())
        for data in (b"", b"\x27", snapshot[::-1], bytes(range(256)), bytes(300), b"\xff" * 300):
            backend.locate(data, "r")

    @pytest.mark.parametrize("seed", range(6))
    def test_an_update_that_says_what_a_version_has_repeats(self, seed: int) -> None:
        rng, backend = random.Random(seed), self.backend()
        replica = self.make()
        made = []
        for n in range(10):
            before = replica.version()
            with replica.edit() as edit:
                edit.put("acts", f"a{n}", str(rng.random()))
            made.append(backend.read(edit.update))
            assert not backend.repeats([made[-1]], before)
            assert backend.repeats([made[-1], *made], replica.version())
        assert not backend.repeats([], replica.version())
        assert not backend.repeats(made, self.make().version())

    def test_an_update_that_sets_a_field_is_told_by_the_field_s_name(self) -> None:
        backend, replica = self.backend(), self.make()
        with replica.edit() as created:
            created.put_node("entries", "x", {"head": "h"})
        with replica.edit() as edit:
            edit.put_field("entries", "x", "erased:session", "v")
        assert backend.touches(backend.read(edit.update), "erased:")
        assert backend.touches(backend.read(replica.diff()), "erased:")
        untouched = backend.read(created.update)
        assert not backend.touches(untouched, "erased:"), "True would be no fault, but always True no help"

    @pytest.mark.parametrize("seed", range(3))
    def test_a_log_is_begun_with_any_first_record(self, seed: int) -> None:
        rng, backend = random.Random(seed), self.backend()
        writer = self.make()
        updates = self.updates(writer, rng, 12)
        for first, rest in (
            (backend.compact(updates)[0], []),
            (updates[0], updates[1:]),
            (updates[-1], updates[:-1]),
        ):
            replica = backend.begin(first)
            replica.load(None, rest)
            assert self.shown(self.loaded([replica.diff()])) == self.shown(writer)
        with pytest.raises(MalformedUpdate):
            backend.begin(b"\xff" * 9)

    @pytest.mark.parametrize("seed", range(3))
    def test_a_log_is_loaded_without_what_nobody_can_apply(self, seed: int) -> None:
        rng, backend = random.Random(seed), self.backend()
        writer = self.make()
        updates = self.updates(writer, rng, 12)
        junk = [b"", b"\xff" * 9]
        replica, aside = backend.load_all(rng.sample([*updates, *junk], len(updates) + 2))
        assert sorted(aside) == sorted(junk)
        assert self.shown(self.loaded([replica.diff()])) == self.shown(writer)

    def test_work_is_told_of_any_bytes(self) -> None:
        backend, writer = self.backend(), self.make()
        rng = random.Random(1)
        for update in [*self.updates(writer, rng, 10), backend.empty, b"", b"\xff" * 40]:
            seconds, blocks = backend.estimate_work(update, 1_000)
            assert 0 <= seconds < 1
            assert 0 <= blocks <= 10 * (len(update) + 1)

"""What every Replica must do, as one suite: subclass ``ReplicaSuite`` in a test module and say how to make one."""

from __future__ import annotations

import random
from abc import abstractmethod

import pytest

from ..crdt.backend import Replica
from ..exceptions import MalformedUpdate

ROOTS = ("meta", "entries", "acts")


class ReplicaSuite:
    """Each test says one sentence of the contract in crdt/replica.py."""

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
        foreign = one.foreign_key
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

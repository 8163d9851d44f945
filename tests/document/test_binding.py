"""Which hidden fields go out, and why others don't: by one pure function, the same on every device."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import llmcrdt
from llmcrdt import FieldReport, HiddenField, Target
from llmcrdt.document.binding import Standing, evaluate, fields_to_send, report
from llmcrdt.document.conversation import core_of
from llmcrdt.document.entry import Entry, Text
from llmcrdt.document.frame import EMPTY_FRAME, Frame
from llmcrdt.exceptions import NotSealed
from llmcrdt.ids import ContentHash, EntryId, FrameHash, SessionId

OpenRepo = Callable[..., llmcrdt.Repo]
P = Target("p", "chat", "m1", "acct-1")
FAR = FrameHash("F" * 32)
NAME = "p/signature"

# one pure decision

ENTRY = Entry(
    EntryId("A" * 16), "assistant", (Text("Hi"),), "complete", ContentHash("V" * 32), "", SessionId("S" * 22), (), 1,
    0.0, frame=Frame(None, (), EMPTY_FRAME),
)  # fmt: skip
BINDING: dict[str, Any] = {
    "provider": "p", "api": "chat", "model": ["m1", "m2"], "account": "acct-1", "expires": 100, "frame": EMPTY_FRAME,
    "version": ENTRY.hash, "erased": ["E" * 16],
}  # fmt: skip
BROKEN: dict[str, tuple[str, Any]] = {
    "provider": ("provider", "q"),
    "api": ("api", "responses"),
    "model": ("model", ["m2", "m3"]),
    "account": ("account", "acct-2"),
    "somebody's": ("somebody's", 1),
    "expires": ("expired", 99.5),
    "expires that is none": ("unreadable", "soon"),
    "frame": ("frame", FAR),
    "version": ("version", "W" * 32),
    "erased": ("erased", []),
}


@given(st.sets(st.sampled_from(sorted(BROKEN))), st.sets(st.sampled_from(sorted(BINDING))))
def test_a_field_goes_out_exactly_if_nothing_of_its_binding_is_broken(broken: set[str], kept: set[str]) -> None:
    binding = {key: value for key, value in BINDING.items() if key in kept}
    for name in broken:
        binding[name.partition(" ")[0]] = BROKEN[name][1]
    reasons = {BROKEN[name][0] for name in broken}
    if "expires that is none" in broken and "expires" in broken:
        reasons = {*reasons} - ({"expired"} if binding["expires"] == "soon" else {"unreadable"})
    if "erased" not in binding:
        reasons.add("erased")
    found = evaluate(NAME, HiddenField(b"s", binding), P, Standing(ENTRY, EMPTY_FRAME, {EntryId("E" * 16)}), 99.5)
    assert found.sent == (not reasons)
    assert found.reason in reasons or found.sent
    assert (found.entry, found.name) == (ENTRY.id, NAME)
    assert not any(str(value) in str(found) for value in ("acct-1", "acct-2", FAR, EMPTY_FRAME))


@pytest.mark.parametrize(
    ("name", "target", "sent"),
    [("p/x", P, True), ("q/x", P, False), ("plain", P, False), ("p", P, False), ("llmcrdt/tokens", P, False)],
)
def test_a_field_without_a_provider_belongs_to_the_one_in_its_name_or_to_nobody(
    name: str, target: Target, sent: bool
) -> None:
    assert evaluate(name, HiddenField(b""), target, Standing(ENTRY, FAR), 0.0).sent == sent


def test_a_target_that_says_nothing_of_a_key_is_another_one() -> None:
    at = Standing(ENTRY, FAR)
    field = HiddenField(b"", {"account": "acct-1", "user": "u"})
    assert evaluate(NAME, field, Target("p", account="acct-1", more={"user": "u"}), at, 0.0).sent
    assert evaluate(NAME, field, Target("p", more={"user": "u"}), at, 0.0).reason == "account"
    assert evaluate(NAME, field, Target("p", account="acct-1"), at, 0.0).reason == "user"
    assert "\x1b" not in str(evaluate(NAME, HiddenField(b"", {"\x1b[2J": 1}), P, at, 0.0))


values = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=3)
values |= st.lists(st.none() | st.text(max_size=3)) | st.dictionaries(st.text(max_size=2), st.none(), max_size=1)


@given(st.dictionaries(st.sampled_from([*BINDING, "group", "group_size", "x"]), values))
def test_strangers_bindings_give_a_report_and_nothing_else(binding: dict[str, Any]) -> None:
    assert str(evaluate(NAME, HiddenField(b"", binding), P, Standing(ENTRY, EMPTY_FRAME), 0.0))


# in conversations


def signed(conversation: llmcrdt.Conversation, text: str, name: str = NAME, **binding: Any) -> llmcrdt.Entry:
    """An answer with a field that holds only on its frame."""
    frame = conversation.transcript()
    field = HiddenField(text.encode(), {"frame": frame.frame().hash, **binding})
    return conversation.append("assistant", text, frame=frame, hidden={name: field})


def why(conversation: llmcrdt.Conversation, entry: llmcrdt.Entry, **more: Any) -> tuple[str, EntryId | None]:
    (found,) = [line for line in conversation.hidden_report(P, **more) if line.entry == entry.id]
    sent = fields_to_send(list(conversation.transcript()), P, more.get("now", 0.0))
    assert (NAME in sent.get(entry.id, {})) == found.sent, "what is reported is what is sent"
    assert conversation.entry(entry.id).hidden[NAME].data, "it stays stored"
    return found.reason, found.by


def two(open_repo: OpenRepo) -> tuple[llmcrdt.Conversation, llmcrdt.Conversation]:
    here = open_repo("laptop").create()
    here.append("user", "u")
    there = open_repo("phone").join(here.id)
    there.apply(here.diff())
    return here, there


def merge(*conversations: llmcrdt.Conversation) -> None:
    for _ in range(2):
        for one in conversations:
            for other in conversations:
                other.apply(one.diff(since=other.version()))


def test_a_field_for_another_account_or_model_stays_and_comes_back(open_repo: OpenRepo) -> None:
    here, _ = two(open_repo)
    entry = signed(here, "a", account="acct-1", model="m1")
    assert why(here, entry) == ("", None)
    for target, reason in [
        (Target("p", "chat", "m1", "acct-2"), "account"),
        (Target("p", "chat", "m1"), "account"),
        (Target("p", "chat", "m2", "acct-1"), "model"),
        (Target("q", "chat", "m1", "acct-1"), "provider"),
        (P, ""),
    ]:
        assert [line.reason for line in here.hidden_report(target)] == [reason]
        assert bool(fields_to_send(list(here.transcript()), target, 0.0)) == (not reason)


def test_a_field_expires_by_the_time_that_is_given_and_by_the_clock(open_repo: OpenRepo) -> None:
    now = [1000.0]
    conversation = open_repo("laptop", clock=lambda: now[0]).create()
    conversation.append("user", "u")
    entry = signed(conversation, "a", expires=2000)
    assert why(conversation, entry, now=1999.9) == ("", None)
    assert why(conversation, entry, now=2000) == ("expired", None)
    assert [line.reason for line in conversation.hidden_report(P)] == [""]
    now[0] = 2000.0
    assert [line.reason for line in conversation.hidden_report(P)] == ["expired"]


def test_a_merge_that_leaves_the_frame_is_told_by_the_entry_that_came_between_and_undone(open_repo: OpenRepo) -> None:
    here, there = two(open_repo)
    entry = signed(here, "a")
    between = there.append("user", "v")
    later = signed(there, "b")
    assert why(here, entry) == ("", None)
    merge(here, there)
    for conversation in (here, there):
        assert why(conversation, later) == ("", None), "the transcript starts with the frame of the latest one"
        assert why(conversation, entry) == ("frame", between.id)
    here.edit(between, "v, said otherwise")
    assert why(here, entry) == ("", None), "it comes back when its frame does"
    assert why(here, later)[0] == "elsewhere"


def test_an_edit_in_the_frame_takes_the_field_out_until_the_old_words_are_shown_again(open_repo: OpenRepo) -> None:
    here, _ = two(open_repo)
    asked = here.transcript()[0]
    entry = signed(here, "a")
    edit = here.edit(asked, "u, said otherwise")
    assert why(here, entry) == ("elsewhere", edit.id)
    here.select(asked)
    assert why(here, entry) == ("", None)
    own = here.edit(entry, "a, by a person")
    assert here.entry(own.id).hidden == {}, "an edit takes no field of the old words along"
    assert why(here, entry) == ("elsewhere", own.id)


def test_an_erase_in_the_frame_ends_every_field_computed_on_it_but_not_what_came_after(open_repo: OpenRepo) -> None:
    here, there = two(open_repo)
    secret = here.append("user", "the secret")
    there.apply(here.diff())
    entry = signed(here, "a")
    unbound = here.append("assistant", "b", frame=here.transcript(), hidden={NAME: b"reasoning, encrypted"})
    here.erase(secret)
    assert why(here, entry) == ("erased", secret.id)
    assert why(here, unbound) == ("erased", secret.id), "who knows what words it holds"
    there.append("user", "v")
    unaware = signed(there, "c")
    assert why(there, unaware) == ("", None)
    after = signed(here, "d")
    assert after.saw_erased == (secret.id,)
    assert why(here, after) == ("", None)
    again = signed(here, "e")
    assert again.saw_erased == (), "its base says so"
    assert why(here, again) == ("", None)
    merge(here, there)
    for conversation in (here, there):
        assert why(conversation, unaware) == ("erased", secret.id)
        assert why(conversation, entry) == why(conversation, unbound) == ("erased", secret.id)


def test_an_erase_while_the_provider_answers_is_not_taken_for_known(open_repo: OpenRepo) -> None:
    here, _ = two(open_repo)
    secret = here.append("user", "the secret")
    sent = here.transcript()
    here.erase(secret)
    entry = here.append("assistant", "a", frame=sent, hidden={NAME: HiddenField(b"s", {"frame": sent.hash})})
    assert why(here, entry) == ("erased", secret.id)
    again = here.append("assistant", "b", instead_of=entry, hidden={NAME: b"s"})
    assert why(here, again) == ("erased", secret.id), "nobody says when that one was computed"


def test_a_summary_ends_what_holds_on_the_list_before_it(open_repo: OpenRepo) -> None:
    here, _ = two(open_repo)
    first = signed(here, "a")
    here.append("user", "v")
    entry = signed(here, "b")
    loose = here.append("assistant", "c", frame=here.transcript(), hidden={NAME: b"s"})
    summary = here.summarize(until=first, text="u and a")
    assert why(here, first) == ("covered", summary.id)
    assert why(here, entry) == ("frame", summary.id)
    assert why(here, loose) == ("", None)
    assert why(here, signed(here, "d")) == ("", None)


def test_a_group_goes_out_whole_or_not_at_all(open_repo: OpenRepo) -> None:
    here, _ = two(open_repo)

    def group(number: int, **binding: Any) -> HiddenField:
        return HiddenField(b"s", {"group": "rs_1", **({"group_size": number} if number else {}), **binding})

    def reasons(hidden: dict[str, HiddenField], target: Target = P) -> list[str]:
        entry = here.append("assistant", "a", frame=here.transcript(), hidden=hidden)
        found = [line.reason for line in here.hidden_report(target, now=1.0) if line.entry == entry.id]
        here.erase(entry)
        return found

    assert reasons({"p/1": group(0), "p/2": group(0)}) == ["", ""]
    assert reasons({"p/1": group(2), "p/2": group(2)}) == ["", ""]
    assert reasons({"p/1": group(0), "p/2": group(0, expires=1), "p/3": HiddenField(b"")}) == ["group", "expired", ""]
    assert reasons({"p/1": group(3), "p/2": group(3)}) == ["group", "group"]
    one = here.append("assistant", "a", frame=here.transcript(), hidden={"p/1": group(0)})
    assert [line.reason for line in here.hidden_report(P)] == [""]
    two_ = here.append("assistant", "b", frame=here.transcript(), hidden={"p/1": group(0, account="acct-2")})
    assert [(line.reason, line.by) for line in here.hidden_report(P)] == [("group", two_.id), ("account", None)]
    assert one.id != two_.id
    here.erase(two_)
    refused = {(one.id, "p/1")}
    more = here.append("assistant", "c", frame=here.transcript(), hidden={"p/1": group(0), "p/2": HiddenField(b"")})
    lines = report(tuple(here.transcript()), P, 1.0, refused=refused)
    assert [(line.entry, line.reason, line.by) for line in lines] == [
        (one.id, "refused", None),
        (more.id, "group", one.id),
        (more.id, "", None),
    ]


def test_one_who_can_t_tell_the_group_of_a_field_sends_none_of_that_entry_s_groups(open_repo: OpenRepo) -> None:
    pytest.importorskip("nacl", reason='sealing needs PyNaCl: pip install "llmcrdt[seal]"')
    here, there = two(open_repo)
    hidden = {"p/1": HiddenField(b"", {"group": "g"}), "p/2": HiddenField(b"", {"group": "g"}, sealed=True)}
    here.append("assistant", "a", frame=here.transcript(), hidden=hidden)
    merge(here, there)
    assert [line.reason for line in here.hidden_report(P)] == ["", ""]
    assert [line.reason for line in there.hidden_report(P)] == ["group", "locked"]


def test_a_field_of_another_version_does_not_go_out(open_repo: OpenRepo) -> None:
    here, there = two(open_repo)
    frame = here.transcript()
    stream = here.stream("assistant", frame=frame)
    stream.write("a")
    stream.flush()
    there.apply(here.diff())
    stopped = there.seal(stream.id)
    there.append("assistant", "b", frame=there.transcript())
    entry = stream.seal(hidden={NAME: HiddenField(b"s", {"frame": frame.hash})})
    assert why(here, entry) == ("", None)
    merge(here, there)
    for conversation in (here, there):
        assert conversation.entry(stream.id).hash == stopped.hash, "the one that a frame holds is shown"
        assert why(conversation, entry) == ("version", None)


def test_going_back_to_the_first_provider_brings_its_fields_back(open_repo: OpenRepo) -> None:
    conversation = open_repo("laptop").create()
    made: dict[str, list[EntryId]] = {"a": [], "b": []}
    rng = random.Random(7)
    for turn in range(30):
        conversation.append("user", f"u{turn}")
        provider = rng.choice("ab")
        target, other = Target(provider), Target("ab"["ab".index(provider) - 1])
        sent = fields_to_send(list(conversation.transcript()), target, 0.0)
        assert list(sent) == made[provider], "all of its own, and nothing of the other's"
        assert [line.entry for line in conversation.hidden_report(other) if line.sent] == made[other.provider]
        made[provider].append(signed(conversation, f"a{turn}", f"{provider}/signature").id)


@pytest.mark.parametrize("seed", range(40))
def test_a_field_that_holds_on_its_frame_goes_out_exactly_if_its_frame_stands(open_repo: OpenRepo, seed: int) -> None:
    """Devices write, edit, select, erase and merge at random; the transcript itself says what has to be reported."""
    rng = random.Random(seed)
    here, there = two(open_repo)
    third = open_repo("tablet").join(here.id)
    all_ = (here, there, third)
    fields: dict[EntryId, bytes] = {}
    merge(*all_)
    for n in range(30):
        conversation = rng.choice(all_)
        shown = [entry for entry in conversation.transcript() if entry.status != "erased"]
        away = [found.entry for found in conversation.transcript().elsewhere if found.way == "replaced"]
        match rng.randrange(9):
            case 0 | 1 | 2:
                made = signed(conversation, f"a{n}")
                fields[made.id] = f"a{n}".encode()
            case 3 | 4:
                conversation.append("user", f"u{n}")
            case 5 if shown:
                conversation.edit(rng.choice(shown), f"e{n}")
            case 6 if away:
                conversation.select(rng.choice(away))
            case 7 if shown and rng.random() < 0.3:
                conversation.erase(rng.choice(shown))
            case _:
                other = rng.choice(all_)
                other.apply(conversation.diff(since=other.version()))
        check(conversation, fields)
    merge(*all_)
    for conversation in all_:
        check(conversation, fields)
    assert here.hidden_report(P) == there.hidden_report(P) == third.hidden_report(P)


def check(conversation: llmcrdt.Conversation, fields: dict[EntryId, bytes]) -> None:
    transcript = list(conversation.transcript())
    reports: dict[EntryId, FieldReport] = {line.entry: line for line in conversation.hidden_report(P)}
    view = core_of(conversation).view
    for index, entry in enumerate(transcript):
        if entry.id not in fields or entry.status == "erased":
            continue
        assert entry.hidden[NAME].data == fields[entry.id]
        ids, pins = view.order.frame_list(entry.frame)
        stands = [(e.id, e.hash) for e in transcript[:index]] == [(i, pins[i]) for i in ids]
        gone = {i for i in ids if conversation.entry(i).status == "erased"}
        line = reports.pop(entry.id)
        if not gone:
            assert (line.reason == "") == stands, str(line)
            assert line.reason in ("", "frame")
        else:
            assert line.reason in ("", "frame", "erased")
            assert line.reason == "erased" or gone <= seen(conversation, entry)
        if line.reason == "frame":
            now, then = [e.id for e in transcript[:index]], list(ids)
            same = next(
                (n for n, (a, b) in enumerate(zip(now, then, strict=False)) if a != b), min(len(now), len(then))
            )
            assert line.by in (*now[same : same + 1], *then[same : same + 1]), "the first one that differs"
    assert all(line.reason == "elsewhere" for line in reports.values())


def seen(conversation: llmcrdt.Conversation, entry: llmcrdt.Entry) -> set[EntryId]:
    found: set[EntryId] = set()
    while True:
        found.update(entry.saw_erased)
        if entry.frame is None or entry.frame.base is None:
            return found
        entry = conversation.entry(entry.frame.base[0])


def test_who_writes_on_what_grows_is_told_as_before(open_repo: OpenRepo) -> None:
    here, _ = two(open_repo)
    stream = here.stream("assistant", frame=here.transcript())
    stream.write("x")
    stream.flush()
    here.append("user", "v")
    with pytest.raises(NotSealed):
        here.append("assistant", "a", frame=here.transcript(), hidden={NAME: b"s"})

"""The index of words holds the words of every row that it should hold, whatever happened to the rows."""

from __future__ import annotations

import random
import threading
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import llmcrdt
from llmcrdt.store import entry_index as tables
from llmcrdt.store.store import SqliteStore

ENTRIES = [f"entry{n}" for n in range(4)]
SAID = st.none() | st.sampled_from(["", "linden", "straße linden", "tree"])
STEPS = st.one_of(
    st.tuples(st.just("put"), st.sampled_from(ENTRIES), SAID),
    st.tuples(st.just("gone"), st.sampled_from(ENTRIES), st.none()),
    st.tuples(st.just("search"), st.none(), st.none()),
    st.tuples(st.just("forget"), st.none(), st.none()),
)


def sound(store: SqliteStore) -> None:
    """FTS5 compares its index with the rows, and raises where they differ."""
    with store._connection.writing() as db:
        db.execute("INSERT INTO entry_words (entry_words, rank) VALUES ('integrity-check', 1)")


SILENT: list[tuple[str, str | None, str | None]] = [("put", "entry0", None), ("search", None, None)]


@given(steps=st.lists(STEPS, max_size=25))
@example(steps=[*SILENT, ("forget", None, None), *SILENT, ("forget", None, None), ("put", "entry1", "linden")])
@settings(max_examples=150)
def test_every_search_finds_exactly_the_rows_with_the_word(steps: list[tuple[str, str | None, str | None]]) -> None:
    store = SqliteStore(":memory:", lock=threading.RLock())
    words: dict[str, str | None] = {}
    for kind, entry, said in [*steps, ("search", None, None)]:
        if kind == "forget":
            store.entries.forget("d")
            words.clear()
        elif kind == "search":
            found = {hit.entry for hit in store.entries.search("linden", 10, elsewhere=True)}
            assert found == {name for name, text in words.items() if text and "linden" in text}
            sound(store)
        else:
            gone, put = ([entry], []) if kind == "gone" else ([], [(entry, None, "[]", False, b"", said)])
            store.entries.write("d", "1", 1, gone=gone, put=put, steady=0)
            words.pop(entry or "", None)
            if kind == "put" and entry is not None:
                words[entry] = said
    store.close()


def test_rows_enter_the_index_in_batches(tmp_path: Path) -> None:
    with llmcrdt.open(tmp_path / "a.db") as repo:
        conversation = repo.create()

        def indexed() -> int:
            return int(
                repo._core.store._connection.db.execute("SELECT count(*) FROM entry_words_docsize").fetchone()[0]
            )

        for _ in range(tables.INDEX_AT):
            conversation.append("user", "linden")
        assert indexed() == 0
        conversation.append("user", "linden")
        assert indexed() == tables.INDEX_AT + 1


def test_a_write_takes_a_bounded_number_of_rows_that_wait_along(tmp_path: Path) -> None:
    """Those of a fork, and those that came at once, wait until then, however many they are."""
    store = SqliteStore(tmp_path / "a.db", lock=threading.RLock())
    many = 5 * tables.INDEX_AT

    def row(n: int) -> tables.Row:
        return (f"entry{n}", None, "[]", False, b"", f"linden {n}")

    def indexed() -> int:
        return int(store._connection.one("SELECT count(*) FROM entry_words_docsize"))

    first = [f"entry{n}" for n in range(many)]
    store.entries.write("d", "1", 1, put=[row(n) for n in range(many)], steady=0, shown=first)
    store.entries.copy("d", "fork", first)
    assert indexed() == 0, "whoever brings many wants to show them first"
    store.entries.write("fork", "1", 1, steady=0, shown=first)
    before = indexed()
    assert before <= 2 * tables.INDEX_AT
    for n in range(tables.INDEX_AT + 1):
        store.entries.write("d", "1", 1, put=[row(many + n)], steady=many + n, shown=[f"entry{many + n}"])
        assert indexed() - before <= 2 * tables.INDEX_AT
        before = indexed()
    assert before >= many
    found = store.entries.search("linden", 9_999, elsewhere=False)
    assert len(found) == 2 * many + tables.INDEX_AT + 1
    assert {hit.document for hit in found} == {"d", "fork"}
    sound(store)
    store.close()


@pytest.mark.parametrize("seed", range(8))
def test_no_word_that_was_taken_out_stays_in_the_file(tmp_path: Path, seed: int) -> None:
    """Neither of a row that waited for the index, nor of one that was in it, nor of one that was in it before."""
    rng = random.Random(seed)
    store = SqliteStore(tmp_path / "a.db", lock=threading.RLock())
    said = {n: f"linden w{n}x{rng.randbytes(6).hex()}" for n in range(40)}
    gone: set[int] = set()
    for n, words in said.items():
        store.entries.write("d", "1", 1, put=[(f"e{n}", None, "[]", False, b"", words)], steady=n, shown=[f"e{n}"])
        if rng.random() < 0.2:
            store.entries.search("linden", 5, elsewhere=True)
        if rng.random() < 0.3:
            erased = rng.choice(sorted(said.keys() - gone - set(range(n + 1, 40))) or [n])
            gone.add(erased)
            row = (f"e{erased}", None, "[]", True, b"", None)
            store.entries.write("d", "1", 1, put=[row], steady=n + 1)
        if rng.random() < 0.3:
            with store._connection.writing() as db:
                tables.forget_words(db)
            assert store._connection.empty_wal()
            kept = b"".join(file.read_bytes() for file in tmp_path.iterdir())
            assert not [m for m in gone if said[m].split()[1].encode() in kept]
            assert {hit.entry for hit in store.entries.search("linden", 99, elsewhere=True)} == {
                f"e{m}" for m in range(n + 1) if m not in gone
            }
            sound(store)
    store.close()


def test_the_index_is_emptied_only_where_it_has_lost_a_word(tmp_path: Path) -> None:
    """To build it anew costs the whole file; an erased entry is mostly one that was written just now."""
    with llmcrdt.open(tmp_path / "a.db") as repo:
        conversation = repo.create()
        first = conversation.append("user", "linden")
        assert len(repo.search("linden")) == 1

        def indexed() -> int:
            return int(repo._core.store._connection.one("SELECT count(*) FROM entry_words_docsize"))

        conversation.erase(conversation.append("user", "the wrong window"))
        assert indexed() == 0, "nobody knew yet"
        assert len(repo.search("linden")) == 1 and indexed() == 2
        conversation.erase(conversation.append("user", "the wrong window again"))
        assert indexed() == 2
        conversation.erase(first)
        assert indexed() == 0 and not repo.search("linden")


def test_a_file_from_before_is_searched_whole(tmp_path: Path) -> None:
    """In version 2 of the tables a column said which rows were in the index."""
    with llmcrdt.open(tmp_path / "a.db") as repo:
        conversation = repo.create()
        conversation.append("user", "straße")
        assert repo.search("straße")
        conversation.append("user", "linden")
        with repo._core.store._connection.writing() as db:
            db.execute("ALTER TABLE entries ADD COLUMN indexed INTEGER NOT NULL DEFAULT 0")
            db.execute("UPDATE entries SET indexed = 1 WHERE words = 'straße'")
            db.execute("CREATE INDEX entries_to_index ON entries (number) WHERE NOT indexed AND words IS NOT NULL")
            db.execute("DELETE FROM _sqlite_migrations WHERE name = 'm003_no_indexed'")
    with llmcrdt.open(tmp_path / "a.db") as repo:
        assert len(repo.search("linden")) == len(repo.search("straße")) == 1
        sound(repo._core.store)
        columns = {row[1] for row in repo._core.store._connection.db.execute("PRAGMA table_info(entries)")}
        assert "indexed" not in columns


@given(st.text(st.characters() | st.sampled_from('\0\ud83d"*()-:^ \n'), max_size=12), st.text(max_size=12))
@settings(max_examples=150)
def test_whatever_people_search_for_is_searched_for(query: str, said: str) -> None:
    """NUL, half an emoji, and whatever means something to FTS5 itself."""
    store = SqliteStore(":memory:", lock=threading.RLock())
    row = ("e", None, "", False, b"", f"{said}\0linden \0 tree")
    store.entries.write("d", "1", 1, put=[row], steady=0)
    store.entries.search(query, 5, elsewhere=True)
    for word in ("linden", "tree", "\0linden\0tree", '"linden tree"'):
        assert [found.entry for found in store.entries.search(word, 5, elsewhere=True)] == ["e"]
    sound(store)

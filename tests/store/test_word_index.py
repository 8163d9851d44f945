"""The index of words holds the words of every row that it should hold, whatever happened to the rows."""

from __future__ import annotations

import threading
from pathlib import Path

from hypothesis import given, settings
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


@given(steps=st.lists(STEPS, max_size=25))
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
            gone, put = ([entry], []) if kind == "gone" else ([], [(entry, None, None, "[]", False, b"", said)])
            store.entries.write("d", "1", 1, gone=gone, put=put, moved=())
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
    row = ("e", 0, None, "", False, b"", f"{said}\0linden \0 tree")
    store.entries.write("d", "1", 1, gone=(), put=[row], moved=())
    store.entries.search(query, 5, elsewhere=True)
    for word in ("linden", "tree", "\0linden\0tree", '"linden tree"'):
        assert [found.entry for found in store.entries.search(word, 5, elsewhere=True)] == ["e"]
    sound(store)

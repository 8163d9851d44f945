"""The derived tables of a repo's file: one row per entry of each conversation, the transcripts, and an index of words.

They hold what the documents say, so that a page or a search needs no document. A transcript stands in *runs*: rows with
consecutive numbers that stand one after the other in it. Rows are numbered as they are written, so a conversation is
mostly one run, and one more for each place where something else is shown than was written next: an edit in the middle
cuts a run, however many entries leave the transcript with it.

The words of new rows enter the index a few hundred at a time, or when somebody searches: an index is cheapest to build
in batches, and nobody misses it before. It leaves no word in the file that was taken out of it: it is emptied then, and
made again in the same way.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from sqlite3 import Connection as Database
from typing import NamedTuple

from .connection import Connection
from .update_rows import last_seq

INDEX_AT = 256  # rows that wait for the index before a write takes them along
MANY_AT = 1_024  # the same where many more come: the index is built in larger pieces
# Bytes that FTS5 holds in memory while it takes rows, and how many pieces of one size it merges into one: of its own
# accord it would write more and smaller pieces, and merge them again and again, which is most of its work.
_TUNING = {"hashsize": 8 << 20, "automerge": 8}
RANKED = 5_000  # of more matches than this, only the newest so many are ranked
_ONE_BY_ONE = 16  # entries whose numbers are looked up by themselves; of more, all of their document are read
_INSERT = """
    INSERT INTO entries (document, entry, pin, node, erased, words) VALUES (?, ?, ?, ?, ?, ?)
    ON CONFLICT (document, entry) DO NOTHING
"""
_FIELDS = "INSERT OR REPLACE INTO fields SELECT number, ? FROM entries WHERE document = ? AND entry = ?"
_LENGTHEN = """
    UPDATE shown SET length = length + 1
    WHERE document = ? AND position = (SELECT max(position) FROM shown WHERE document = ?)
    AND position + length = ? AND number + length = ?
"""
POSITION = """
    (SELECT CASE WHEN entries.number < shown.number + length THEN position + entries.number - shown.number END
    FROM shown WHERE shown.number <= entries.number ORDER BY shown.number DESC LIMIT 1)
"""
# Rows enter the index in the order of their numbers, and leave it when they are deleted. So exactly those above the
# greatest number in it wait. FTS5 keeps a row in "docsize" for each that it has.
_END = "(SELECT coalesce(max(id), 0) FROM entry_words_docsize)"
_WAITING, _WAITING_TEXTS = (f"FROM {rows} WHERE number > {_END}" for rows in ("entries", "entry_texts"))
_EXACT = "entry_words exact"
"""The setting that says that the index holds no words but those of its rows; it is missing in older files."""
_TEXT = "(SELECT words FROM entry_texts WHERE entry_texts.number = entries.number)"
_WORD = re.compile(r'"([^"]*)"|(\S+)')

Row = tuple[str, str | None, str, bool, bytes, str | None]
"""entry, pin, node, erased, fields, words."""


class Found(NamedTuple):
    """One match. ``snippet`` marks the words with [ and ]; ``position`` is None where the entry is not shown."""

    document: str
    entry: str
    position: int | None
    fields: bytes
    pin: str | None
    snippet: str


class _Run(NamedTuple):
    """Rows ``number`` to ``number + length - 1``, which stand in a transcript from ``position`` on."""

    number: int
    position: int
    length: int


class SqliteEntryIndex:
    """Rows and words of one open file. ``rules`` names the rules that rows are made by."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._waiting = 0
        self._tuned = False

    def made_of(self, document: str, rules: str) -> int | None:
        """The seq up to which a document's rows are made; None where they are not, or by other rules."""
        with self._connection.reading() as db:
            return _made_of(db, document, rules)

    def page(
        self, document: str, rules: str, last: int, before: str | None
    ) -> list[tuple[str, str | None, bytes]] | None:
        """The ``last`` rows of the transcript as (entry, pin, fields), oldest first, or those before an entry of it;
        None unless they are there, and made of all that is kept of the document."""
        with self._connection.one_view() as db:
            seq = _made_of(db, document, rules)
            if seq is None or seq < last_seq(db, document):
                return None
            end = _length(db, document) if before is None else _position(db, document, before)
            if end is None:
                return None
            begin = max(0, end - max(0, last))
            query = "SELECT entry, pin, fields FROM entry_rows WHERE number >= ? AND number < ? ORDER BY number"
            rows = []
            for number, position, length in _runs(db, document, begin):
                low, high = max(begin - position, 0), min(end - position, length)
                rows += db.execute(query, [number + low, number + high]).fetchall()
        return [(str(entry), pin, bytes(fields)) for entry, pin, fields in rows]

    def erased(self, document: str) -> int:
        """How many entries are erased, as far as the rows know."""
        with self._connection.reading() as db:
            query = "SELECT count(*) FROM entries WHERE document = ? AND erased"
            return int(db.execute(query, [document]).fetchone()[0])

    def copies(self, document: str, entry: str) -> list[tuple[str, bool]]:
        """The other documents that have a row of this entry, and whether it is erased there."""
        query = """
            SELECT document, erased FROM documents JOIN entries ON document = documents.id AND entry = ?
            WHERE kind = 'conversation' AND documents.id != ?
            AND NOT EXISTS (SELECT 1 FROM listing WHERE listing.id = documents.id AND deleted)
            ORDER BY documents.id
        """
        with self._connection.reading() as db:
            return [(str(other), bool(erased)) for other, erased in db.execute(query, [entry, document])]

    def nodes(self, document: str, rules: str, seq: int) -> list[tuple[str, bool, str]] | None:
        """All rows as (entry, whether it is shown, node), those of the transcript in its order; None unless they are
        made of all up to ``seq``, and no more."""
        with self._connection.one_view() as db:
            if _made_of(db, document, rules) != seq:
                return None
            query = "SELECT entry, node FROM entries WHERE number >= ? AND number < ? ORDER BY number"
            found: list[tuple[str, bool, str]] = []
            for run in _runs(db, document):
                rows = db.execute(query, [run.number, run.number + run.length])
                found += [(entry, True, node) for entry, node in rows]
            query = "SELECT count(*) FROM entries WHERE document = ?"
            if db.execute(query, [document]).fetchone()[0] > len(found):
                shown = {entry for entry, _, _ in found}
                query = "SELECT entry, node FROM entries WHERE document = ?"
                others = db.execute(query, [document])
                found += [(entry, False, node) for entry, node in others if entry not in shown]
        return found

    def pins(self, document: str) -> dict[str, str | None]:
        """The pin of each entry that has a row."""
        with self._connection.reading() as db:
            return dict(db.execute("SELECT entry, pin FROM entries WHERE document = ?", [document]).fetchall())

    def write(
        self,
        document: str,
        rules: str,
        seq: int,
        *,
        gone: Iterable[str] = (),
        put: Sequence[Row] = (),
        steady: int,
        shown: Sequence[str] = (),
        many: bool = False,
    ) -> None:
        """Change rows, and the transcript behind its first ``steady`` entries to ``shown``. Afterwards they are made of
        all up to ``seq``. ``many``: many more are about to come."""
        rows = len(put)
        derived = self._connection.derives_words
        with self._connection.writing() as db:
            for entry in gone:
                _drop(db, document, entry)
            last = "SELECT count(*) FROM entries WHERE document = ? AND entry IN (?, ?)"
            if len(put) > 1 and not db.execute(last, [document, put[0][0], put[-1][0]]).fetchone()[0]:
                # All new, as far as can be told at once; a row that is there already is left, and put as others are.
                count = db.executemany(_INSERT, (_stored(document, row, derived) for row in put)).rowcount
                db.executemany(_FIELDS, ([row[4], document, row[0]] for row in put if row[4]))
                put = () if count == len(put) else put
            added = {row[0]: number for row in put if (number := _put(db, document, row, derived=derived))}
            _show(db, document, steady, shown, added)
            db.execute("INSERT OR REPLACE INTO tables VALUES (?, ?, ?)", [document, seq, rules])
            self._waiting += rows
            least = MANY_AT if many else INDEX_AT
            if self._waiting > least and (
                many or rows <= least
            ):  # whoever brings many at once wants to show them first
                self._index(db, max(rows, 2 * least))

    def copy(self, source: str, document: str, entries: Iterable[str]) -> None:
        """Give a document the rows of another one for some entries, in the order given. None of them may be there.
        Their words wait for the next search, or for writes that take them along."""
        query = """
            INSERT INTO entries (document, entry, pin, node, erased, words)
            SELECT ?, entry, pin, node, erased, words FROM entries WHERE document = ? AND entry = ?
        """
        with self._connection.writing() as db:
            db.executemany(query, ([document, source, entry] for entry in entries))
            for table, columns in (("fields", "fields"), ("short_fields", "piece, fields")):
                query = f"""
                    INSERT INTO {table} SELECT copy.number, {columns} FROM entries AS copy
                    JOIN entries AS own ON own.document = ? AND own.entry = copy.entry
                    JOIN {table} ON {table}.number = own.number WHERE copy.document = ? ORDER BY copy.number
                """
                db.execute(query, [source, document])

    def forget(self, document: str) -> None:
        """Drop the rows of a document, and leave no trace of their words in the file."""
        with self._connection.writing() as db:
            forget_rows(db, document)

    def unread(self, rules: str) -> list[str]:
        """Conversations of which something is kept, and that have no rows, or such of other rules; what came first
        first. Deleted ones are left out."""
        query = """
            SELECT id FROM documents LEFT JOIN tables ON document = id
            WHERE kind = 'conversation' AND (place IS NULL OR rules != ?)
            AND NOT EXISTS (SELECT 1 FROM listing WHERE listing.id = documents.id AND deleted)
            AND (EXISTS (SELECT 1 FROM updates WHERE updates.document = id)
                OR EXISTS (SELECT 1 FROM snapshots WHERE snapshots.document = id))
            ORDER BY (SELECT max(place) FROM updates WHERE updates.document = id)
        """
        with self._connection.reading() as db:
            return [str(row[0]) for row in db.execute(query, [rules])]

    def stale(self, rules: str, document: str | None = None) -> list[str]:
        """Conversations whose rows are not made of all that is kept, what came last first; deleted ones are left out.
        ``document``: only look at this one."""
        query = f"""
            SELECT id FROM documents LEFT JOIN tables ON document = id
            WHERE kind = 'conversation'
            AND NOT EXISTS (SELECT 1 FROM listing WHERE listing.id = documents.id AND deleted)
            AND (place IS NULL OR rules != ?
                OR place < coalesce((SELECT max(place) FROM updates WHERE updates.document = id), 0)
                OR place < coalesce((SELECT place FROM snapshots WHERE snapshots.document = id), 0))
            {"AND id = ?" if document is not None else ""}
            ORDER BY (SELECT max(place) FROM updates WHERE updates.document = id) DESC
        """
        with self._connection.reading() as db:
            return [str(row[0]) for row in db.execute(query, [rules] if document is None else [rules, document])]

    def search(self, text: str, limit: int, *, elsewhere: bool, without: Sequence[str] = ()) -> list[Found]:
        """Rows that hold all words of ``text``, the best first; none of the conversations in ``without``. The last word
        may be the beginning of one."""
        match = match_expression(text)
        if not match or limit < 1:
            return []
        with self._connection.reading() as db:
            waiting = db.execute(f"SELECT 1 {_WAITING} LIMIT 1").fetchone()
        if waiting:
            with self._connection.writing() as db:
                self._index(db)
        newest = """
            SELECT count(*), min(rowid) FROM
            (SELECT rowid FROM entry_words WHERE entry_words MATCH ? ORDER BY rowid DESC LIMIT ?)
        """
        query = f"""
            SELECT document, entry, {POSITION} AS place, fields, pin, snippet(entry_words, 0, '[', ']', '…', 16)
            FROM entry_words JOIN entry_rows AS entries ON entries.number = entry_words.rowid
            WHERE entry_words MATCH ? AND entry_words.rowid >= ? {"" if elsewhere else "AND place IS NOT NULL"}
            AND NOT EXISTS (SELECT 1 FROM listing WHERE listing.id = document AND deleted)
            {"AND document NOT IN (SELECT value FROM json_each(?))" if without else ""}
            ORDER BY rank LIMIT ?
        """
        with self._connection.reading() as db:
            count, floor = db.execute(newest, [match, RANKED]).fetchone()
            if not count:
                return []  # and the longer query needn't be prepared
            unread = [json.dumps(list(without))] if without else []
            rows = db.execute(query, [match, floor, *unread, limit]).fetchall()
        return [Found(*row) for row in rows]

    def index_words(self) -> None:
        """Have the index take the words of all rows."""
        with self._connection.writing() as db:
            self._index(db)

    def _index(self, db: Database, most: int = -1) -> None:
        """Take the words of rows that wait into the index; of at most so many, for more would hold up a write."""
        if self._waiting > INDEX_AT and not self._tuned:
            self._tuned = True
            known = dict(db.execute("SELECT k, v FROM entry_words_config"))
            for name, value in _TUNING.items():
                if known.get(name) != value:
                    db.execute("INSERT INTO entry_words (entry_words, rank) VALUES (?, ?)", [name, value])
        query = f"INSERT INTO entry_words (rowid, words) SELECT number, words {_WAITING_TEXTS} ORDER BY number LIMIT ?"
        db.execute(query, [most])
        self._waiting = 0 if most < 0 else max(0, self._waiting - most)


def match_expression(text: str) -> str:
    """An FTS5 query for people's words: all of them must be there; "several words" in quotes stand together."""
    text = text.replace("\0", " ").encode("utf-8", "replace").decode()  # FTS5 takes neither NUL nor half an emoji
    found = [(quoted or word, bool(word)) for quoted, word in _WORD.findall(text)]
    phrases = [(words.replace('"', ""), plain) for words, plain in found if any(c.isalnum() for c in words)]
    if not phrases:
        return ""
    last, plain = phrases[-1]
    begun = plain and not text[-1].isspace() and (len(last) > 1 or not last.isascii())  # too many words begin with an a
    prefix = "*" if begun else ""
    return " ".join(f'"{words}"' for words, _ in phrases) + prefix


def _made_of(db: Database, document: str, rules: str) -> int | None:
    found = db.execute("SELECT place FROM tables WHERE document = ? AND rules = ?", [document, rules]).fetchone()
    return int(found[0]) if found else None


def _runs(db: Database, document: str, after: int = 0) -> list[_Run]:
    """The runs of a transcript that reach past its first ``after`` entries, in their order."""
    first = "coalesce((SELECT max(position) FROM shown WHERE document = ? AND position <= ?), 0)"
    query = f"SELECT number, position, length FROM shown WHERE document = ? AND position >= {first} ORDER BY position"
    found = map(_Run._make, db.execute(query, [document, document, after]))
    return [run for run in found if run.position + run.length > after]


def _length(db: Database, document: str) -> int:
    """Of a transcript."""
    query = "SELECT position + length FROM shown WHERE document = ? ORDER BY position DESC LIMIT 1"
    found = db.execute(query, [document]).fetchone()
    return int(found[0]) if found else 0


def _position(db: Database, document: str, entry: str) -> int | None:
    """Of an entry in its transcript; None where it is not in it."""
    query = f"SELECT {POSITION} FROM entries WHERE document = ? AND entry = ?"
    found = db.execute(query, [document, entry]).fetchone()
    return found[0] if found else None


def _show(db: Database, document: str, steady: int, entries: Sequence[str], added: Mapping[str, int]) -> None:
    """Have a transcript go on with these entries behind its first ``steady`` ones. ``added``: the numbers of rows that
    were just added."""
    number = added.get(entries[0]) if len(entries) == 1 else None
    if number is not None and db.execute(_LENGTHEN, [document, document, steady, number]).rowcount:
        return  # nearly always: it stands right after the last entry, and so does its row
    old = _runs(db, document, max(0, steady - 1))  # the last one that stays may grow
    new = list(_runs_of(_numbers(db, document, entries), steady))
    if old and steady:
        stays = old[0]._replace(length=steady - old[0].position)
        if new and new[0].number == stays.number + stays.length:
            new[0] = stays._replace(length=stays.length + new[0].length)
        else:
            new.insert(0, stays)
    before, now = {run[:2]: run.length for run in old}, {run[:2]: run.length for run in new}
    db.executemany("DELETE FROM shown WHERE number = ?", ([number] for number, _ in before.keys() - now.keys()))
    for (number, position), length in now.items():
        if (number, position) not in before:
            db.execute("INSERT INTO shown VALUES (?, ?, ?, ?)", [number, document, position, length])
        elif length != before[number, position]:
            db.execute("UPDATE shown SET length = ? WHERE number = ?", [length, number])


def _runs_of(numbers: Sequence[int], position: int) -> Iterator[_Run]:
    """The runs of rows that stand one after the other from a position on."""
    begin = 0
    for end in range(1, len(numbers) + 1):
        if end == len(numbers) or numbers[end] != numbers[end - 1] + 1:
            yield _Run(numbers[begin], position + begin, end - begin)
            begin = end


def _numbers(db: Database, document: str, entries: Sequence[str]) -> list[int]:
    """The numbers of the rows of entries."""
    if len(entries) > _ONE_BY_ONE:
        found = dict(db.execute("SELECT entry, number FROM entries WHERE document = ?", [document]).fetchall())
        return [found[entry] for entry in entries]
    query = "SELECT number FROM entries WHERE document = ? AND entry = ?"
    return [db.execute(query, [document, entry]).fetchone()[0] for entry in entries]


def forget_rows(db: Database, document: str) -> None:
    """Drop the rows of a document, and leave no trace of their words."""
    db.execute("DELETE FROM tables WHERE document = ?", [document])
    db.execute("DELETE FROM shown WHERE document = ?", [document])
    query = f"SELECT 1 FROM entries WHERE document = ? AND number <= {_END} LIMIT 1"
    if db.execute(query, [document]).fetchone():
        _note_removed(db)
    if db.execute("DELETE FROM entries WHERE document = ?", [document]).rowcount:
        forget_words(db)


def forget_words(db: Database) -> None:
    """Leave no trace in the index of words that were taken out of it: they stay in its pages. So it is emptied, if
    there were any, and all rows wait for it again."""
    if not db.execute("SELECT 1 FROM settings WHERE name = ?", [_EXACT]).fetchone():
        db.execute("INSERT INTO entry_words (entry_words) VALUES ('delete-all')")
        db.execute("INSERT INTO settings VALUES (?, '')", [_EXACT])


def _note_removed(db: Database) -> None:
    """Note that words were taken out of the index, or are to be."""
    db.execute("DELETE FROM settings WHERE name = ?", [_EXACT])


def _stored(document: str, row: Row, derived: bool) -> list[object]:
    """A row as it stands in the table, without its fields. ``derived``: words are not kept beside the fields in which
    they stand."""
    return [document, *row[:-2], "" if derived and row[-1] is not None else row[-1]]


def _put(db: Database, document: str, row: Row, *, derived: bool) -> int | None:
    """Put one row; its number where it is a new one."""
    stored = _stored(document, row, derived)
    inserted = db.execute(_INSERT, stored)
    if inserted.rowcount:
        if row[4]:
            db.execute("INSERT OR REPLACE INTO fields VALUES (?, ?)", [inserted.lastrowid, row[4]])
        return inserted.lastrowid
    _, entry, pin, node, erased, kept = stored
    fields, words = row[-2:]
    query = f"SELECT number, {_TEXT}, number <= {_END} FROM entries WHERE document = ? AND entry = ?"
    number, old_words, indexed = db.execute(query, [document, entry]).fetchone()
    columns = "pin = ?, node = ?, erased = ?, words = ?"
    if indexed and words != old_words:
        _unindex(db, number, old_words)
    db.execute(f"UPDATE entries SET {columns} WHERE number = ?", [pin, node, erased, kept, number])
    db.execute("INSERT OR REPLACE INTO fields VALUES (?, ?)", [number, fields])
    db.execute("DELETE FROM short_fields WHERE number = ?", [number])
    if indexed and words != old_words:
        db.execute("INSERT INTO entry_words (rowid, words) VALUES (?, ?)", [number, words])
    return None


def _drop(db: Database, document: str, entry: str) -> None:
    query = f"SELECT number, {_TEXT}, number <= {_END} FROM entries WHERE document = ? AND entry = ?"
    for number, words, indexed in db.execute(query, [document, entry]).fetchall():
        if indexed:
            _unindex(db, number, words)
        db.execute("DELETE FROM entries WHERE number = ?", [number])


def _unindex(db: Database, number: int, words: str | None) -> None:
    _note_removed(db)
    db.execute("INSERT INTO entry_words (entry_words, rowid, words) VALUES ('delete', ?, ?)", [number, words])

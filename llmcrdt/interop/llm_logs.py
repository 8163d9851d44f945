"""``llm``: the database in which the ``llm`` tool logs what was said.

A row of ``responses`` is one exchange: the prompt, with the instructions, attachments and tool results that went with
it, and the answer, with its tool calls. Rows of one ``conversation_id`` are a conversation; a row without one is one by
itself. Newer files have ``turns`` in their place: each names the last one of its messages, and each message the one
before it, so that a conversation is a tree. The newest have ``threads``: a turn names its last message by its hash, and
the parts of messages are rows of their own, in which texts may lean on fragments. The raw JSON of requests and
responses, options and counts are kept and not shown.

The file is opened for reading alone, and only plain tables of it are read.
"""

from __future__ import annotations

import base64
import json
import math
import sqlite3
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from typing import Any, ClassVar
from urllib.parse import quote

from ..document.canonical import JSON
from ..document.entry import Part, Reasoning, Role, Text, ToolCall, ToolResult, Unknown
from ..exceptions import FormatError
from .format import Draft, Outline, Reader
from .hiding import type_of
from .json_input import check_json, list_at, object_at, parse
from .native import Native
from .source import File, Notes, Source, Step, Tell, Told, Tree, in_a_row, kept_beside, text_or_none, unread, walk
from .turns import text_of_object

_NAME = "llm"
_NATIVE = Native(_NAME)
_MAGIC = b"SQLite format 3\0"
_MAX_VALUE = 1 << 26
_SHOWN = ("prompt", "system", "response", "reasoning")
_SAID = ("text", "arguments", "output")
_RESPONSES = ("responses", "id", "prompt", "response", "model")
_ROLES: Mapping[str, Role] = {"system": "system", "user": "user", "assistant": "assistant", "tool": "tool"}
_HINT = "Give the file that `llm logs path` prints."

Row = Mapping[str, Any]


class LLMLogs(Source):
    """The database of llm."""

    name = _NAME
    provider: ClassVar[str] = ""
    ends = (".db",)

    def detect(self, file: File) -> int:
        if not file.head.startswith(_MAGIC):
            return 0
        try:
            with closing(_Database(file)) as database:
                return 90 if database.has(*_RESPONSES) or database.has_turns else 10
        except FormatError:
            return 10  # which tells what is wrong with it

    def conversations(self, file: File, provider: str | None, tell: Tell) -> Iterator[Told]:
        with closing(_Database(file)) as database:
            if not (database.has(*_RESPONSES) or database.has_turns):
                raise FormatError("It is the database of another program.", hint=_HINT)
            turns = database.grouped("turns") if database.has_turns else {}
            told = {turn["id"] for turn in database.ids("turns")} if turns else set()
            rows = database.grouped("responses", told) if database.has(*_RESPONSES) else {}
            # A conversation that went on in the newer form stands there whole.
            listed: list[_Conversation | _Chains] = [
                *(_Conversation(database, places, id_) for id_, places in rows.items() if id_ not in turns),
                *(_Chains(database, places, id_) for id_, places in turns.items()),
            ]
            for n, read in enumerate(listed):
                tell(2 * file.size * n // len(listed))
                yield Told(read.id, database.name_of(read.id), 0, read.steps(), read.beside(), read.notes)


class _Database:
    """The tables of a file that may be any. Raises FormatError where it can't be read."""

    def __init__(self, file: File) -> None:
        uri = f"file:{quote(file.path)}?mode=ro"
        self._columns: dict[str, set[str]] = {}
        self._owned: dict[str, dict[str, list[int]]] = {}
        try:
            self._db = sqlite3.connect(uri, uri=True, check_same_thread=False, timeout=5)
        except sqlite3.Error as error:
            raise _unreadable(error) from None
        self._db.row_factory = sqlite3.Row
        self._db.text_factory = lambda value: value.decode("utf-8", "replace")
        self._db.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _MAX_VALUE)
        for order in ("PRAGMA trusted_schema=OFF", "PRAGMA query_only=ON", "PRAGMA cell_size_check=ON"):
            self.rows(order)
        # A view, or a table that code answers for, could do anything in the time that it takes.
        plain = "SELECT name FROM sqlite_master WHERE type = 'table' AND sql NOT LIKE 'CREATE VIRTUAL%'"
        for row in self.rows(plain):
            if isinstance(row["name"], str) and row["name"].isidentifier():
                self._columns[row["name"]] = {str(c["name"]) for c in self.rows(f'PRAGMA table_info("{row["name"]}")')}

    def close(self) -> None:
        self._db.close()

    def has(self, table: str, *columns: str) -> bool:
        return table in self._columns and self._columns[table].issuperset(columns)

    def rows(self, query: str, *values: str | int | None) -> list[Row]:
        """The rows of a query."""
        try:
            return [dict(row) for row in self._db.execute(query, values)]
        except (sqlite3.Error, OverflowError) as error:
            raise _unreadable(error) from None

    @property
    def has_threads(self) -> bool:
        """Whether it is of the newest form."""
        turns = self.has("turns", "id", "thread_id", "tip_message_hash")
        messages = self.has("messages", "hash", "parent_hash", "role")
        return turns and messages and self.has("parts", "message_hash", "position", "type", "text", "payload")

    @property
    def has_turns(self) -> bool:
        """Whether it is of a newer form."""
        if self.has_threads:
            return True
        nodes = self.has("message_nodes", "id", "parent_id", "message_id")
        return nodes and self.has("turns", "id", "output_node_id") and self.has("messages", "id", "role", "parts")

    def ids(self, table: str) -> list[Row]:
        """Place, id and conversation of each row of a table, oldest first."""
        owner = "conversation_id" if self.has(table, "conversation_id") else "NULL AS conversation_id"
        owner = "thread_id AS conversation_id" if self.has(table, "thread_id") else owner
        return self.rows(f"SELECT rowid AS place, id, {owner} FROM {table} ORDER BY rowid")

    def grouped(self, table: str, without: Container[Any] = ()) -> dict[str, list[int]]:
        """The places of the rows of each conversation; a row without one is one by itself."""
        found: dict[str, list[int]] = {}
        for row in self.ids(table):
            if row["id"] not in without:
                found.setdefault(text_or_none(row["conversation_id"]) or str(row["id"]), []).append(row["place"])
        return found

    def name_of(self, conversation: str) -> str | None:
        """The name of a conversation."""
        found = self.by_id("threads", conversation) or self.by_id("conversations", conversation)
        return text_or_none(found.get("name"))

    def end_of(self, turn: Row) -> Any:
        """The id of the last node of a turn."""
        return turn["tip_message_hash"] if self.has_threads else turn["output_node_id"] or turn.get("input_node_id")

    def node(self, id_: Any) -> Row:
        """The node of this id: its ``id``, ``parent_id`` and ``message_id``; an empty one where there is none."""
        if not self.has_threads:
            return self.by_id("message_nodes", id_)
        query = "SELECT hash AS id, parent_hash AS parent_id, hash AS message_id FROM messages WHERE hash = ?"
        found = self.rows(query, id_)
        return found[0] if found else {}

    def message(self, id_: Any) -> Row:
        """The message of this id, with its ``role`` and its ``parts`` as JSON text; an empty one where there is
        none."""
        if not self.has_threads:
            return self.by_id("messages", id_)
        found = self.rows("SELECT * FROM messages WHERE hash = ?", id_)
        if not found:
            return {}
        try:
            pieces = [self._piece(row) for row in self.at("parts", self._parts_of(str(id_)))]
        except FormatError:
            return found[0]
        return {**found[0], "parts": json.dumps(pieces, ensure_ascii=False)}

    def _parts_of(self, message: str) -> Sequence[int]:
        if "parts" not in self._owned:
            owned: dict[str, list[int]] = {}
            self._owned["parts"] = owned
            for row in self.rows("SELECT rowid AS place, message_hash AS owner FROM parts ORDER BY position, rowid"):
                owned.setdefault(str(row["owner"]), []).append(row["place"])
        return self._owned["parts"].get(message, ())

    def _piece(self, row: Row) -> Mapping[str, JSON]:
        """A part of a message as the form before had it. Raises FormatError."""
        text, payload = row.get("text"), text_or_none(row.get("payload"))
        piece = dict(object_at(parse(payload), "payload")) if payload else {}
        if isinstance(text, str):
            piece["text"] = text
        elif isinstance(leans := piece.pop("text_ref", None), list):
            piece["text"] = "".join(map(self._leaning, leans))
        if isinstance(attachment := piece.pop("attachment", None), dict):
            piece["attachment_id"] = attachment.get("id")
        return {**piece, "type": str(row.get("type"))}

    def _leaning(self, piece: JSON) -> str:
        """A piece of a text: literal, or a fragment's."""
        if not isinstance(piece, dict):
            return ""
        found = piece.get("literal")
        if isinstance(id_ := piece.get("fragment"), int):
            found = self.by_id("fragments", id_).get("content")
        return found if isinstance(found, str) else ""

    def at(self, table: str, places: Iterable[int]) -> Iterator[Row]:
        """The rows at these places."""
        for place in places:
            yield from self.rows(f"SELECT * FROM {table} WHERE rowid = ?", place)

    def of(self, table: str, response: str) -> Iterator[Row]:
        """The rows of a table that belong to a response, in their order."""
        if not self.has(table, "response_id"):
            return iter(())
        if table not in self._owned:
            order = '"order", rowid' if self.has(table, "order") else "rowid"
            owned: dict[str, list[int]] = {}
            self._owned[table] = owned
            for row in self.rows(f"SELECT rowid AS place, response_id AS owner FROM {table} ORDER BY {order}"):
                owned.setdefault(str(row["owner"]), []).append(row["place"])
        return self.at(table, self._owned[table].get(response, ()))

    def by_id(self, table: str, id_: Any) -> Row:
        """The row of this id; an empty one where there is none."""
        found = self.rows(f"SELECT * FROM {table} WHERE id = ?", id_) if self.has(table, "id") else []
        return found[0] if found else {}


def _unreadable(error: Exception) -> FormatError:
    return FormatError(f"The database can't be read: {error}.", hint=_HINT)


class _Conversation:
    """One conversation."""

    def __init__(self, database: _Database, places: Sequence[int], id_: str) -> None:
        self.id, self.notes = id_, Notes()
        self._database, self._places = database, places

    def steps(self) -> Iterator[Step]:
        return in_a_row(self._drafts())

    def _drafts(self) -> Iterator[Draft]:
        system: str | None = None
        calls: dict[str, int] = {}
        count = 0
        for row in self._database.at("responses", self._places):
            id_ = str(row["id"])
            for draft in self._exchange(row, id_, system, calls):
                if draft.role == "assistant":
                    calls |= dict.fromkeys((part.id for part in draft.parts if isinstance(part, ToolCall)), count)
                count += 1
                yield draft
            system = self._said(row, id_, "system", "system_fragments") or system

    def _exchange(self, row: Row, id_: str, system: str | None, calls: Mapping[str, int]) -> Iterator[Draft]:
        instructions = self._said(row, id_, "system", "system_fragments")
        if instructions and instructions != system:
            yield Draft("system", (Text(instructions),))
        for result in self._database.of("tool_results", id_):
            yield self._result(result, id_, calls)
        parts: list[Part] = []
        prompt = self._said(row, id_, "prompt", "prompt_fragments")
        if prompt:
            parts.append(Text(prompt))
        parts += [self._attachment(used) for used in self._database.of("prompt_attachments", id_)]
        if parts:
            yield Draft("user", tuple(parts))
        thought, answer = text_or_none(row.get("reasoning")), text_or_none(row.get("response"))
        made: list[Part] = [Reasoning(thought)] if thought else []
        made += [Text(answer)] if answer else []
        for n, call in enumerate(self._database.of("tool_calls", id_)):
            name, given = text_or_none(call.get("name")), call.get("arguments")
            if name:
                made.append(ToolCall(_call_id(call, id_, n), name, given if isinstance(given, str) else "{}"))
        if made:
            yield Draft("assistant", tuple(made))

    def _said(self, row: Row, id_: str, column: str, fragments: str) -> str | None:
        """The text of a column, after the fragments that went with it."""
        used = self._database.of(fragments, id_)
        texts = [self._database.by_id("fragments", one.get("fragment_id")).get("content") for one in used]
        texts.append(row.get(column))
        return "\n".join(text for text in texts if isinstance(text, str) and text) or None

    def _result(self, row: Row, id_: str, calls: Mapping[str, int]) -> Draft:
        output, error = row.get("output"), text_or_none(row.get("exception"))
        text = output if isinstance(output, str) else error or ""
        call = text_or_none(row.get("tool_call_id"))
        if call is None or call not in calls:
            self.notes.kept["results without a call, told as the user's"] += 1
            return Draft("user", (Text(text),))
        return Draft("tool", (ToolResult(text, error is not None),), (calls[call], call))

    def _attachment(self, used: Row) -> Part:
        return _attachment(self._database.by_id("attachments", used.get("attachment_id")), self.notes)

    def beside(self) -> Iterator[Draft]:
        return kept_beside(_NAME, self._kept())

    def _kept(self) -> Iterator[tuple[str, JSON]]:
        for row in self._database.at("responses", self._places):
            odd = {key for key in _SHOWN if not isinstance(row.get(key), str)}
            rest: dict[str, JSON] = {
                k: _json(v) for k, v in row.items() if v is not None and (k not in _SHOWN or k in odd)
            }
            for table in ("tool_calls", "tool_results", "tool_responses"):
                others = self._database.of(table, str(row["id"]))
                rest |= {
                    table: [{k: _json(v) for k, v in r.items() if k not in ("arguments", "output")} for r in others]
                }
            yield "of messages", rest


class _Calls(Reader):
    """Knows the calls of the path."""

    def __init__(self) -> None:
        super().__init__(Outline(None, ""))
        self.calls: dict[str, int] = {}


class _Chains:
    """One conversation of the newer form. ``places``: of its turns."""

    def __init__(self, database: _Database, places: Sequence[int], id_: str) -> None:
        self.id, self.notes = id_, Notes()
        self._database, self._places = database, places
        self._messages: list[Any] = []

    def steps(self) -> Iterator[Step]:
        tree, shown = self._chained()
        return walk(tree, shown, _Calls(), self._read)

    def _chained(self) -> tuple[Tree, int | None]:
        """The tree of the messages, and the last one of the last turn."""
        numbers: dict[Any, int] = {}
        above: list[Any] = []
        last: Any = None
        for turn in self._database.at("turns", self._places):
            last = self._database.end_of(turn)
            path: list[Row] = []
            on_path: set[Any] = set()
            at = last
            while at is not None and at not in numbers and at not in on_path:
                node = self._database.node(at)
                if not node:
                    break
                on_path.add(at)
                path.append(node)
                at = node["parent_id"]
            for node in reversed(path):
                numbers[node["id"]] = len(self._messages)
                self._messages.append(node["message_id"])
                above.append(node["parent_id"])
        return Tree(numbers.get(id_) for id_ in above), numbers.get(last)

    def _read(self, reader: Reader, number: int) -> Sequence[Draft]:
        assert isinstance(reader, _Calls)
        row = self._database.message(self._messages[number])
        role = _ROLES.get(str(row.get("role")), "user")
        try:
            pieces = _pieces(row)
        except FormatError as error:
            self.notes.refuse(f"message {self._messages[number]}", error)
            return [unread(_NAME, "assistant" if role == "tool" else role, [_json(row.get("parts"))])]
        drafts: list[Draft] = []
        said: list[Part] = []
        for n, piece in enumerate(pieces):
            call = text_or_none(piece.get("tool_call_id"))
            if type_of(piece) == "tool_result" and call in reader.calls:
                output, failure = piece.get("output"), text_or_none(piece.get("exception"))
                text = output if isinstance(output, str) else failure or ""
                parts = (ToolResult(text, failure is not None),)
                drafts.append(Draft("tool", parts, (reader.calls[str(call)], str(call))))
            else:
                said.append(self._part(piece, f"call_{self._messages[number]}_{n}"))
        if said or not drafts:
            spoken: Role = "user" if role == "tool" else role
            made = [part.id for part in said if isinstance(part, ToolCall)] if spoken == "assistant" else []
            reader.calls |= dict.fromkeys(made, reader.count + len(drafts))
            drafts.append(Draft(spoken, tuple(said or [Text("")])))
        return drafts

    def _part(self, piece: Mapping[str, JSON], call: str) -> Part:
        kind, text = type_of(piece), piece.get("text")
        if kind in ("text", "reasoning") and isinstance(text, str):
            return Text(text) if kind == "text" else Reasoning(text)
        if kind == "tool_call" and text_or_none(piece.get("name")):
            given = piece.get("arguments")
            arguments = text_of_object(given) if isinstance(given, dict) else given if isinstance(given, str) else "{}"
            return ToolCall(text_or_none(piece.get("tool_call_id")) or call, str(piece["name"]), arguments)
        if kind == "attachment":
            return _attachment(self._database.by_id("attachments", piece.get("attachment_id")), self.notes)
        if kind == "tool_result" and isinstance(piece.get("output"), str):
            self.notes.kept["results without a call, told as the user's"] += 1
            return Text(str(piece["output"]))
        return _NATIVE.block({"type": kind or "unknown"})

    def beside(self) -> Iterator[Draft]:
        return kept_beside(_NAME, self._kept())

    def _kept(self) -> Iterator[tuple[str, JSON]]:
        for turn in self._database.at("turns", self._places):
            yield "of messages", {key: _json(value) for key, value in turn.items()}
        for id_ in self._messages:
            row = self._database.message(id_)
            rest = {key: _json(value) for key, value in row.items() if key != "parts"}
            with suppress(FormatError):
                rest["parts"] = [{k: v for k, v in piece.items() if k not in _SAID} for piece in _pieces(row)]
            yield "of messages", rest


def _pieces(row: Row) -> list[Mapping[str, JSON]]:
    """The parts of a message. Raises FormatError."""
    if not isinstance(row.get("parts"), str):
        raise FormatError("Its parts are missing.", hint="It is kept.")
    value = parse(row["parts"])
    check_json(value)
    return [object_at(piece, f"[{n}]") for n, piece in enumerate(list_at(value, "parts"))]


def _attachment(row: Row, notes: Notes) -> Part:
    kind, content, url = text_or_none(row.get("type")) or "", row.get("content"), text_or_none(row.get("url"))
    if isinstance(content, bytes):
        url = f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"
    if kind.startswith("image/") and url:
        return Unknown({"type": "image_url", "image_url": {"url": url}})
    notes.kept["attachments that other formats don't take"] += 1
    named = {"path": row["path"]} if isinstance(row.get("path"), str) else {}
    return _NATIVE.block({"type": kind or "attachment", **named, **({"url": url} if url else {})})


def _call_id(row: Row, response: str, number: int) -> str:
    return text_or_none(row.get("tool_call_id")) or f"call_{response}_{number}"


def _json(value: Any) -> JSON:
    """A value of a column."""
    if isinstance(value, bytes):
        return base64.b64encode(value).decode("ascii")
    return value if not isinstance(value, float) or math.isfinite(value) else str(value)

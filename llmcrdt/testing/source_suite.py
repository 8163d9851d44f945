"""The contract of interop/source.py as tests: subclass ``SourceSuite`` in a test module, and say which source it is and
where its files are."""

from __future__ import annotations

import random
from abc import abstractmethod
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from ..document.canonical import exact_json, parse_json
from ..document.entry import ToolCall, part_to_json
from ..exceptions import FormatError
from ..interop.format import Draft
from ..interop.registry import detect_source, source_of
from ..interop.source import File, NotTold, Source, Step, Told

Whole = tuple[Told, list[Step], list[Draft]]


class SourceSuite:
    """Every source holds to this. Opaque values in the files hold the word OPAQUE."""

    name: str

    @abstractmethod
    def files(self, folder: Path) -> Sequence[Path]:
        """Files of the source, at least fifteen; ``folder``: an empty one, for those that have to be made."""

    @property
    def source(self) -> Source:
        return source_of(self.name)

    def read(self, path: Path) -> tuple[list[Whole], list[NotTold]]:
        """A file, read whole."""
        told: list[Whole] = []
        refused: list[NotTold] = []
        for one in self.source.conversations(File(str(path)), None, lambda done: None):
            if isinstance(one, NotTold):
                refused.append(one)
            else:
                told.append((one, list(one.steps), list(one.beside)))
        return told, refused

    def test_its_files_are_found_out(self, tmp_path: Path) -> None:
        files = self.files(tmp_path)
        assert len(files) >= 15
        for path in files:
            assert detect_source(File(str(path))) is self.source, path
            assert path.suffix in self.source.ends

    def test_steps_stand_where_they_may(self, tmp_path: Path) -> None:
        """The step that one follows came before it and forks, unless it is the one before; results answer a call of the
        same path; at most one step is the end of the shown path."""
        for path in self.files(tmp_path):
            for _, steps, _ in self.read(path)[0]:
                for n, step in enumerate(steps):
                    above, at = set[int](), step.after
                    while at is not None:
                        above.add(at)
                        at = steps[at].after
                    assert all(i < n for i in above), path
                    assert step.after in (None, n - 1) or steps[step.after].forks, path
                    if step.draft.answers is not None:
                        index, call = step.draft.answers
                        parts = steps[index].draft.parts
                        assert index in above and steps[index].draft.role == "assistant", path
                        ids = [part.id for part in parts if isinstance(part, ToolCall)]
                        assert call in ids or exact_json(call) in exact_json(list(map(part_to_json, parts))), path
                    assert step.draft.parts, path
                assert sum(step.shown for step in steps) <= 1, path

    def test_it_says_the_same_each_time(self, tmp_path: Path) -> None:
        for path in self.files(tmp_path):
            one, other = self.read(path), self.read(path)
            assert [(t.id, t.title, s, b, t.notes) for t, s, b in one[0]] == [
                (t.id, t.title, s, b, t.notes) for t, s, b in other[0]
            ]
            assert [r.where for r in one[1]] == [r.where for r in other[1]]

    def test_opaque_values_are_hidden_fields_alone(self, tmp_path: Path) -> None:
        for path in self.files(tmp_path):
            for _, steps, beside in self.read(path)[0]:
                for draft in (*(step.draft for step in steps), *beside):
                    assert "OPAQUE" not in exact_json([part_to_json(part) for part in draft.parts]), path
                    for field in draft.hidden.values():
                        assert field.binding.get("provider"), path
                        assert isinstance(parse_json(field.data.decode()), list), path

    def test_changed_bytes_are_refused_or_read_and_nothing_else(self, tmp_path: Path) -> None:
        rng = random.Random(self.name)
        files = self.files(tmp_path)
        for n in range(150):
            path = rng.choice(files)
            data = bytearray(path.read_bytes())
            for _ in range(rng.choice((1, 1, 3, 20))):
                at = rng.randrange(len(data))
                match rng.randrange(4):
                    case 0:
                        data[at] = rng.randrange(256)
                    case 1:
                        del data[at : at + rng.randrange(1, 40)]
                    case 2:
                        data[at:at] = rng.choice((b"[", b"{", b'"', b"\n", b"null", b"\\ud800", b"1e999", b"[" * 500))
                    case _:
                        data[at:at] = data[rng.randrange(len(data)) :][: rng.randrange(1, 60)]
                data = data or bytearray(b" ")
            changed = tmp_path / f"changed-{n}{path.suffix}"
            changed.write_bytes(data)
            with suppress(FormatError):
                detect_source(File(str(changed)))
                self.read(changed)
            changed.unlink()

"""An operator's commands on a relay's folder, and a power failure: tokens, keys, backup and restore."""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
sys.path.append(str(Path(__file__).parents[2]))

from power_recording import MARK, Event, Recorder, mark

from llmcrdt.files import make_folder
from llmcrdt.sync.messages import Record
from sync_server.auth.public_keys import PublicKeys
from sync_server.auth.tokens import Tokens
from sync_server.log import operator
from sync_server.log.base import Origin
from sync_server.log.file import DATABASE
from sync_server.log.sqlite import SqliteStorage

TOKENS, LOG = "etc/relay", "var/relay"
_SESSION = b"s" * 16


@dataclass
class Promised:
    """All that commands had done when they ended. The next one may have done some of its work."""

    made: dict[str, str] = field(default_factory=dict)
    """Tokens, and whose they are."""
    revoked: set[str] = field(default_factory=set)
    keys: dict[str, bool] = field(default_factory=dict)
    """Whether a public key is trusted."""
    backups: dict[str, int] = field(default_factory=dict)
    """Files, and how many records each has."""
    records: set[int] = field(default_factory=lambda: {0})
    """How many records the log may have."""
    deleted: set[bytes] = field(default_factory=set)
    unsure: set[str] = field(default_factory=set)

    def take(self, event: Event) -> None:
        if event.kind != MARK:
            return
        match json.loads(event.data):
            case ["goes", id_]:
                self.unsure.add(id_)
            case ["made", id_, subject]:
                self.made[id_] = subject
            case ["revoked", id_]:
                self.revoked.add(id_)
            case ["trusts", kid, trusted]:
                self.keys[kid] = trusted
                self.unsure.discard(kid)
            case ["backup", name, count]:
                self.backups[name] = count
            case ["may have", *counts]:
                self.records = {int(count) for count in counts}
            case ["deleted", document]:
                self.deleted.add(bytes.fromhex(document))


def record(recorder: Recorder, seed: int, steps: int) -> Sequence[Event]:
    done = recorder.run(__file__, str(recorder.root), str(recorder.log), str(seed), str(steps))
    assert done.returncode == 0, done.stderr
    return recorder.events()


def check(folder: Path, promised: Promised) -> None:
    """All that a command promised holds, and each works on. Raises AssertionError, or whatever a command raises."""
    tokens = Tokens(folder / TOKENS)
    _check_tokens(tokens, promised)
    tokens.make("afterwards", "read", ["*"])
    _check_tokens(Tokens(folder / TOKENS), promised)
    assert "afterwards" in {grant.subject for grant, _ in Tokens(folder / TOKENS).list()}
    for kid, trusted in promised.keys.items():
        if kid not in promised.unsure:
            assert (kid in PublicKeys(folder / TOKENS).ids()) == trusted, "who is trusted is known"
    for name, count in promised.backups.items():
        assert not operator.verify(folder / name) and _count(folder / name, _LIVING) == count, (
            "a backup is there, whole"
        )
    (folder / LOG).mkdir(parents=True, exist_ok=True)
    _check_log(folder, promised)
    for name in tuple(promised.backups)[-1:]:
        operator.restore(folder / name, folder / LOG / DATABASE)
        assert _count(folder / LOG / DATABASE, _LIVING) == promised.backups[name], "and can be restored"
    with closing(SqliteStorage(folder / LOG / DATABASE)) as storage:
        assert all(storage.tombstones.is_deleted(document) for document in promised.deleted), "nothing comes back"


def _check_tokens(tokens: Tokens, promised: Promised) -> None:
    listed = {grant.id: (grant.subject, state) for grant, state in tokens.list()}
    for id_, subject in promised.made.items():
        state = "revoked" if id_ in promised.revoked else "good"
        assert id_ in listed and listed[id_][0] == subject, "a token that was made is listed"
        assert listed[id_][1] == state or id_ in promised.unsure, "one that was revoked stays so"


def _check_log(folder: Path, promised: Promised) -> None:
    path = folder / LOG / DATABASE
    assert path.exists() or 0 in promised.records, "the log is there"
    with closing(SqliteStorage(path)) as storage:
        while storage.sweeper.sweep(512):
            pass
    assert not operator.verify(path) and _count(path, _LIVING) in promised.records, "the log is the old one or the new"


_LIVING = b"a" * 16


def _count(path: Path, document: bytes) -> int:
    with operator.inspect(path) as rows:
        return next((row.records for row in rows if row.document == document), 0)


# ---------------------------------------------------------------- the process


def _work(root: Path, log: Path, seed: int, steps: int) -> None:
    rng = random.Random(seed)

    def tell(*words: object) -> None:
        mark(log, json.dumps(words))

    path = root / LOG / DATABASE
    make_folder(path.parent)
    backups: dict[str, int] = {}
    made: list[str] = []
    count = 0
    for n in range(steps):
        tokens = Tokens(root / TOKENS)
        match rng.randrange(7):
            case 0 | 1:
                subject = f"person {n} " + "x" * rng.choice((1, 100, 900))
                tokens.make(subject, "append", ["*"])
                made.append(next(grant.id for grant, _ in tokens.list() if grant.subject == subject))
                tell("made", made[-1], subject)
            case 2 if made:
                id_ = made.pop(rng.randrange(len(made)))
                tell("goes", id_)
                tokens.revoke(id_)
                tell("revoked", id_)
            case 3:
                keys, kid = PublicKeys(root / TOKENS), f"key-{rng.randrange(3)}"
                tell("goes", kid)
                if kid in keys.ids():
                    keys.remove(kid)
                else:
                    keys.add(kid, _PEM)
                tell("trusts", kid, kid in keys.ids())
            case 4:
                more = rng.randint(1, 20)
                tell("may have", count, count + more)
                with closing(SqliteStorage(path)) as storage:
                    records = [
                        Record(_SESSION, count + at, rng.randbytes(rng.choice((10, 5000)))) for at in range(more)
                    ]
                    data = [record.data for record in records]
                    storage.records.append(_LIVING, _SESSION, count + 1, data, Origin("opaque", b"l" * 16))
                    assert storage.records.commit() == {}
                    count += more
                    tell("may have", count)
                    doomed = rng.randbytes(16)
                    storage.records.append(doomed, _SESSION, 1, [b"to go"], Origin("opaque", b"m" * 16))
                    storage.tombstones.delete(doomed)
                    assert storage.records.commit() == {}
                    tell("deleted", doomed.hex())
            case 5 if count:
                name = f"backup-{n}.db"
                operator.backup(path, root / name)
                backups[name] = count
                tell("backup", name, count)
            case 6 if backups:
                name = rng.choice([*backups])
                tell("may have", count, backups[name])
                operator.restore(root / name, path)
                count = backups[name]
                tell("may have", count)


_PEM = b"""-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=
-----END PUBLIC KEY-----
"""


if __name__ == "__main__":
    _work(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))

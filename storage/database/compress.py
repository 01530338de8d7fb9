"""Which file of an object the index speaks of, and who may make or remove another. docs/adr/0015.

A row of ``form_change`` is a claim and a note: while ``making``, whoever holds
its token may make a file; ``settling`` means that every file of the object but
the one in the index goes when the time comes; ``purged``, that all go. It is
written before the first byte of a file, so a crash leaves nothing unknown.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Final

from pacs.core.forms import NATIVE, Change, Scope
from pacs.core.records import Held
from storage.database.connection import INDEX_LOCK, Database
from storage.database.job_rows import DatabaseClock, text_utc
from storage.database.retrieve import HELD, as_held

_NATIVE: Final = ", ".join(f"'{one}'" for one in NATIVE)
_NOT_YET: Final = (
    f' AND i.form_digest IS NULL AND i.transfer_syntax_uid IN ({_NATIVE}) AND i."rows" IS NOT NULL'
)
_NOT_REFUSED: Final = (
    " AND NOT EXISTS (SELECT 1 FROM form_refusal r "
    "WHERE r.object_id = i.object_id AND r.target = ?)"
)
_COLUMNS: Final = (
    ("i.registrant", "registrant"),
    ("s.study_instance_uid", "study_instance_uid"),
    ("e.series_instance_uid", "series_instance_uid"),
)


class FormTable:
    """``pacs.core.form_ports.FormIndex`` on SQLite or PostgreSQL."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._clock = DatabaseClock(database)

    def _after(self, seconds: float) -> str:
        return text_utc(self._clock.now() + timedelta(seconds=seconds))

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Begin a transaction beside those of arrivals, and never during a reindex."""
        with self._database.transaction():
            if self._database.dialect == "postgresql":
                self._database.write("SELECT pg_advisory_xact_lock_shared(?)", (INDEX_LOCK,))
            yield

    # --- what is to be done -----------------------------------------------------------

    def count(self, scope: Scope, target: str | None, *, again: bool) -> int:
        """How many instances ``page`` would give in all."""
        where, params = _where(scope, target, again=again)
        (row,) = self._database.execute(
            "SELECT COUNT(*) FROM instance i JOIN series e ON e.id = i.series_row "
            f"JOIN study s ON s.id = e.study_row WHERE {where}",
            params,
        )
        return int(row[0])

    def page(
        self, scope: Scope, target: str | None, *, again: bool, after: int, limit: int
    ) -> Sequence[tuple[int, Held]]:
        """Native instances not yet held as ``target``, or with ``None`` those held as a form."""
        where, params = _where(scope, target, again=again)
        rows = self._database.execute(
            f"{HELD.replace('SELECT ', 'SELECT i.id, ', 1)} WHERE {where} "
            "AND i.id > ? ORDER BY i.id LIMIT ?",
            [*params, after, limit],
        )
        return [(int(row[0]), as_held(row[1:])) for row in rows]

    # --- claims and swaps -------------------------------------------------------------

    def claim(self, held: Sequence[Held], token: str, lease_s: float) -> Sequence[Held]:
        """Claim those that still lie where they did; gives which."""
        now, until = self._after(0), self._after(lease_s)
        with self._writing():
            return [one for one in held if self._claimed(one, token, now, until)]

    def _claimed(self, held: Held, token: str, now: str, until: str) -> bool:
        place = held.place
        return self._changed(
            "INSERT INTO form_change (object_id, state, token, keep, due_utc) "
            "SELECT object_id, 'making', ?, place, ? FROM instance "
            "WHERE object_id = ? AND place = ? AND deleted_by IS NULL "
            "ON CONFLICT (object_id) DO UPDATE SET state = excluded.state, "
            "token = excluded.token, keep = excluded.keep, due_utc = excluded.due_utc "
            "WHERE form_change.state = 'settling' OR form_change.due_utc <= ?",
            (token, until, place.object_id, place.name, now),
        )

    def _changed(self, sql: str, params: Sequence[object]) -> bool:
        return int(self._database.write(sql, params).rowcount) > 0

    def swap(self, held: Held, new: Held, token: str, keep_s: float) -> bool:
        """Let the index speak of another file of the same object; ``False`` where it may not."""
        due = self._after(keep_s)
        with self._writing():
            mine = self._database.write(
                "SELECT 1 FROM form_change WHERE object_id = ? AND token = ? AND state = 'making'"
                + self._locking(),
                (held.place.object_id, token),
            ).fetchone()
            if mine is None or not self._speak_of(held, new):
                return False
            self._database.write(
                "UPDATE form_change SET state = 'settling', token = '', keep = ?, due_utc = ? "
                "WHERE object_id = ?",
                (new.place.name, due, held.place.object_id),
            )
        return True

    def _locking(self) -> str:
        return "" if self._database.dialect == "sqlite" else " FOR UPDATE"

    def _speak_of(self, held: Held, new: Held) -> bool:
        form = new.form
        return self._changed(
            "UPDATE instance SET place = ?, size_bytes = ?, data_set_offset = ?, "
            "transfer_syntax_uid = ?, form_digest = ?, original_syntax_uid = ?, "
            "original_bytes = ? WHERE object_id = ? AND place = ?",
            (
                new.place.name,
                new.place.size_bytes,
                new.place.data_set_offset,
                new.transfer_syntax_uid,
                None if form is None else form.digest,
                None if form is None else form.original_syntax_uid,
                None if form is None else form.original_bytes,
                held.place.object_id,
                held.place.name,
            ),
        )

    def refuse(self, held: Held, target: str, reason: str, token: str) -> None:
        """Remember that it is not held as ``target``, and give the claim back."""
        with self._writing():
            self._database.write(
                "INSERT INTO form_refusal (object_id, target, reason) VALUES (?, ?, ?) "
                "ON CONFLICT (object_id, target) DO UPDATE SET reason = excluded.reason",
                (held.place.object_id, target, reason),
            )
            self._give_back(held, token)

    def release(self, held: Held, token: str) -> None:
        """Let ``due`` give it at once: files may have been left, by one whose claim ran out, too."""
        with self._writing():
            self._give_back(held, token)
            self._database.write(
                "INSERT INTO form_change (object_id, state, token, keep, due_utc) "
                "SELECT object_id, 'settling', '', place, ? FROM instance WHERE object_id = ? "
                "ON CONFLICT (object_id) DO NOTHING",
                (self._after(0), held.place.object_id),
            )

    def _give_back(self, held: Held, token: str) -> None:
        self._database.write(
            "UPDATE form_change SET state = 'settling', token = '', due_utc = ? "
            "WHERE object_id = ? AND token = ? AND state = 'making'",
            (self._after(0), held.place.object_id, token),
        )

    # --- what is to go ------------------------------------------------------------------

    def due(self, token: str, lease_s: float, limit: int) -> Sequence[Change]:
        """Claim changes whose time has come."""
        now, until = self._after(0), self._after(lease_s)
        found = self._database.execute(
            "SELECT object_id FROM form_change WHERE due_utc <= ? ORDER BY due_utc LIMIT ?",
            (now, limit),
        )
        ids = [row[0] for row in found]
        if not ids:
            return []
        with self._writing():
            marks = ", ".join("?" * len(ids))
            rows = self._database.write(
                "UPDATE form_change SET token = ?, due_utc = ?, "
                "state = CASE state WHEN 'purged' THEN 'purged' ELSE 'tidying' END "
                f"WHERE due_utc <= ? AND object_id IN ({marks}) "
                "RETURNING object_id, keep, state",
                (token, until, now, *ids),
            ).fetchall()
        return [
            Change(object_id=row[0], keep=row[1], token=token, purged=row[2] == "purged")
            for row in rows
        ]

    def held(self, object_id: str) -> Held | None:
        """The row of an object, deleted or not."""
        rows = self._database.execute(f"{HELD} WHERE i.object_id = ?", (object_id,))
        return next((as_held(row) for row in rows), None)

    @contextmanager
    def settling(self, change: Change, held: Held | None) -> Iterator[bool]:
        """Begin a transaction in which surplus files are removed; see the port."""
        with self._writing():
            row = self._database.write(
                "SELECT place FROM instance WHERE object_id = ?" + self._locking(),
                (change.object_id,),
            ).fetchone()
            place = None if row is None else row[0]
            same = place == (None if held is None else held.place.name)
            over = same and self._changed(
                "DELETE FROM form_change WHERE object_id = ? AND token = ?",
                (change.object_id, change.token),
            )
            yield over

    def mend(self, change: Change, held: Held, good: Held) -> bool:
        """Let the index speak of a good file instead of a damaged one, and keep both."""
        with self._writing():
            mine = self._database.write(
                "SELECT 1 FROM form_change WHERE object_id = ? AND token = ?" + self._locking(),
                (change.object_id, change.token),
            ).fetchone()
            if mine is None or not self._speak_of(held, good):
                return False
            self._database.write("DELETE FROM form_change WHERE object_id = ?", (change.object_id,))
        return True

    def postpone(self, change: Change, after_s: float) -> None:
        """Give a change back, to be looked at later."""
        with self._writing():
            self._database.write(
                "UPDATE form_change SET token = '', due_utc = ?, "
                "state = CASE state WHEN 'purged' THEN 'purged' ELSE 'settling' END "
                "WHERE object_id = ? AND token = ?",
                (self._after(after_s), change.object_id, change.token),
            )


def _where(scope: Scope, target: str | None, *, again: bool) -> tuple[str, list[object]]:
    """Say in SQL what is to be held otherwise."""
    where, params = "i.deleted_by IS NULL", list[object]()
    for column, name in _COLUMNS:
        if (value := getattr(scope, name)) is not None:
            where += f" AND {column} = ?"
            params.append(value)
    if target is None:
        return f"{where} AND i.form_digest IS NOT NULL", params
    where += _NOT_YET
    if not again:
        where += _NOT_REFUSED
        params.append(target)
    return where, params

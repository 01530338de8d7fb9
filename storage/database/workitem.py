"""Rows of workitems: added, read, changed under a lock, found by columns beside the Data Set.

Whoever writes does so in the transaction of ``Records``. Which change is
allowed and who is told of it is decided elsewhere.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from pacs.core.errors import RecordsFailed
from pacs.core.identifiers import AETitle, Registrant
from pacs.core.workitem_ports import NARROWING, Columns, Narrow, WorkitemFact, WorkitemRow
from pacs.core.workitems import FINAL_STATES, WorkitemState, WorkitemUID
from storage.database.connection import Database
from storage.database.job_rows import DatabaseClock, parse_utc, text_utc

ARRIVALS_LOCK = 0x50414355
"""The PostgreSQL advisory lock new workitems share, and who begins to watch everything takes."""

_ROW = "id, uid, registrant, state, transaction_uid, performer, cancel_asked, data_set, ordered_by"
_FACT = (
    "uid, registrant, state, label, worklist, code, performer, cancel_asked, created_utc, "
    "changed_utc, ended_utc, length(data_set), "
    "(SELECT COUNT(*) FROM workitem_watch w WHERE w.workitem = workitem.id), "
    "(SELECT COUNT(*) FROM workitem_watch w WHERE w.workitem = workitem.id AND w.deletion_lock = 1)"
)
_ENDED = frozenset(FINAL_STATES)
_COLUMN = {**{one: one for one in NARROWING}, "state": "state", "uid": "uid"}
"""What may be narrowed by; of the columns of ``NARROWING`` an unknown value is always looked at."""


class WorkitemTable:
    """``pacs.core.workitem_ports.WorkitemRows`` on SQLite or PostgreSQL."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._clock = DatabaseClock(database)

    def now(self) -> datetime:
        """The time all nodes agree on."""
        return self._clock.now()

    # --- writing ------------------------------------------------------------------------

    def insert(self, row: WorkitemRow, columns: Columns) -> int | None:
        """Add one, and give its number; ``None`` where the UID is taken."""
        if self._database.dialect == "postgresql":  # SQLite has one writer anyway
            self._database.write("SELECT pg_advisory_xact_lock_shared(?)", (ARRIVALS_LOCK,))
        now = text_utc(self.now())
        added = self._database.write(
            f"INSERT INTO workitem (uid, registrant, state, {', '.join(NARROWING)}, created_utc, "
            "changed_utc, data_set, ordered_by) "
            f"VALUES (?, ?, ?, {', '.join('?' * len(NARROWING))}, ?, ?, ?, ?) "
            "ON CONFLICT (uid) DO NOTHING RETURNING id",
            (
                row.uid,
                row.registrant,
                row.state.value,
                *(columns[one] for one in NARROWING),
                now,
                now,
                row.data_set,
                row.ordered_by,
            ),
        ).fetchone()
        return None if added is None else int(added[0])

    def locked(self, uid: WorkitemUID) -> WorkitemRow | None:
        """Give one that nobody else changes until this transaction ends."""
        lock = "" if self._database.dialect == "sqlite" else " FOR UPDATE"
        found = self._database.write(f"SELECT {_ROW} FROM workitem WHERE uid = ?{lock}", (uid,))
        row = found.fetchone()
        return None if row is None else _row(row)

    def update(self, row: WorkitemRow, columns: Columns | None = None) -> None:
        """Write one that was ``locked``; ``columns`` where its Data Set has changed."""
        now = text_utc(self.now())
        changed = dict(columns or {})
        ended = ", ended_utc = COALESCE(ended_utc, ?)" if row.state in _ENDED else ""
        self._database.write(
            "UPDATE workitem SET state = ?, transaction_uid = ?, performer = ?, cancel_asked = ?, "
            f"data_set = ?, changed_utc = ?{ended}{''.join(f', {_COLUMN[one]} = ?' for one in changed)} "
            "WHERE id = ?",
            (
                row.state.value,
                row.transaction_uid,
                row.performer,
                int(row.cancel_asked),
                row.data_set,
                now,
                *((now,) if ended else ()),
                *changed.values(),
                row.number,
            ),
        )

    def delete(self, number: int) -> None:
        """Remove one and who watches it."""
        self._database.write("DELETE FROM workitem_watch WHERE workitem = ?", (number,))
        self._database.write("DELETE FROM workitem WHERE id = ?", (number,))

    # --- reading ------------------------------------------------------------------------

    def counts(self, registrant: Registrant) -> tuple[int, int]:
        """How many workitems there are of this subscriber, and in all."""
        own, every = next(
            self._database.execute(
                "SELECT (SELECT COUNT(*) FROM workitem WHERE registrant = ?), "
                "(SELECT COUNT(*) FROM workitem)",
                (registrant,),
            )
        )
        return int(own), int(every)

    def find(self, uid: WorkitemUID) -> WorkitemRow | None:
        """Give one as it is committed."""
        rows = self._database.execute(f"SELECT {_ROW} FROM workitem WHERE uid = ?", (uid,))
        row = next(rows, None)
        return None if row is None else _row(row)

    def candidates(
        self, registrant: Registrant | None, narrow: Sequence[Narrow], limit: int
    ) -> Sequence[int]:
        """Numbers, ascending, of at most ``limit`` workitems; ``None`` is of all subscribers."""
        conditions: list[str] = ["1 = 1"]
        params: list[str] = []
        if registrant is not None:
            conditions.append("registrant = ?")
            params.append(registrant)
        for one in narrow:
            condition, values = _condition(one)
            conditions.append(condition)
            params += values
        found = self._database.execute(
            f"SELECT id FROM workitem WHERE {' AND '.join(conditions)} ORDER BY id LIMIT ?",
            (*params, limit),
        )
        return [int(row[0]) for row in found]

    def page(self, numbers: Sequence[int], *, locked: bool = False) -> Sequence[WorkitemRow]:
        """Give those of a page that are still there, ascending; ``locked`` as ``locked`` gives one."""
        if not numbers:
            return ()
        marks = ", ".join("?" * len(numbers))
        lock = " FOR UPDATE" if locked and self._database.dialect == "postgresql" else ""
        found = self._database.execute(
            f"SELECT {_ROW} FROM workitem WHERE id IN ({marks}) ORDER BY id{lock}", numbers
        )
        return [_row(row) for row in found]

    def facts(self, state: WorkitemState | None, limit: int) -> Sequence[WorkitemFact]:
        """List workitems, the newest first."""
        where = "" if state is None else "WHERE state = ? "
        params = () if state is None else (state.value,)
        found = self._database.execute(
            f"SELECT {_FACT} FROM workitem {where}ORDER BY id DESC LIMIT ?", (*params, limit)
        )
        return [_fact(row) for row in found]

    def over(self, before: datetime, limit: int) -> Sequence[WorkitemUID]:
        """Name workitems that ended before then and that nobody holds by a deletion lock."""
        found = self._database.execute(
            "SELECT uid FROM workitem WHERE ended_utc < ? AND NOT EXISTS (SELECT 1 FROM "
            "workitem_watch w WHERE w.workitem = workitem.id AND w.deletion_lock = 1) "
            "ORDER BY ended_utc LIMIT ?",
            (text_utc(before), limit),
        )
        return [WorkitemUID(row[0]) for row in found]


def _condition(narrow: Narrow) -> tuple[str, list[str]]:
    column, values = _COLUMN[narrow.column], sorted(narrow.values)
    params = list(values)
    if values:
        said = f"{column} IN ({', '.join('?' * len(values))})"
    else:
        ends = [(">=", narrow.low), ("<=", narrow.high)]
        said = " AND ".join(f"{column} {how} ?" for how, end in ends if end)
        params = [end for _, end in ends if end]
    return f"({said} OR {column} IS NULL)", params


def _row(row: Sequence[Any]) -> WorkitemRow:
    return WorkitemRow(
        number=int(row[0]),
        uid=WorkitemUID(row[1]),
        registrant=Registrant(row[2]),
        state=WorkitemState(row[3]),
        transaction_uid=str(row[4]),
        performer=AETitle(row[5]),
        cancel_asked=bool(row[6]),
        data_set=bytes(row[7]),
        ordered_by=str(row[8]),
    )


def _fact(row: Sequence[Any]) -> WorkitemFact:
    return WorkitemFact(
        uid=WorkitemUID(row[0]),
        registrant=Registrant(row[1]),
        state=WorkitemState(row[2]),
        label=str(row[3] or ""),
        worklist=str(row[4] or ""),
        code=row[5],
        performer=AETitle(row[6]),
        cancel_asked=bool(row[7]),
        created_utc=_moment(row[8]),
        changed_utc=_moment(row[9]),
        ended_utc=parse_utc(row[10]),
        size_bytes=int(row[11]),
        watchers=int(row[12]),
        locks=int(row[13]),
    )


def _moment(text: object) -> datetime:
    moment = parse_utc(text)
    if moment is None:
        raise RecordsFailed("a workitem without a time")
    return moment.astimezone(UTC)

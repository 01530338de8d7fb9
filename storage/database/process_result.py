"""Rows of what pieces of workitems gave: noted once with the piece's end, read together, purged by age."""

import json
import time
from collections.abc import Collection, Iterator, Sequence
from typing import Any

from pacs.core.identifiers import AETitle, ObjectId, Registrant, StudyInstanceUID
from pacs.core.process_results import GivenUp, Idle, Made, PieceDone
from storage.database.connection import Database
from storage.database.versions import in_pieces

_COLUMNS = (
    "session, piece, pieces, registrant, result_key, operation, study_instance_uid, made, reasons, "
    "images, size_bytes, duration_ms"
)
_NOTE = (
    f"INSERT INTO process_result ({_COLUMNS}, noted_ms) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) "
    "ON CONFLICT (session, piece) DO UPDATE SET pieces = excluded.pieces, "
    "registrant = excluded.registrant, result_key = excluded.result_key, "
    "operation = excluded.operation, study_instance_uid = excluded.study_instance_uid, "
    "made = excluded.made, reasons = excluded.reasons, images = excluded.images, "
    "size_bytes = excluded.size_bytes, duration_ms = excluded.duration_ms, "
    "noted_ms = excluded.noted_ms"
)
_WHOLE = (
    "SELECT session FROM process_result WHERE registrant = ? AND result_key = ? AND completed = 1 "
    "GROUP BY session HAVING COUNT(*) = MAX(pieces) AND MAX(pieces) = MIN(pieces) "
    "AND MAX(LENGTH(reasons)) = 2 AND MIN(noted_ms) >= ? ORDER BY MAX(noted_ms) DESC LIMIT 1"
)
_FILES = (
    "SELECT i.object_id FROM instance i JOIN series e ON e.id = i.series_row "
    "WHERE i.deleted_by IS NULL AND i.registrant = ? AND i.source_ae_title = ? "
    "AND e.series_instance_uid = ? AND i.sop_instance_uid IN"
)
_PURGED_AT_ONCE = 1_000
_WORKITEM, _DELIVER = "process.workitem", "process.deliver"
_OF_IT = (
    f"kind IN ('{_WORKITEM}', '{_DELIVER}') "
    "AND cause IN ('workitem ' || w.uid, 'results of workitem ' || w.uid)"
)
_GIVEN_UP = (
    "SELECT j.id, j.kind, j.state, j.payload FROM workitem w, job j "
    f"WHERE w.state IN ('SCHEDULED', 'IN PROGRESS') AND {_OF_IT} "
    "AND j.state IN ('failed', 'cancelled') AND NOT EXISTS (SELECT 1 FROM job o "
    f"WHERE {_OF_IT.replace('kind', 'o.kind').replace('cause', 'o.cause')} "
    "AND o.state NOT IN ('failed', 'cancelled', 'done')) ORDER BY j.id LIMIT ?"
)
_IDLE = (
    "SELECT j.id, w.uid FROM workitem w, job j "
    f"WHERE w.state IN ('SCHEDULED', 'IN PROGRESS') AND {_OF_IT} AND j.id > ? AND ("
    f"(j.kind = '{_DELIVER}' AND j.state = 'blocked') "
    f"OR (j.kind = '{_WORKITEM}' AND j.queue <> 'process' AND j.state IN ('waiting', 'delayed')) "
    f"OR (j.kind = '{_WORKITEM}' AND j.state = 'blocked' AND NOT EXISTS ("
    "SELECT 1 FROM job p WHERE p.parent = j.id AND p.state = 'running'))) ORDER BY j.id LIMIT ?"
)


class ProcessResultTable:
    """``pacs.core.process_results.ResultTable`` on SQLite or PostgreSQL."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def note(self, done: PieceDone) -> None:
        """Note how a piece ended, within a transaction; in place of what was noted of it."""
        made = [[one.series_instance_uid, one.instances] for one in done.made]
        self._database.write(
            _NOTE,
            (
                done.session,
                done.number,
                done.pieces,
                done.registrant,
                done.key,
                done.operation,
                done.study_instance_uid,
                json.dumps(made, separators=(",", ":")),
                json.dumps(done.reasons),
                done.images,
                done.size_bytes,
                done.duration_ms,
                _now_ms(),
            ),
        )

    def complete(self, session: str) -> None:
        """The workitem of a session is COMPLETED: what it gave stays, and may be given again."""
        with self._database.transaction():
            self._database.write(
                "UPDATE process_result SET completed = 1 WHERE session = ?", (session,)
            )

    def of(self, session: str) -> Sequence[PieceDone]:
        """The pieces of a session that have ended, in their order."""
        rows = self._database.execute(
            f"SELECT {_COLUMNS} FROM process_result WHERE session = ? ORDER BY piece", (session,)
        )
        return [_done(row) for row in rows]

    def ended(self, session: str) -> int:
        """How many pieces of a session have ended."""
        rows = self._database.execute(
            "SELECT COUNT(*) FROM process_result WHERE session = ?", (session,)
        )
        return int(next(rows)[0])

    def whole(self, registrant: Registrant, key: str, newer_s: float) -> Sequence[PieceDone]:
        """The pieces of the newest completed session that did all of the same without a reason; or nothing."""
        since_ms = _now_ms() - int(newer_s * 1_000)
        for (session,) in self._database.execute(_WHOLE, (registrant, key, since_ms)):
            return self.of(session)
        return ()

    def given_up(self, most: int) -> Sequence[GivenUp]:
        """Jobs of open workitems that ended without their end, and have no other that goes on."""
        found = []
        for number, kind, state, payload in self._database.execute(_GIVEN_UP, (most,)):
            work = json.loads(payload)
            found.append(
                GivenUp(
                    job=int(number),
                    workitem=work["uid"],
                    session=work["transaction_uid"],
                    delivers=kind == _DELIVER,
                    cancelled=state == "cancelled",
                )
            )
        return found

    def files(
        self, registrant: Registrant, made_by: AETitle, series: str, uids: Sequence[str]
    ) -> Sequence[ObjectId]:
        """The files under these UIDs of a series that ``made_by`` made, which are not deleted."""
        return [
            ObjectId(row[0])
            for marks, some in in_pieces(uids)
            for row in self._database.execute(
                f"{_FILES} ({marks})", (registrant, made_by, series, *some)
            )
        ]

    def idle(self, after: int, most: int) -> Sequence[Idle]:
        """Jobs with greater numbers than ``after`` that wait, by their numbers; none of which a piece runs."""
        return [
            Idle(job=int(number), workitem=uid)
            for number, uid in self._database.execute(_IDLE, (after, most))
        ]

    def bring_forward(self, workitem: str) -> Collection[str]:
        """Let the job that waits to begin a workitem look at it now, within a transaction; gives its queue."""
        found = self._database.write(
            "UPDATE job SET state = 'waiting', not_before_utc = NULL "
            f"WHERE kind = '{_WORKITEM}' AND state = 'delayed' AND cause = ? RETURNING queue",
            (f"workitem {workitem}",),
        )
        return [str(queue) for (queue,) in found]

    def purge(self, older_s: float) -> int:
        """Forget what ended so long ago; gives how many pieces."""
        before_ms = _now_ms() - int(older_s * 1_000)
        return sum(self._purged(before_ms))

    def _purged(self, before_ms: int) -> Iterator[int]:
        """Forget some at once, so that nobody waits long."""
        while True:
            found = self._database.execute(
                "SELECT session, piece FROM process_result WHERE noted_ms < ? "
                f"ORDER BY noted_ms LIMIT {_PURGED_AT_ONCE}",
                (before_ms,),
            )
            some = list(found)
            with self._database.transaction():
                for row in some:
                    self._database.write(
                        "DELETE FROM process_result WHERE session = ? AND piece = ?", row
                    )
            yield len(some)
            if len(some) < _PURGED_AT_ONCE:
                return


def _done(row: tuple[Any, ...]) -> PieceDone:
    session, piece, pieces, registrant, key, operation, study, made, reasons, *amounts = row
    return PieceDone(
        session=session,
        number=int(piece),
        pieces=int(pieces),
        registrant=Registrant(registrant),
        key=key,
        operation=operation,
        study_instance_uid=StudyInstanceUID(study),
        made=tuple(
            Made(
                series_instance_uid=series,
                instances=tuple((sop_class, sop) for sop_class, sop in instances),
            )
            for series, instances in json.loads(made)
        ),
        reasons=tuple(json.loads(reasons)),
        images=int(amounts[0]),
        size_bytes=int(amounts[1]),
        duration_ms=int(amounts[2]),
    )


def _now_ms() -> int:
    return time.time_ns() // 1_000_000

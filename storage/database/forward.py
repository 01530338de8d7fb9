"""Rows of what was forwarded: looked up by study, fenced by run, purged in pieces.

What changes rows, but for ``purge``, runs within the caller's transaction, so that usage and a job's end are
committed with them.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

from pacs.core.identifiers import (
    AETitle,
    ObjectId,
    Registrant,
    SeriesInstanceUID,
    SOPClassUID,
    SOPInstanceUID,
    StudyInstanceUID,
)
from pacs.core.sent import Run, SentRow, SentState, Told
from storage.database.connection import Database
from storage.database.versions import in_pieces

_STUDY = (
    "FROM instance i JOIN series e ON e.id = i.series_row JOIN study s ON s.id = e.study_row "
    "{join} WHERE s.study_instance_uid = ? AND i.registrant = ? "
    "AND i.delivered = 1 AND i.deleted_by IS NULL"
)
_ROWS = (
    "SELECT i.id, i.object_id, i.sop_class_uid, i.sop_instance_uid, i.size_bytes - i.data_set_offset, "
    "f.state, f.job, f.attempts, f.doubts, f.committed "
    + _STUDY.format(join="LEFT JOIN forward_sent f ON f.ae_title = ? AND f.object_id = i.object_id")
)
_BEGUN = (
    "INSERT INTO forward_sent (ae_title, object_id, state, job, run, noted_ms) VALUES {rows} "
    "ON CONFLICT (ae_title, object_id) DO UPDATE SET state = excluded.state, job = excluded.job, "
    "run = excluded.run, noted_ms = excluded.noted_ms, attempts = forward_sent.attempts + 1, "
    "status = NULL, trouble = '', committed = 0 WHERE forward_sent.state <> 'sent'"
)
_BEGUN_AT_ONCE = 100
_WALKED_AT_ONCE = 2_000


class ForwardTable:
    """``pacs.core.sent.SentTable`` on SQLite or PostgreSQL."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def of_study(
        self,
        destination: AETitle,
        registrant: Registrant,
        study: StudyInstanceUID,
        series: SeriesInstanceUID | None,
    ) -> Sequence[SentRow]:
        """Every instance of a study, or series, that is delivered now. Raises ``RecordsFailed``."""
        narrowed = "" if series is None else " AND e.series_instance_uid = ?"
        params = [destination, study, registrant, *([] if series is None else [series])]
        return [_sent_row(row) for row in self._database.execute(_ROWS + narrowed, params)]

    def doubt(self, destination: AETitle, object_ids: Sequence[ObjectId]) -> None:
        """Those still 'sending' may have been received: the run that sent them is over."""
        for marks, some in in_pieces(object_ids):
            self._database.write(
                "UPDATE forward_sent SET state = 'unknown', doubts = doubts + 1, noted_ms = ? "
                f"WHERE ae_title = ? AND state = 'sending' AND object_id IN ({marks})",
                (_now_ms(), destination, *some),
            )

    def begin(self, run: Run, object_ids: Sequence[ObjectId]) -> None:
        """They may be sent from now on; what was sent already stays so."""
        now_ms = _now_ms()
        for start in range(0, len(object_ids), _BEGUN_AT_ONCE):
            some = object_ids[start : start + _BEGUN_AT_ONCE]
            rows = ", ".join(["(?, ?, 'sending', ?, ?, ?)"] * len(some))
            params = [
                value
                for one in some
                for value in (run.destination, one, run.job, run.number, now_ms)
            ]
            self._database.write(_BEGUN.format(rows=rows), params)

    def settle(self, run: Run, told: Sequence[Told]) -> frozenset[ObjectId]:
        """Note how they ended; gives those that were still this run's."""
        ours: set[ObjectId] = set()
        for (state, status, trouble), same in groupby(sorted(told, key=_ending), key=_ending):
            also = {"unknown": ", doubts = doubts + 1", "unsent": ", attempts = attempts - 1"}
            for marks, some in in_pieces(one.object_id for one in same):
                changed = self._database.write(
                    f"UPDATE forward_sent SET state = ?, status = ?, trouble = ?, noted_ms = ?"
                    f"{also.get(state, '')} WHERE ae_title = ? AND run = ? AND state = 'sending' "
                    f"AND object_id IN ({marks}) RETURNING object_id",
                    (
                        state,
                        None if status < 0 else status,
                        trouble,
                        _now_ms(),
                        run.destination,
                        run.number,
                        *some,
                    ),
                )
                ours.update(ObjectId(row[0]) for row in changed.fetchall())
        return frozenset(ours)

    def commit(self, destination: AETitle, object_ids: Sequence[ObjectId]) -> None:
        """The destination answers for these."""
        for marks, some in in_pieces(object_ids):
            self._database.write(
                "UPDATE forward_sent SET committed = 1 "
                f"WHERE ae_title = ? AND state = 'sent' AND object_id IN ({marks})",
                (destination, *some),
            )

    def disclaim(self, destination: AETitle, failed: Mapping[ObjectId, int]) -> None:
        """The destination does not answer for these, and why: refused after all."""
        for object_id, reason in failed.items():
            self._database.write(
                "UPDATE forward_sent SET state = 'refused', committed = 0, trouble = ? "
                "WHERE ae_title = ? AND state = 'sent' AND object_id = ?",
                (f"not committed, failure reason {reason:04X}", destination, object_id),
            )

    def holders(self, study: StudyInstanceUID) -> Sequence[Registrant]:
        """Whose instances of that study are delivered."""
        rows = self._database.execute(
            "SELECT DISTINCT i.registrant FROM study s JOIN series e ON e.study_row = s.id "
            "JOIN instance i ON i.series_row = e.id WHERE s.study_instance_uid = ? "
            "AND i.delivered = 1 AND i.deleted_by IS NULL ORDER BY i.registrant",
            (study,),
        )
        return [Registrant(row[0]) for row in rows]

    def forget(
        self,
        destination: AETitle,
        registrant: Registrant,
        study: StudyInstanceUID,
        series: SeriesInstanceUID | None = None,
    ) -> int:
        """Let a study, or one series, be sent again as if it never had been; gives of how many instances."""
        whole = f"SELECT i.object_id {_STUDY.format(join='')}"
        narrowed = "" if series is None else " AND e.series_instance_uid = ?"
        with self._database.transaction():
            gone = self._database.write(
                "DELETE FROM forward_sent WHERE ae_title = ? AND state <> 'sending' "
                f"AND object_id IN ({whole}{narrowed})",
                (destination, study, registrant, *(() if series is None else (series,))),
            )
        return int(gone.rowcount)

    # --- by and by ---------------------------------------------------------------------

    def purge(self, older_s: float) -> int:
        """Forget what was noted so long ago, and what is held no more; gives how many rows.

        What is still 'sending' though its job does not run becomes 'unknown' on the way.
        """
        before_ms = _now_ms() - int(older_s * 1000)
        return sum(self._purge(page, before_ms) for page in self._pages())

    def _pages(self) -> Iterator[tuple[str, str, str]]:
        """Walk the key in pieces: the AE title, and the first and last object id of each."""
        at = ("", "")
        while True:
            page = list(
                self._database.execute(
                    "SELECT ae_title, object_id FROM forward_sent "
                    "WHERE (ae_title, object_id) > (?, ?) ORDER BY ae_title, object_id LIMIT ?",
                    (*at, _WALKED_AT_ONCE),
                )
            )
            if not page:
                return
            for ae_title, same in groupby(page, key=lambda row: row[0]):
                ids = [row[1] for row in same]
                yield ae_title, ids[0], ids[-1]
            at = page[-1]

    def _purge(self, page: tuple[str, str, str], before_ms: int) -> int:
        """Look at one piece; writes only where there is something to write."""
        within = "f.ae_title = ? AND f.object_id BETWEEN ? AND ?"
        over = (
            "(f.noted_ms < ? OR NOT EXISTS "
            "(SELECT 1 FROM instance i WHERE i.object_id = f.object_id))"
        )
        orphaned = (
            "f.state = 'sending' AND NOT EXISTS "
            "(SELECT 1 FROM job j WHERE j.id = f.job AND j.state = 'running')"
        )
        found = self._database.execute(
            f"SELECT 1 FROM forward_sent f WHERE {within} AND ({over} OR ({orphaned})) LIMIT 1",
            (*page, before_ms),
        )
        if next(found, None) is None:
            return 0
        with self._database.transaction():
            self._database.write(
                "UPDATE forward_sent AS f SET state = 'unknown', doubts = doubts + 1 "
                f"WHERE {within} AND {orphaned}",
                page,
            )
            gone = self._database.write(
                f"DELETE FROM forward_sent AS f WHERE {within} AND f.state <> 'sending' AND {over}",
                (*page, before_ms),
            )
        return int(gone.rowcount)


def _ending(told: Told) -> tuple[str, int, str]:
    return told.state.value, -1 if told.status is None else told.status, told.trouble


def _sent_row(row: tuple[Any, ...]) -> SentRow:
    number, object_id, sop_class, sop, size, state, job, attempts, doubts, committed = row
    return SentRow(
        row=int(number),
        object_id=ObjectId(object_id),
        sop_class_uid=SOPClassUID(sop_class),
        sop_instance_uid=SOPInstanceUID(sop),
        size_bytes=int(size),
        state=None if state is None else SentState(state),
        job=job,
        attempts=attempts or 0,
        doubts=doubts or 0,
        committed=bool(committed),
    )


def _now_ms() -> int:
    return time.time_ns() // 1_000_000

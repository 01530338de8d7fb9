"""What is remembered of the studies and instances of polled peers, and what of them is held."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta

from pacs.core.identifiers import AETitle, Registrant, SOPInstanceUID, StudyInstanceUID
from pacs.core.poll_ports import (
    FailedInstance,
    InstanceMemory,
    MemoryCounts,
    StudyMemory,
)
from storage.database.connection import Database
from storage.database.job_rows import parse_utc, text_utc
from storage.database.versions import in_pieces

_ROWS_A_STATEMENT = 100
_SEEN_AGAIN = timedelta(days=1)
_KEY = "ae_title = ? AND study_instance_uid = ?"


class PollMemory:
    """Memory by the peer's AE title, so that the polls of one peer share it."""

    def __init__(self, database: Database) -> None:
        self._database = database

    # --- what is held --------------------------------------------------------------------

    def held(
        self,
        registrant: Registrant,
        study: StudyInstanceUID,
        instances: Iterable[SOPInstanceUID],
    ) -> frozenset[SOPInstanceUID]:
        """Which of them the archive holds for ``registrant``, in whatever study, or has deleted from this one."""
        found: set[SOPInstanceUID] = set()
        wanted = frozenset(instances)
        for marks, uids in in_pieces(sorted(wanted)):
            rows = self._database.execute(
                f"SELECT sop_instance_uid FROM instance WHERE sop_instance_uid IN ({marks}) "
                "AND deleted_by IS NULL AND registrant = ?",
                (*uids, registrant),
            )
            found.update(SOPInstanceUID(row[0]) for row in rows)
        deleted = self._database.execute(
            "SELECT i.sop_instance_uid FROM study s JOIN series e ON e.study_row = s.id "
            "JOIN instance i ON i.series_row = e.id WHERE s.study_instance_uid = ? "
            "AND s.registrant = ? AND i.deleted_by IS NOT NULL",
            (study, registrant),
        )
        return wanted & {*found, *(SOPInstanceUID(row[0]) for row in deleted)}

    # --- studies -------------------------------------------------------------------------

    def studies(
        self, ae_title: AETitle, studies: Sequence[StudyInstanceUID]
    ) -> Mapping[StudyInstanceUID, StudyMemory]:
        """What is known of these studies; their memory is kept for as long as they are seen."""
        found: dict[StudyInstanceUID, StudyMemory] = {}
        stale = text_utc(datetime.now(UTC) - _SEEN_AGAIN)
        again: list[object] = []
        for marks, uids in in_pieces(studies):
            for uid, instances, due, breaks, seen in self._database.execute(
                "SELECT study_instance_uid, instances, due_utc, breaks, seen_utc FROM poll_study "
                f"WHERE ae_title = ? AND study_instance_uid IN ({marks})",
                (ae_title, *uids),
            ):
                found[StudyInstanceUID(uid)] = StudyMemory(
                    instances=instances, due_utc=parse_utc(due), breaks=int(breaks)
                )
                if seen < stale:
                    again.append(uid)
        if again:
            self._see_again(ae_title, again)
        return found

    def _see_again(self, ae_title: AETitle, studies: Sequence[object]) -> None:
        with self._database.transaction():
            for marks, uids in in_pieces(studies):
                self._database.write(
                    f"UPDATE poll_study SET seen_utc = ? WHERE ae_title = ? "
                    f"AND study_instance_uid IN ({marks})",
                    (text_utc(datetime.now(UTC)), ae_title, *uids),
                )

    def remember(self, ae_title: AETitle, study: StudyInstanceUID, memory: StudyMemory) -> None:
        """Keep this of a study, in place of what was known."""
        now, due = text_utc(datetime.now(UTC)), memory.due_utc
        with self._database.transaction():
            self._database.write(
                "INSERT INTO poll_study (ae_title, study_instance_uid, instances, due_utc, "
                "breaks, seen_utc) VALUES (?, ?, ?, ?, ?, ?) "
                "ON CONFLICT (ae_title, study_instance_uid) DO UPDATE SET "
                "instances = excluded.instances, due_utc = excluded.due_utc, "
                "breaks = excluded.breaks, seen_utc = excluded.seen_utc",
                (
                    ae_title,
                    study,
                    memory.instances,
                    None if due is None else text_utc(due),
                    memory.breaks,
                    now,
                ),
            )

    # --- instances -----------------------------------------------------------------------

    def instances(
        self, ae_title: AETitle, study: StudyInstanceUID
    ) -> Mapping[SOPInstanceUID, InstanceMemory]:
        """What is known of the instances of a study."""
        rows = self._database.execute(
            f"SELECT sop_instance_uid, came, attempts, due_utc FROM poll_instance WHERE {_KEY}",
            (ae_title, study),
        )
        return {
            SOPInstanceUID(uid): InstanceMemory(
                came=bool(came), attempts=int(attempts), due_utc=parse_utc(due)
            )
            for uid, came, attempts, due in rows
        }

    def note(
        self,
        ae_title: AETitle,
        study: StudyInstanceUID,
        known: Mapping[SOPInstanceUID, InstanceMemory],
        trouble: str = "",
    ) -> None:
        """Keep this of instances, in place of what was known; what came once, came."""
        with self._database.transaction():
            for rows in _pieces(known.items()):
                values = ", ".join("(?, ?, ?, ?, ?, ?, ?)" for _ in rows)
                self._database.write(
                    "INSERT INTO poll_instance (ae_title, study_instance_uid, sop_instance_uid, "
                    f"came, attempts, due_utc, trouble) VALUES {values} ON CONFLICT "
                    "(ae_title, study_instance_uid, sop_instance_uid) DO UPDATE SET "
                    "came = excluded.came, attempts = excluded.attempts, "
                    "due_utc = excluded.due_utc, trouble = excluded.trouble "
                    "WHERE poll_instance.came = 0",
                    [
                        value
                        for uid, one in rows
                        for value in (
                            ae_title,
                            study,
                            uid,
                            int(one.came),
                            one.attempts,
                            None if one.due_utc is None else text_utc(one.due_utc),
                            trouble,
                        )
                    ],
                )

    # --- as an administrator sees it -----------------------------------------------------

    def failed(self, ae_title: AETitle, limit: int) -> Sequence[FailedInstance]:
        """What a peer did not deliver when it was asked to, at most ``limit``."""
        rows = self._database.execute(
            "SELECT study_instance_uid, sop_instance_uid, attempts, trouble FROM poll_instance "
            "WHERE ae_title = ? AND came = 0 "
            "ORDER BY study_instance_uid, sop_instance_uid LIMIT ?",
            (ae_title, limit),
        )
        return [
            FailedInstance(
                study_instance_uid=StudyInstanceUID(study),
                sop_instance_uid=SOPInstanceUID(uid),
                attempts=int(attempts),
                trouble=trouble,
            )
            for study, uid, attempts, trouble in rows
        ]

    def counts(self, ae_title: AETitle) -> MemoryCounts:
        """How much is remembered of a peer."""
        (studies,) = self._database.execute(
            "SELECT COUNT(*) FROM poll_study WHERE ae_title = ?", (ae_title,)
        )
        (instances,) = self._database.execute(
            "SELECT COALESCE(SUM(came), 0), COALESCE(SUM(1 - came), 0) FROM poll_instance "
            "WHERE ae_title = ?",
            (ae_title,),
        )
        return MemoryCounts(
            studies=int(studies[0]), came=int(instances[0]), failed=int(instances[1])
        )

    def retry(self, ae_title: AETitle, *, gone: bool) -> int:
        """Forget every failure with a peer, and where ``gone`` all that came; gives how many failures."""
        with self._database.transaction():
            failed = self._database.write(
                "DELETE FROM poll_instance WHERE ae_title = ? AND came = 0", (ae_title,)
            ).rowcount
            if gone:
                self._database.write("DELETE FROM poll_instance WHERE ae_title = ?", (ae_title,))
            self._database.write(
                "UPDATE poll_study SET instances = NULL, due_utc = NULL, breaks = 0 "
                "WHERE ae_title = ?",
                (ae_title,),
            )
        return int(failed)

    def forget(self, not_seen_since: datetime) -> int:
        """Forget the studies no peer has shown since, and their instances; gives how many studies."""
        before = text_utc(not_seen_since)
        with self._database.transaction():
            self._database.write(
                "DELETE FROM poll_instance WHERE (ae_title, study_instance_uid) IN "
                "(SELECT ae_title, study_instance_uid FROM poll_study WHERE seen_utc < ?)",
                (before,),
            )
            gone = self._database.write("DELETE FROM poll_study WHERE seen_utc < ?", (before,))
        return int(gone.rowcount)


def _pieces(
    items: Iterable[tuple[SOPInstanceUID, InstanceMemory]],
) -> Iterator[list[tuple[SOPInstanceUID, InstanceMemory]]]:
    whole = list(items)
    for start in range(0, len(whole), _ROWS_A_STATEMENT):
        yield whole[start : start + _ROWS_A_STATEMENT]

"""Counting what is held."""

from collections.abc import Mapping

from storage.database.connection import Database

_LIVE_SERIES = "SELECT study_row FROM series WHERE instance_count > 0"
_QUERIES = {
    "patients": f"SELECT COUNT(DISTINCT patient_row) FROM study WHERE id IN ({_LIVE_SERIES})",
    "studies": f"SELECT COUNT(*) FROM study WHERE id IN ({_LIVE_SERIES})",
    "series": "SELECT COUNT(*) FROM series WHERE instance_count > 0",
    "instances": "SELECT COALESCE(SUM(instance_count), 0) FROM series",
    "versions_not_delivered": "SELECT COUNT(*) FROM instance "
    "WHERE delivered = 0 AND deleted_by IS NULL",
    "deleted_not_removed": "SELECT COUNT(*) FROM instance WHERE deleted_by IS NOT NULL",
    "stored_bytes": "SELECT COALESCE(SUM(size_bytes), 0) FROM instance",
    "compressed_instances": "SELECT COUNT(*) FROM instance WHERE form_digest IS NOT NULL",
    "compressed_bytes": "SELECT COALESCE(SUM(size_bytes - data_set_offset), 0) FROM instance "
    "WHERE form_digest IS NOT NULL",
    "compressed_from_bytes": "SELECT COALESCE(SUM(original_bytes), 0) FROM instance "
    "WHERE form_digest IS NOT NULL",
    "open_conflicts": "SELECT COUNT(*) FROM conflict "
    "WHERE members > 1 AND (settled_by IS NULL OR settled_by < latest)",
    "peers": "SELECT COUNT(*) FROM peer",
    "waiting_jobs": "SELECT COUNT(*) FROM job WHERE state IN ('waiting', 'delayed')",
    "failed_jobs": "SELECT COUNT(*) FROM job WHERE state = 'failed'",
}


class DatabaseCounts:
    """``pacs.services.stats.Counts``."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def counts(self) -> Mapping[str, int]:
        """Each count by name."""
        return {name: int(next(self._database.execute(sql))[0]) for name, sql in _QUERIES.items()}

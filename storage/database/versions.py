"""Which version of a SOP Instance is found and delivered. Design: ``first`` unless the settings say otherwise.

A choice an administrator made through ``pacs conflict resolve`` (``chosen_by``
names its journal entry) goes before the policy; the latest choice wins.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

from storage.database.connection import Database

_PARAMETERS_A_QUERY = 500
_MARKER = "delivered_versions"
Version = tuple[int, int, str, str, str | None, int]
"""Row, series row, SOP Instance UID, source AE title, entry that chose it, delivered."""


def in_pieces(values: Iterable[object]) -> Iterator[tuple[str, list[object]]]:
    """Cut a list into pieces a query can take: the marks of each piece and its values."""
    whole = list(values)
    for start in range(0, len(whole), _PARAMETERS_A_QUERY):
        piece = whole[start : start + _PARAMETERS_A_QUERY]
        yield ", ".join("?" * len(piece)), piece


def deliver(database: Database, sop_instance_uids: Iterable[str], policy: str) -> None:
    """Mark exactly one version of each as delivered and keep the counts of their series true.

    Runs in the caller's transaction. ``policy`` is a value of the setting
    ``retrieve.versions``.
    """
    changed: dict[int, int] = {}
    series: set[int] = set()
    for marks, uids in in_pieces(dict.fromkeys(sop_instance_uids)):
        rows: list[Version] = database.write(
            "SELECT id, series_row, sop_instance_uid, source_ae_title, chosen_by, delivered "
            f"FROM instance WHERE sop_instance_uid IN ({marks}) AND deleted_by IS NULL "
            "ORDER BY series_row, sop_instance_uid, object_id",
            uids,
        ).fetchall()
        for _, versions in groupby(rows, key=lambda row: row[1:3]):
            held = list(versions)
            chosen = _choose(held, policy)
            wrong = {row[0]: int(row[0] == chosen) for row in held if row[5] != (row[0] == chosen)}
            changed.update(wrong)
            series.update(row[1] for row in held if row[0] in wrong)
    for wanted in (0, 1):
        for marks, ids in in_pieces(row for row, flag in changed.items() if flag == wanted):
            database.write(f"UPDATE instance SET delivered = {wanted} WHERE id IN ({marks})", ids)
    recount(database, series)


def recount(database: Database, series_rows: Iterable[int]) -> None:
    """Make the counts of these series those of their delivered instances."""
    for marks, rows in in_pieces(sorted(series_rows)):
        database.write(
            "UPDATE series SET instance_count = (SELECT COUNT(*) FROM instance "
            "WHERE instance.series_row = series.id AND instance.delivered = 1) "
            f"WHERE id IN ({marks})",
            rows,
        )


def follow_policy(database: Database, policy: str) -> bool:
    """Choose all versions anew where the index was made under another policy; tells whether it was."""
    with database.alone():
        found = database.write(
            "SELECT value FROM index_property WHERE name = ?", (_MARKER,)
        ).fetchone()
        if found is not None and found[0] == policy:
            return False
        many = database.write(
            "SELECT DISTINCT sop_instance_uid FROM (SELECT sop_instance_uid FROM instance "
            "WHERE deleted_by IS NULL GROUP BY sop_instance_uid, series_row "
            "HAVING COUNT(*) > 1) AS several"
        ).fetchall()
        deliver(database, (row[0] for row in many), policy)
        database.write(
            "INSERT INTO index_property (name, value) VALUES (?, ?) "
            "ON CONFLICT (name) DO UPDATE SET value = excluded.value",
            (_MARKER, policy),
        )
    return True


def _choose(rows: Sequence[Version], policy: str) -> int:
    decided = [row for row in rows if row[4]]
    if decided:
        return max(decided, key=lambda row: row[4] or "")[0]
    if policy == "latest":
        return rows[-1][0]
    if policy == "latest-from-same-source":
        return [row for row in rows if row[3] == rows[0][3]][-1][0]
    return rows[0][0]

"""Finding entities for C-FIND: ``pacs.core.ports.FindIndex`` on SQLite and PostgreSQL.

A question is answered in two steps: one short read lists the row numbers, page
after page reads the values, so that no reader stays open while a peer takes
its time. Which index drives is decided in ``find_driver``.
"""

from array import array
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from pacs.core.attributes import Level, attributes_of
from pacs.core.caller import Visibility
from pacs.core.conditions import Condition, Found, level_of
from pacs.core.identifiers import ObjectId, TransferSyntaxUID
from pacs.core.records import Place
from storage.database.find_driver import choose_driver, driving, join_tables, repeats_rows
from storage.database.find_sql import (
    TABLES,
    Dialect,
    Sql,
    column_of,
    compile_condition,
    joined,
    one_of,
)
from storage.database.visibility import Sight

_LEVELS = tuple(Level)


class Reader(Protocol):
    """The database as finding needs it: short reads, ``?`` for parameters on both back ends."""

    @property
    def dialect(self) -> Dialect:
        """Which back end it is."""
        ...

    def connection(self) -> AbstractContextManager[None]:
        """Hold a connection in this thread, for several short reads in a row."""
        ...

    def execute(self, sql: str, params: Sequence[object] = ()) -> Iterator[tuple[Any, ...]]:
        """Run one reading statement on its own. Raises ``RecordsFailed``."""
        ...


class DatabaseFindIndex:
    """``pacs.core.ports.FindIndex`` over the index tables."""

    def __init__(self, database: Reader) -> None:
        self._database = database

    def candidates(
        self,
        level: Level,
        conditions: Sequence[Condition],
        visibility: Visibility,
        *,
        limit: int,
    ) -> Sequence[int]:
        """List the row numbers, ascending, of at most ``limit`` entities that keep all conditions."""
        with self._database.connection():
            return self._candidates(level, conditions, visibility, limit)

    def _candidates(
        self, level: Level, conditions: Sequence[Condition], visibility: Visibility, limit: int
    ) -> Sequence[int]:
        dialect = self._database.dialect
        driver = choose_driver(conditions, self._count, dialect)
        levels = [level, *(level_of(one) for one in conditions)]
        deepest = max(levels, key=lambda one: one.depth)
        highest = min(levels, key=lambda one: one.depth)
        chain = _LEVELS[highest.depth : deepest.depth + 1]
        sight = Sight(visibility, dialect)
        parts = [compile_condition(one, dialect, sight.kinds("held")) for one in conditions]
        parts += sight.entities(chain)
        parts += driving(driver, conditions, dialect)
        where = joined(parts, "AND")
        repeated = deepest is not level or repeats_rows(driver)
        distinct = "DISTINCT " if repeated else ""
        # Without a key the tables are read as they lie. The optimiser likes an index better,
        # because it is smaller, and then fetches what hangs below in that index's order.
        order = f"ORDER BY {TABLES[level]}.id " if driver is None else ""
        found = self._database.execute(
            f"SELECT {distinct}{TABLES[level]}.id FROM "
            f"{join_tables(chain, driver or level, dialect)} "
            f"WHERE {where.text} {order}LIMIT {limit:d}",
            where.params,
        )
        return array("q", sorted(row[0] for row in found))

    def rows(
        self,
        level: Level,
        rows: Sequence[int],
        wanted: frozenset[str],
        visibility: Visibility,
    ) -> Iterator[Found]:
        """Give what is held under these row numbers, ascending, with the wanted keywords' values."""
        chain = _LEVELS[: level.depth + 1]
        attributes = [one for step in chain for one in attributes_of(step) if one.keyword in wanted]
        table = TABLES[level]
        columns = [f"{table}.registrant", f"{table}.received_utc"]
        columns += [f"{TABLES[step]}.id" for step in chain]
        columns += list(_PLACE) if level is Level.IMAGE else []
        columns += [column_of(one) for one in attributes]
        sight = Sight(visibility, self._database.dialect)
        where = joined([one_of(f"{table}.id", _padded(rows)), *sight.entities((level,))], "AND")
        sql = (
            f"SELECT {', '.join(columns)} FROM {join_tables(chain, level, self._database.dialect)} "
            f"WHERE {where.text} ORDER BY {table}.id"
        )
        with self._database.connection():
            page = list(self._database.execute(sql, where.params))
            related = self._related(chain, [row[2 : 2 + len(chain)] for row in page], wanted, sight)
        keywords = [one.keyword for one in attributes]
        first = len(columns) - len(keywords)
        for row in page:
            pairs = zip(keywords, row[first:], strict=True)
            values = {keyword: text for keyword, text in pairs if text}
            for at, made in related:
                values.update(made.get(row[at], _NOTHING))
            yield _found(level, row, row[1 + len(chain)], values)

    def _count(self, sql: Sql) -> int:
        return int(next(iter(self._database.execute(sql.text, sql.params)))[0])

    # --- computed attributes ------------------------------------------------------------

    def _related(
        self,
        chain: Sequence[Level],
        ids: Sequence[Sequence[int]],
        wanted: frozenset[str],
        sight: Sight,
    ) -> list[tuple[int, dict[int, dict[str, str]]]]:
        """Make the computed attributes of every entity on a page, a query or two per level.

        Gives, by column of the page, what was made for each row number in it.
        """
        related: list[tuple[int, dict[int, dict[str, str]]]] = []
        seen = Sql("") if sight.by_registrant else sight.series("series")
        for step in chain:
            queries = [(sql, names) for sql, names in _RELATED[step] if wanted.intersection(names)]
            if not queries or not ids:
                continue
            numbers = _padded(sorted({row[step.depth] for row in ids}))
            made: dict[int, dict[str, str]] = {}
            for sql, names in queries:
                marks = ", ".join("?" * len(numbers))
                said = sql.format(marks=marks, seen=f"AND {seen.text} " if seen.text else "")
                self._collect(made, Sql(said, (*numbers, *seen.params)), names)
            related.append((2 + step.depth, made))
        return related

    def _collect(self, made: dict[int, dict[str, str]], sql: Sql, names: tuple[str, ...]) -> None:
        """Numbers of one entity are added up, its texts listed."""
        for number, *values in self._database.execute(sql.text, sql.params):
            entry = made.setdefault(number, {})
            for name, value in zip(names, values, strict=True):
                if value is not None and not isinstance(value, str):
                    entry[name] = str(int(entry.get(name, 0)) + int(value))
                elif value:
                    entry[name] = f"{entry[name]}\\{value}" if name in entry else value


def _padded(numbers: Sequence[int]) -> tuple[int, ...]:
    """Repeat the last number until there are a power of two: few statements, prepared once."""
    count = len(numbers)
    missing = (1 << (count - 1).bit_length()) - count if count else 0
    return (*numbers, *[numbers[-1] for _ in range(missing)])


_NOTHING: Mapping[str, str] = {}
_PLACE = (
    "instance.place",
    "instance.object_id",
    "instance.size_bytes",
    "instance.data_set_offset",
    "instance.transfer_syntax_uid",
)
_RELATED: dict[Level, tuple[tuple[str, tuple[str, ...]], ...]] = {
    Level.PATIENT: (
        (
            "SELECT study.patient_row, COUNT(DISTINCT study.id), COUNT(*), "
            "SUM(series.instance_count) FROM study JOIN series ON series.study_row = study.id "
            "WHERE study.patient_row IN ({marks}) AND series.instance_count > 0 {seen}"
            "GROUP BY study.patient_row",
            (
                "NumberOfPatientRelatedStudies",
                "NumberOfPatientRelatedSeries",
                "NumberOfPatientRelatedInstances",
            ),
        ),
    ),
    Level.STUDY: (
        (
            "SELECT study_row, COUNT(*), SUM(instance_count), modality FROM series "
            "WHERE study_row IN ({marks}) AND instance_count > 0 {seen}"
            "GROUP BY study_row, modality ORDER BY study_row, modality",
            ("NumberOfStudyRelatedSeries", "NumberOfStudyRelatedInstances", "ModalitiesInStudy"),
        ),
        (
            "SELECT DISTINCT series.study_row, instance.sop_class_uid FROM series "
            "JOIN instance ON instance.series_row = series.id WHERE series.study_row IN ({marks}) "
            "AND instance.delivered = 1 {seen}ORDER BY 1, 2",
            ("SOPClassesInStudy",),
        ),
    ),
    Level.SERIES: (
        (
            "SELECT id, instance_count FROM series WHERE id IN ({marks}) {seen}",
            ("NumberOfSeriesRelatedInstances",),
        ),
    ),
    Level.IMAGE: (),
}


def _found(level: Level, row: Sequence[Any], number: int, values: dict[str, str]) -> Found:
    if level is not Level.IMAGE:
        return Found(row=number, values=values, registrant=row[0], received_utc=row[1])
    name, object_id, size_bytes, offset, syntax = row[2 + len(_LEVELS) : 7 + len(_LEVELS)]
    return Found(
        row=number,
        values=values,
        registrant=row[0],
        received_utc=row[1],
        place=Place(
            name=name,
            object_id=ObjectId(object_id),
            size_bytes=int(size_bytes),
            data_set_offset=int(offset),
        ),
        transfer_syntax_uid=TransferSyntaxUID(syntax),
    )

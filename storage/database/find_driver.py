"""Which key a search begins with, and how the tables are joined outward from it.

SQLite's optimiser would fetch every patient named M* for a query of one day,
so keys are counted and the rarest drives. The counts are bounded: they say
which key is rarer, not how rare it is.
"""

from collections.abc import Callable, Sequence

from pacs.core.attributes import Level
from pacs.core.conditions import (
    AnyOf,
    Between,
    Condition,
    Like,
    ModalityInStudy,
    Named,
    StudyMoment,
    Under,
    level_of,
)
from pacs.core.text import literal_prefix
from storage.database.find_sql import (
    LOOKUPS,
    TABLES,
    Dialect,
    Sql,
    compile_condition,
    joined,
    name_parts,
    one_of,
)

_LINKS = {  # how a table hangs under the one above
    Level.STUDY: "study.patient_row = patient.id",
    Level.SERIES: "series.study_row = study.id",
    Level.IMAGE: "instance.series_row = series.id",
}
_COUNTED_ROWS = (1_000, 10_000, 100_000)
"""Keys are counted up to the first; where all have more, up to the next. The last costs 10 ms a key."""


def choose_driver(
    conditions: Sequence[Condition], count: Callable[[Sql], int], dialect: Dialect
) -> Condition | None:
    """Choose the key to begin with: the deepest unique one, else the rarest that has an index."""
    lookups = [one for one in conditions if _is_lookup(one)]
    if lookups:
        return max(lookups, key=lambda one: level_of(one).depth)
    counted = [one for one in conditions if _is_countable(one)]
    if not counted:
        # A name without a beginning is looked for among the patients: they are the fewest.
        return next((one for one in conditions if _is_patient_name(one)), None)
    if len(counted) == 1:
        return counted[0]
    for most in _COUNTED_ROWS:
        counts = [count(_bounded_count(one, conditions, dialect, most)) for one in counted]
        if min(counts) < most:
            break
    return counted[counts.index(min(counts))]


def join_tables(chain: Sequence[Level], driver: Level | Condition, dialect: Dialect) -> str:
    """Join the chain outward from ``driver``; SQLite keeps the order of a CROSS JOIN."""
    level = driver if isinstance(driver, Level) else level_of(driver)
    at = chain.index(level) if level in chain else 0
    join = "CROSS JOIN" if dialect == "sqlite" else "JOIN"
    text = TABLES[chain[at]]
    if isinstance(driver, ModalityInStudy):
        text = f"study_modality {join} study ON study.id = study_modality.study_row"
    for upper, lower in zip(reversed(chain[:at]), reversed(chain[1 : at + 1]), strict=True):
        text += f" {join} {TABLES[upper]} ON {_LINKS[lower]}"
    for lower in chain[at + 1 :]:
        text += f" {join} {TABLES[lower]} ON {_LINKS[lower]}"
    return text


def driving(
    driver: Condition | None, conditions: Sequence[Condition], dialect: Dialect
) -> list[Sql]:
    """What is said on top of the conditions, so that the driver's index is used as it can be."""
    if isinstance(driver, ModalityInStudy):
        return [_modality_and_days(driver, conditions)]
    if isinstance(driver, Named) and not driver.sounds and not _is_countable(driver):
        # Each column has an index that holds nothing else: a tenth of the table to read.
        selects = [
            Sql(f"SELECT patient.id FROM patient WHERE {one.text}", one.params)
            for one in name_parts(driver, dialect)
        ]
        inner = joined(selects, "UNION" if driver.any_group else "INTERSECT")
        return [Sql(f"patient.id IN {inner.text}", inner.params)] if selects else []
    return []


def repeats_rows(driver: Condition | None) -> bool:
    """Tell whether one row of the chain is met more than once on the way from the driver."""
    return isinstance(driver, ModalityInStudy) and len(driver.values) > 1


def _bounded_count(
    condition: Condition, conditions: Sequence[Condition], dialect: Dialect, most: int
) -> Sql:
    if isinstance(condition, ModalityInStudy):
        table, said = "study_modality", [_modality_and_days(condition, conditions)]
    elif isinstance(condition, Named):
        table = "patient"  # part by part, so that the indexes alone are read
        said = name_parts(condition, dialect) if condition.any_group else []
    else:
        table, said = TABLES[level_of(condition)], []
    said = said or [compile_condition(condition, dialect)]
    inner = " UNION ALL ".join(f"SELECT 1 FROM {table} WHERE {one.text}" for one in said)
    return Sql(
        f"SELECT COUNT(*) FROM (SELECT 1 FROM ({inner}) AS found LIMIT {most:d}) AS counted",
        tuple(value for one in said for value in one.params),
    )


def _modality_and_days(condition: ModalityInStudy, conditions: Sequence[Condition]) -> Sql:
    """One range of the table of modalities, dates and studies."""
    parts = [one_of("study_modality.modality", condition.values)]
    for one in conditions:
        low, high = _days(one)
        if low:
            parts.append(Sql("study_modality.study_date >= ?", (low,)))
        if high:
            parts.append(Sql("study_modality.study_date <= ?", (high,)))
    return joined(parts, "AND")


def _days(condition: Condition) -> tuple[str, str]:
    match condition:
        case Between(attribute=attribute, low=low, high=high):
            return (low, high) if attribute.keyword == "StudyDate" else ("", "")
        case StudyMoment(low=low, high=high):
            return low[:8], high[:8]
        case _:
            return "", ""


def _is_patient_name(condition: Condition) -> bool:
    return isinstance(condition, Named) and condition.attribute.keyword == "PatientName"


def _is_lookup(condition: Condition) -> bool:
    match condition:
        case AnyOf(attribute=attribute):
            return attribute.keyword in LOOKUPS
        case Under():
            return True
        case _:
            return False


def _is_countable(condition: Condition) -> bool:
    """Tell whether an index can tell how many rows keep a condition."""
    match condition:
        case Between(attribute=attribute):
            return attribute.keyword == "StudyDate"
        case Like(attribute=attribute, pattern=pattern):
            return attribute.keyword in LOOKUPS and bool(literal_prefix(pattern))
        case Named(groups=groups, any_group=any_group, sounds=sounds):
            patterns = groups[0] if any_group else tuple(one for group in groups for one in group)
            indexed = all(literal_prefix(one) for one in patterns)
            return _is_patient_name(condition) and indexed and not sounds
        case ModalityInStudy(patterns=patterns):
            return not patterns
        case StudyMoment():
            return True
        case _:
            return False

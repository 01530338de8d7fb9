"""The SQL of C-FIND conditions: one fragment with its parameters per condition.

Owns how a condition is said to SQLite and PostgreSQL and which keys may drive
a query. Tables are always named in full, so fragments can be joined freely. A
fragment may let more through than the condition, never less.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from pacs.core.attributes import Attribute, Level
from pacs.core.conditions import (
    AnyOf,
    Between,
    Condition,
    Like,
    ModalityInStudy,
    Named,
    Received,
    RegisteredBy,
    SOPClassInStudy,
    StudyMoment,
    Under,
)
from pacs.core.text import has_wildcard, literal_prefix, next_prefix

Dialect = Literal["sqlite", "postgresql"]
TABLES: dict[Level, str] = {
    Level.PATIENT: "patient",
    Level.STUDY: "study",
    Level.SERIES: "series",
    Level.IMAGE: "instance",
}
LOOKUPS = frozenset(
    {"PatientID", "StudyInstanceUID", "AccessionNumber", "SeriesInstanceUID", "SOPInstanceUID"}
)
"""The attributes whose index leads to a handful of rows."""
_NAME_COLUMNS = ("name_alphabetic", "name_ideographic", "name_phonetic")
_MAX_STARS = 6  # a longer pattern costs the matcher more than the rows it spares
_MAX_PATTERN = 1_000  # SQLite refuses patterns of 50,000 bytes


@dataclass(frozen=True, slots=True)
class Sql:
    """A fragment and its parameters, in order."""

    text: str
    params: tuple[object, ...] = ()


def joined(parts: list[Sql], word: str) -> Sql:
    """Join fragments with a word, in parentheses; no fragment is true for AND, false for OR."""
    if not parts:
        return Sql("1=1" if word == "AND" else "1=0")
    text = f" {word} ".join(part.text for part in parts)
    return Sql(f"({text})", tuple(one for part in parts for one in part.params))


def one_of(column: str, values: tuple[object, ...]) -> Sql:
    """``column`` equals one of ``values``."""
    return Sql(f"{column} IN ({', '.join('?' * len(values))})", values) if values else Sql("1=0")


def column_of(attribute: Attribute) -> str:
    """Full quoted name of the column that holds an attribute."""
    return f'{TABLES[attribute.level]}."{attribute.column}"'


def like(column: str, pattern: str, dialect: Dialect) -> Sql:
    """``column`` matches a DICOM pattern; its literal beginning is said as a range an index can use."""
    if not has_wildcard(pattern):
        return Sql(f"{column} = ?", (pattern,))
    prefix = literal_prefix(pattern)
    parts = [Sql(f"{column} >= ?", (prefix,))] if prefix else []
    above = next_prefix(prefix)
    if above is not None:
        parts.append(Sql(f"{column} < ?", (above,)))
    if pattern != prefix + "*":
        parts.append(_pattern(column, pattern, dialect))
    return joined(parts, "AND") if parts else Sql(f"{column} IS NOT NULL")


def _pattern(column: str, pattern: str, dialect: Dialect) -> Sql:
    if len(pattern) > _MAX_PATTERN or pattern.count("*") > _MAX_STARS + 2:
        return Sql(f"{column} IS NOT NULL")  # matching decides
    if dialect == "sqlite":
        return Sql(f"{column} GLOB ?", (pattern.replace("[", "[[]"),))
    escaped = pattern.replace("!", "!!").replace("%", "!%").replace("_", "!_")
    return Sql(f"{column} LIKE ? ESCAPE '!'", (escaped.replace("*", "%").replace("?", "_"),))


def compile_condition(condition: Condition, dialect: Dialect, held: Sequence[Sql] = ()) -> Sql:
    """Say one condition in SQL; what a study holds must be ``held``, a condition on its series."""
    if isinstance(condition, ModalityInStudy):
        return _modality(condition, dialect, held)
    if isinstance(condition, SOPClassInStudy):
        return _sop_class(condition, held)
    say: Callable[..., Sql] = _SAY[type(condition)]
    return say(condition, dialect)


def _any_of(condition: AnyOf, dialect: Dialect) -> Sql:
    column = column_of(condition.attribute)
    if not condition.attribute.multiple:
        return one_of(column, condition.values)
    framed = f"('\\' || {column} || '\\')"
    parts = [_pattern(framed, f"*\\{_literal(one)}\\*", dialect) for one in condition.values]
    return joined(parts, "OR")


def _literal(value: str) -> str:
    return value.replace("*", "?")  # lets more through where a value itself holds an asterisk


def _like(condition: Like, dialect: Dialect) -> Sql:
    column = column_of(condition.attribute)
    if not condition.attribute.multiple:
        return like(column, condition.pattern, dialect)
    return _pattern(f"('\\' || {column} || '\\')", f"*\\{condition.pattern}\\*", dialect)


def _between(condition: Between, dialect: Dialect) -> Sql:
    """Text order is the order of DA and TM values; what is cut short sorts first, as it means."""
    del dialect
    column = column_of(condition.attribute)
    is_time = condition.attribute.vr == "TM"
    low = condition.low.rstrip("0").rstrip(".").rstrip("0") if is_time else condition.low
    parts = [Sql(f"{column} >= ?", (low,))]
    if condition.high:
        parts.append(Sql(f"{column} <= ?", (condition.high,)))
    ordered = joined(parts, "AND")
    if condition.attribute.keyword == "StudyDate":
        return ordered  # drives queries, so its index must not be lost to an OR
    old_form = Sql(f"{column} LIKE '%:%'" if is_time else f"{column} LIKE '%.%'")
    return joined([ordered, old_form], "OR")


def _named(condition: Named, dialect: Dialect) -> Sql:
    if condition.attribute.keyword == "PatientName":
        return _patient_named(condition, dialect)
    if condition.attribute.keyword == "ReferringPhysicianName" and not condition.sounds:
        groups = "('\n' || study.referring_physician_name_key || '\n')"  # one line per group
        asked = [
            joined([_pattern(groups, f"*\n{one}\n*", dialect) for one in patterns], "OR")
            for patterns in condition.groups
            if patterns
        ]
        return joined(asked, "AND")
    return Sql(f"{column_of(condition.attribute)} IS NOT NULL")


def _patient_named(condition: Named, dialect: Dialect) -> Sql:
    literal = joined(name_parts(condition, dialect), "OR" if condition.any_group else "AND")
    if not condition.sounds:
        return literal
    sounds = [
        _pattern("patient.name_sounds", f"* {_literal(one)} *", dialect) for one in condition.sounds
    ]
    return joined([literal, joined(sounds, "AND")], "OR")


def name_parts(condition: Named, dialect: Dialect) -> list[Sql]:
    """Say a Patient Name column by column: any of them for ``any_group``, else all."""
    groups = [condition.groups[0]] * len(_NAME_COLUMNS) if condition.any_group else condition.groups
    return [
        _in_group(column, patterns, dialect)
        for column, patterns in zip(_NAME_COLUMNS, groups, strict=True)
        if patterns
    ]


def _in_group(name: str, patterns: tuple[str, ...], dialect: Dialect) -> Sql:
    column = f"patient.{name}"
    asked = [like(column, one, dialect) for one in patterns]
    if name != "name_alphabetic":  # their indexes leave the empty ones out
        asked = [joined([Sql(f"{column} <> ''"), one], "AND") for one in asked]
    return joined(asked, "OR")


def _study_moment(condition: StudyMoment, dialect: Dialect) -> Sql:
    """The dates are said too: they are what the index begins with."""
    del dialect
    parts: list[Sql] = []
    if condition.low:
        parts.append(Sql("study.study_date >= ?", (condition.low[:8],)))
        parts.append(Sql("study.study_moment >= ?", (condition.low,)))
    if condition.high:
        parts.append(Sql("study.study_date <= ?", (condition.high[:8],)))
        parts.append(Sql("study.study_moment <= ?", (condition.high,)))
    return joined(parts, "AND")


def _modality(condition: ModalityInStudy, dialect: Dialect, held: Sequence[Sql]) -> Sql:
    any_of = [one_of("held.modality", condition.values)] if condition.values else []
    any_of += [like("held.modality", one, dialect) for one in condition.patterns]
    inner = joined([joined(any_of, "OR"), *held], "AND") if held else joined(any_of, "OR")
    return Sql(
        "EXISTS (SELECT 1 FROM series AS held WHERE held.study_row = study.id "
        f"AND held.instance_count > 0 AND {inner.text})",
        inner.params,
    )


def _sop_class(condition: SOPClassInStudy, held: Sequence[Sql]) -> Sql:
    inner = one_of("piece.sop_class_uid", condition.values)
    if held:
        inner = joined([inner, *held], "AND")
    return Sql(
        "EXISTS (SELECT 1 FROM series AS held JOIN instance AS piece ON piece.series_row = held.id "
        f"WHERE held.study_row = study.id AND piece.delivered = 1 AND {inner.text})",
        inner.params,
    )


def _registered_by(condition: RegisteredBy, dialect: Dialect) -> Sql:
    return like(f"{TABLES[condition.level]}.registrant", condition.pattern, dialect)


def _received(condition: Received, dialect: Dialect) -> Sql:
    del dialect
    column = f"{TABLES[condition.level]}.received_utc"
    parts = [Sql(f"{column} >= ?", (condition.low_utc,))] if condition.low_utc else []
    if condition.high_utc:
        parts.append(Sql(f"{column} <= ?", (condition.high_utc,)))
    return joined(parts, "AND")


def _under(condition: Under, dialect: Dialect) -> Sql:
    del dialect
    return Sql(f"{TABLES[condition.level]}.id = ?", (condition.row,))


_SAY: dict[type, Callable[..., Sql]] = {
    AnyOf: _any_of,
    Like: _like,
    Between: _between,
    Named: _named,
    StudyMoment: _study_moment,
    RegisteredBy: _registered_by,
    Received: _received,
    Under: _under,
}

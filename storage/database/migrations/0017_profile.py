"""Processing profiles, and the files that no profile's tidying may delete.

``tidies_since_utc`` is when a profile began to give up what is sent to it: what came
before was sent under another promise. ``profile_spared`` names kept files that came once more, and
under which profile's AE title, empty for any other; only here is that known, as what is held
already leaves no file. ``tidies_since_utc`` begins anew whenever the profile is enabled.
"""

from typing import Any

_TEXT = {"sqlite": "TEXT", "postgresql": 'TEXT COLLATE "C"'}
_STATEMENTS = (
    """CREATE TABLE profile (
        ae_title {TEXT} PRIMARY KEY,
        active INTEGER NOT NULL DEFAULT 1,
        definition {TEXT} NOT NULL,
        tidies_since_utc {TEXT},
        added_utc {TEXT} NOT NULL)""",
    """CREATE TABLE profile_spared (
        object_id {TEXT} NOT NULL,
        ae_title {TEXT} NOT NULL,
        noted_utc {TEXT} NOT NULL,
        PRIMARY KEY (object_id, ae_title))""",
)


def up(migrator: object, db: Any) -> None:
    text = _TEXT["sqlite" if db.param == "?" else "postgresql"]
    for statement in _STATEMENTS:
        db.execute_sql(statement.format(TEXT=text))

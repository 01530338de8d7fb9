"""The number that grows with every change an admin makes while serving."""

from storage.database.connection import Database


def bump_revision(database: Database) -> None:
    """Tell every process, within a second, that something changed. Within a transaction."""
    database.write("UPDATE revision SET number = number + 1 WHERE id = 1")

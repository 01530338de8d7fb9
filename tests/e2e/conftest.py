"""Both databases for every end-to-end test that asks: SQLite in home, or a PostgreSQL of our own."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.archive import database


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def new_database(request: pytest.FixtureRequest) -> Iterator[Callable[[], str]]:
    """Give the URL of an empty database at each call."""
    if request.param == "sqlite":
        yield lambda: ""
        return
    cluster = request.getfixturevalue("postgres_cluster")
    with ExitStack() as stack:
        yield lambda: stack.enter_context(database(cluster))

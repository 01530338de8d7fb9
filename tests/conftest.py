"""Fixtures every folder shares: foreign tools, sample files and a PostgreSQL of our own."""

import logging
import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests import peers
from tests.postgres import cluster

REPOSITORY = Path(__file__).resolve().parent.parent
MOST_DESCRIPTORS = 256


@pytest.fixture(autouse=True, scope="session")
def _no_settings_of_the_machine() -> Iterator[None]:
    """Keep overrides of the person who runs the tests out of them."""
    own = {name for name in os.environ if name.startswith("PACS_") and "__" in name} | {"PACS_HOME"}
    with pytest.MonkeyPatch.context() as patch:
        for name in own:
            patch.delenv(name, raising=False)
        yield


@pytest.fixture(autouse=True)
def _no_log_of_another_test() -> Iterator[None]:
    """Take away the log handlers a test leaves: they write where nobody listens any more."""
    root = logging.getLogger()
    before = list(root.handlers)
    yield
    for left in [one for one in root.handlers if one not in before]:
        if not type(left).__module__.startswith("_pytest"):
            root.removeHandler(left)


@pytest.fixture(autouse=True, scope="module")
def _no_descriptors_left_open() -> Iterator[None]:
    """Fail where files stay open: ``select``, which pynetdicom waits with, takes none above 1,023."""
    yield
    left = [one.readlink() for one in Path("/proc/self/fd").iterdir() if one.is_symlink()]
    assert len(left) < MOST_DESCRIPTORS, sorted(map(str, left))[-20:]


@pytest.fixture(scope="session")
def peer_tool() -> Callable[[str], str]:
    """Find a foreign tool; skip when it is missing, fail where peers are required."""

    def find(tool: str) -> str:
        path = peers.find(tool)
        if path is None:
            stop = pytest.fail if peers.required() else pytest.skip
            stop(peers.reason(tool))
        return path

    return find


@pytest.fixture(scope="session")
def samples() -> Path:
    """Give the folder of real sample files: $PACS_SAMPLES or ../shared/samples; skip without."""
    folder = Path(os.environ.get("PACS_SAMPLES", REPOSITORY.parent / "shared" / "samples"))
    if not folder.is_dir():
        pytest.skip("no sample files: set PACS_SAMPLES to a folder of DICOM files")
    return folder


@pytest.fixture(scope="session")
def postgres_cluster(peer_tool: Callable[[str], str]) -> Iterator[str]:
    """Run one PostgreSQL cluster for the whole session; yield its address."""
    with cluster(peer_tool("initdb"), peer_tool("pg_ctl")) as address:
        yield address


@pytest.fixture
def postgres_url(postgres_cluster: str) -> Iterator[str]:
    """Make an empty PostgreSQL database for one test; yield its URL."""
    import psycopg

    name = f"test_{uuid.uuid4().hex}"
    with psycopg.connect(f"{postgres_cluster}/postgres", autocommit=True) as admin:
        admin.execute(f'CREATE DATABASE "{name}"')
    yield f"{postgres_cluster}/{name}"
    with psycopg.connect(f"{postgres_cluster}/postgres", autocommit=True) as admin:
        admin.execute(f'DROP DATABASE "{name}" WITH (FORCE)')

"""An extension from another distribution: settings, tables, arrival rules, a service class and commands."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec import Struct
from pynetdicom import AE

from config.load import SettingsRefused, load
from pacs.app.archive import Archive, open_archive
from pacs.app.extension import Attached, Extension
from pacs.app.home import initialize
from pacs.app.listening import listening
from pacs.association.message import Offer, Operation, Request, Response
from pacs.core.caller import Right
from pacs.core.records import Arrival, Job, Snapshot
from scp.service_class import ServiceClass
from tests.keeping import data_set, keep, loaded_for, opened

PRIVATE_ECHO = "1.2.826.0.1.3680043.10.1.1"
REPOSITORY = Path(__file__).resolve().parents[2]


class Tally(Struct, frozen=True, forbid_unknown_fields=True):
    """The table of the extension in pacs.toml."""

    kind: str = "count"


def answer(_: Request) -> Iterator[Response]:
    yield Response(status=0x0000)


def attach(archive: Archive, settings: Tally) -> Attached:
    def rule(arrival: Arrival, snapshot: Snapshot) -> Iterable[Job]:
        uid = arrival.instance.header.sop_instance_uid
        if uid.endswith(".13"):
            raise ValueError("a rule that fails")
        yield Job(kind=settings.kind, payload=uid)

    service = ServiceClass(
        name="Tally",
        standard="private",
        offers=(Offer(sop_classes={PRIVATE_ECHO: "Tally"}),),
        operations={Operation.C_ECHO: answer},
        rights={Operation.C_ECHO: Right.CONNECT},
    )
    return Attached(service_classes=(service,), on_arrival=(rule,), close=CLOSED.set)


CLOSED = threading.Event()
TALLY = Extension(name="tally", attach=attach, settings=Tally)


def jobs(archive: Archive) -> list[tuple[str, str]]:
    return [tuple(row) for row in archive.database.execute("SELECT kind, payload FROM job")]


def test_an_arrival_rule_asks_for_jobs_in_the_transaction_of_the_rows(
    url: str, tmp_path: Path
) -> None:
    CLOSED.clear()
    with opened(tmp_path, url, extensions=(TALLY,)) as archive:
        keep(archive, data_set("1.1", "1.1.1", "1.1.1.1"))
        keep(archive, data_set("1.1", "1.1.1", "1.1.1.1"))
        assert jobs(archive) == [("count", "1.1.1.1")], "what is held already does not arrive"
        with pytest.raises(ValueError, match="a rule that fails"):
            keep(archive, data_set("1.1", "1.1.1", "1.1.1.13"))
        assert jobs(archive) == [("count", "1.1.1.1")]
        counted = archive.database.execute("SELECT COUNT(*) FROM instance")
        assert next(counted)[0] == 1, "neither rows"
        assert len(list((tmp_path / "store").rglob("*.dcm"))) == 1, "nor file without its jobs"
        assert not CLOSED.is_set()
    assert CLOSED.is_set()


def test_its_service_class_is_negotiated(tmp_path: Path) -> None:
    with opened(tmp_path, extensions=(TALLY,)) as archive, listening(archive) as port:
        entity = AE(ae_title="PEER")
        entity.add_requested_context(PRIVATE_ECHO)
        association = entity.associate("127.0.0.1", port)
        assert association.is_established
        assert [one.abstract_syntax for one in association.accepted_contexts] == [PRIVATE_ECHO]
        association.release()


def test_its_table_of_settings_is_read_and_checked(tmp_path: Path) -> None:
    (tmp_path / "pacs.toml").write_text('[tally]\nkind = "number"\n')
    loaded = load(tmp_path, {"PACS_STORAGE__RESERVE_BYTES": "0"}, {"tally": Tally})
    initialize(tmp_path, loaded)
    with open_archive(tmp_path, loaded, extensions=(TALLY,)) as archive:
        keep(archive, data_set("1.1", "1.1.1", "1.1.1.1"))
        assert jobs(archive) == [("number", "1.1.1.1")]
    (tmp_path / "pacs.toml").write_text('[tally]\nkinds = "number"\n')
    with pytest.raises(SettingsRefused, match="tally"):
        load(tmp_path, {}, {"tally": Tally})
    with pytest.raises(SettingsRefused, match="tally"):
        load(tmp_path, {}, {})


def test_its_tables_are_made(url: str, tmp_path: Path) -> None:
    scripts = tmp_path / "scripts"
    scripts.mkdir()
    (scripts / "0001_first.py").write_text(
        "def up(migrator, db):\n    db.execute_sql('CREATE TABLE tally_count (n BIGINT)')\n"
    )
    made = Extension(name="tally", attach=attach, settings=Tally, migrations=scripts)
    for _ in range(2):
        initialize(tmp_path, loaded_for(tmp_path, url), (made,))
    with opened(tmp_path, url, extensions=(made,)) as archive:
        assert next(archive.database.execute("SELECT COUNT(*) FROM tally_count"))[0] == 0


# --- installed beside us, as another distribution ---------------------------------------

_MODULE = '''
import click
from pacs.app.extension import Attached, Extension

@click.command()
def tally() -> None:
    """Count."""
    click.echo("counted")

EXTENSION = Extension(
    name="tally", attach=lambda archive, settings: Attached(), commands={"tally": "tallying:tally"}
)
'''


def installed(folder: Path, target: str) -> Path:
    """Lay a distribution with one entry point into ``folder``."""
    information = folder / "tallying-1.0.dist-info"
    information.mkdir(parents=True)
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: tallying\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text(f"[pacs.extensions]\ntally = {target}\n")
    (folder / "tallying.py").write_text(_MODULE)
    return folder


def pacs(home: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    named: dict[str, Any] = {
        "PACS_HOME": str(home),
        "PYTHONPATH": f"{REPOSITORY}{os.pathsep}{folder}",
    }
    return subprocess.run(
        [sys.executable, "-m", "pacs.cli.main", *arguments],
        env={**os.environ, **named},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_an_installed_extension_brings_its_command(tmp_path: Path) -> None:
    folder = installed(tmp_path / "site", "tallying:EXTENSION")
    assert pacs(tmp_path / "home", folder, "init").returncode == 0
    done = pacs(tmp_path / "home", folder, "tally")
    assert (done.returncode, done.stdout) == (0, "counted\n")
    assert "tally" in pacs(tmp_path / "home", folder, "--help").stdout
    assert pacs(tmp_path / "home", folder, "stats").returncode == 0


@pytest.mark.parametrize(
    ("target", "said"),
    [("tallying:tally", "tally is not a pacs Extension"), ("nowhere:EXTENSION", "nowhere")],
)
def test_a_broken_one_is_refused_clearly(tmp_path: Path, target: str, said: str) -> None:
    folder = installed(tmp_path / "site", target)
    done = pacs(tmp_path / "home", folder, "init")
    assert done.returncode in (1, 2)
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "home" / "store").exists()

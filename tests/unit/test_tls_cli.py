"""``pacs tls`` makes what the settings look for, overwrites nothing, and says what is configured."""

import json
import ssl
from pathlib import Path

import pytest
from cryptography import x509

from config.settings import Tls
from pacs.app.serve import open_doors
from pacs.association.tls import client_context, server_context
from pacs.cli import main
from pacs.core.errors import SettingsInvalid
from pacs.services import tls as making
from tests.keeping import loaded_for


@pytest.fixture(autouse=True)
def _quick_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(making, "CA_KEY_BITS", making.KEY_BITS)


def pacs(home: Path, *arguments: str) -> int:
    return main.run(["--home", str(home), *arguments])


def test_what_is_made_is_what_the_settings_look_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert pacs(tmp_path, "tls", "init", "--host", "pacs.example", "--host", "192.0.2.7") == 0
    assert pacs(tmp_path, "tls", "client", "CT-1", "--days", "10") == 0
    server_context(Tls(), tmp_path)
    client_context(Tls(), tmp_path)
    made = x509.load_pem_x509_certificate((tmp_path / "tls/server.pem").read_bytes())
    names = made.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [one.value for one in names] == ["pacs.example", names[1].value]
    assert str(names[1].value) == "192.0.2.7"
    keys = sorted((tmp_path / "tls").rglob("*.key"))
    assert {one.stat().st_mode & 0o777 for one in keys} == {0o600}
    assert [one.name for one in keys] == ["ca.key", "CT-1.key", "server.key"]
    capsys.readouterr()
    assert pacs(tmp_path, "tls", "show", "--json") == 0
    said = capsys.readouterr()
    rows = json.loads(said.out)
    assert [one["what"] for one in rows] == ["tls.certificate", "tls.trusted", "client made here"]
    assert rows[2]["subject"] == "CN=CT-1"
    assert all(len(one["fingerprint"]) == 64 for one in rows)
    assert "nothing is served" in said.err


def test_what_is_made_is_verified_against_its_ca(tmp_path: Path) -> None:
    assert pacs(tmp_path, "tls", "init", "--host", "localhost") == 0
    server, client = server_context(Tls(), tmp_path), client_context(Tls(), tmp_path)
    client.check_hostname = True
    ends = [ssl.MemoryBIO() for _ in range(2)]
    serving = server.wrap_bio(ends[0], ends[1], server_side=True)
    calling = client.wrap_bio(ends[1], ends[0], server_hostname="localhost")
    done = set()
    for _ in range(4):
        for one in (calling, serving):
            try:
                one.do_handshake()
                done.add(one)
            except ssl.SSLWantReadError:
                continue
    assert done == {serving, calling}
    assert calling.version() == "TLSv1.3"


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    assert pacs(tmp_path, "tls", "client", "EARLY") == 1  # no CA yet
    assert pacs(tmp_path, "tls", "init") == 0
    assert pacs(tmp_path, "tls", "client", "ONE") == 0
    before = {one: one.read_bytes() for one in tmp_path.rglob("*") if one.is_file()}
    assert pacs(tmp_path, "tls", "init") == 1
    assert pacs(tmp_path, "tls", "client", "ONE") == 1
    assert {one: one.read_bytes() for one in tmp_path.rglob("*") if one.is_file()} == before


@pytest.mark.parametrize("name", ["../ONE", "", "a b", ".hidden", "x" * 65])
def test_no_name_leaves_the_folder(tmp_path: Path, name: str) -> None:
    assert pacs(tmp_path, "tls", "init") == 0
    before = sorted(tmp_path.rglob("*"))
    assert pacs(tmp_path, "tls", "client", name) == 2
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("host", ["a b", "münchen"])
def test_a_host_that_is_none_is_refused(tmp_path: Path, host: str) -> None:
    assert pacs(tmp_path, "tls", "init", "--host", host) == 2


def test_somebody_must_be_able_to_come(tmp_path: Path) -> None:
    settings = loaded_for(tmp_path, tls__plain="false").settings
    with pytest.raises(SettingsInvalid, match="nobody could come"):
        open_doors(settings, tmp_path)

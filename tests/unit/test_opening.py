"""Serving beyond loopback: only where somebody can be told from everybody else, and not in silence."""

import logging
from datetime import UTC, datetime, timedelta

import pytest

from config.settings import Dicom, Settings
from pacs.app.gate import identifies_somebody, refuse_strangers, warn_of_plain_text
from pacs.core.contract import ContractState
from pacs.core.errors import SettingsInvalid
from tests.legitimacy import FINGERPRINT, Book, contract, device, user

EVERYWHERE = Settings(dicom=Dicom(host="0.0.0.0"))
YESTERDAY, TOMORROW = (datetime.now(UTC) + timedelta(days=days) for days in (-1, 1))
SUSPENDED = contract(state=ContractState.SUSPENDED)


@pytest.mark.parametrize(
    "entries",
    [
        (contract(), device()),
        (contract(), device(networks=("10.0.0.0/8",))),
        (contract(), device(certificate_fingerprint=FINGERPRINT)),
        (contract(), user()),
        (contract(begins_utc=YESTERDAY, ends_utc=TOMORROW), device()),
        (SUSPENDED, contract("beta"), device(), user(owner="beta")),
    ],
)
def test_one_active_contract_with_a_device_or_a_user_opens(entries: tuple[object, ...]) -> None:
    book = Book(*entries)  # type: ignore[arg-type]  # each is what a book takes
    assert identifies_somebody(book.snapshot)
    refuse_strangers(EVERYWHERE, book.snapshot)


@pytest.mark.parametrize(
    "entries",
    [
        (),
        (device(owner=None),),
        (contract(),),
        (contract(), device(owner=None)),
        (contract(), device(owner="beta")),
        (SUSPENDED, device(), user()),
        (contract(state=ContractState.PENDING), device()),
        (contract(ends_utc=YESTERDAY), device(), user()),
        (contract(begins_utc=TOMORROW), device(), user()),
        (contract(), user(named=True)),
    ],
)
@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "archive.example"])
def test_without_one_only_loopback_is_served(host: str, entries: tuple[object, ...]) -> None:
    snapshot = Book(*entries).snapshot  # type: ignore[arg-type]  # each is what a book takes
    with pytest.raises(SettingsInvalid, match=r"pacs subscriber add .+ && pacs peer add"):
        refuse_strangers(Settings(dicom=Dicom(host=host)), snapshot)
    for near in ("127.0.0.1", "::1", "localhost"):
        refuse_strangers(Settings(dicom=Dicom(host=near)), snapshot)


@pytest.mark.parametrize(
    ("host", "tls", "warned"),
    [("0.0.0.0", False, True), ("0.0.0.0", True, False), ("127.0.0.1", False, False)],
)
def test_plain_text_on_a_network_is_warned_of(
    host: str, tls: bool, warned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "pacs.serve"):
        warn_of_plain_text(host, tls=tls)
    assert ("serving-without-tls" in caplog.text) is warned

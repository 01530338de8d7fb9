"""The trail on its way to a collector: a real rsyslog over TLS, one that dies, one that never reads."""

import logging
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from config.settings import Audit
from pacs.observe.audit import FileAuditTrail
from pacs.observe.audit.sender import Sender, noted
from tests.auditing import (
    PATIENCE_S,
    SOURCE,
    Papers,
    Rsyslog,
    checked,
    details,
    event_of,
    never_reading,
    papers,
    sending,
    stored,
    trail,
    until,
)


@pytest.fixture(scope="module")
def signed(tmp_path_factory: pytest.TempPathFactory) -> Papers:
    return papers(tmp_path_factory.mktemp("papers"))


@pytest.fixture
def collector(tmp_path: Path, signed: Papers, peer_tool: Callable[[str], str]) -> Iterator[Rsyslog]:
    folder = tmp_path / "rsyslog"
    folder.mkdir()
    one = Rsyslog(peer_tool("rsyslogd"), folder, signed)
    one.start()
    yield one
    one.stop()


@contextmanager
def sender_of(one: FileAuditTrail, settings: Audit) -> Iterator[Sender]:
    with closing(Sender(one.folder, one.keep.folder, settings, SOURCE)) as sender:
        yield sender


def all_taken(sender: Sender, number: int) -> bool:
    """Give the sender its turns until so many records count as taken."""

    def taken() -> bool:
        sender.turn()
        return sender.sent.spot.number >= number

    return until(taken)


def covered(collector: Rsyslog) -> set[int]:
    """The numbers of the records that arrived, however often."""
    found: set[int] = set()
    for root in collector.messages():
        first, _, last = details(root).get("SpoolRecords", "0-0").partition("-")
        found.update(range(int(first), int(last) + 1))
    return found


def test_rsyslog_gets_every_record_once(tmp_path: Path, signed: Papers, collector: Rsyslog) -> None:
    settings = sending(collector.port, signed, fold_quiet_s=2.0)
    with trail(tmp_path / "home", settings) as one, sender_of(one, settings) as sender:
        one.record("started", None)
        stored(one, 5, "1.2.3")
        stored(one, 2, "1.2.4")
        one.record("peer-changed", None, peer='ÄÖÜ <&> "quoted"')
        assert all_taken(sender, 9)
        sender.finish()
    assert until(lambda: len(collector.messages()) == 4)
    events = sorted(event_of(root)[0] for root in collector.messages())
    assert events == [
        "Application Activity",
        "DICOM Instances Transferred",
        "DICOM Instances Transferred",
        "Security Alert",
    ]
    counts = [details(root).get("NumberOfInstances") for root in collector.messages()]
    assert sorted(one for one in counts if one) == ["2", "5"]


@pytest.mark.parametrize("kill", [False, True], ids=["ended", "killed"])
def test_a_collector_that_restarts_in_the_middle_gets_every_record(
    tmp_path: Path, signed: Papers, collector: Rsyslog, kill: bool
) -> None:
    settings = sending(collector.port, signed, most_unconfirmed=50)
    with trail(tmp_path / "home", settings) as one, sender_of(one, settings) as sender:
        for study in range(200):
            one.record("conflict-settled", None, study=f"1.2.{study}")
        assert until(lambda: sender.turn() is not None and len(covered(collector)) >= 20)
        collector.stop(kill=kill)
        for study in range(100):
            one.record("conflict-settled", None, study=f"1.3.{study}")
        for _ in range(5):
            sender.turn()
            time.sleep(0.02)
        collector.start()
        assert all_taken(sender, 300)
        sender.finish()
    assert until(lambda: covered(collector) >= set(range(1, 301)))
    repeated = len(collector.messages()) - 300
    assert 0 <= repeated <= 2 * 256 + 50, "repeated is what did not count as taken, no more"


_SENDING = """
import sys, time
from pathlib import Path
import msgspec
from config.settings import Audit
from pacs.observe.audit.sender import Sender
from tests.auditing import SOURCE
home = Path(sys.argv[1])
settings = msgspec.json.decode(sys.argv[2], type=Audit)
sender = Sender(home / "audit", home / "audit-chain", settings, SOURCE)
while True:
    sender.turn()
    time.sleep(0.005)
"""


def test_a_sender_that_is_killed_goes_on_where_it_was(
    tmp_path: Path, signed: Papers, collector: Rsyslog
) -> None:
    import msgspec

    home = tmp_path / "home"
    settings = sending(collector.port, signed, most_unconfirmed=40)
    told = msgspec.json.encode(settings).decode()
    with trail(home, settings) as one:
        for _ in range(2):
            for study in range(100):
                one.record("conflict-settled", None, study=f"1.2.{study}")
            child = subprocess.Popen([sys.executable, "-c", _SENDING, str(home), told])
            seen = len(covered(collector))
            assert until(lambda seen=seen: len(covered(collector)) > seen)  # type: ignore[misc]  # mypy: default
            child.send_signal(signal.SIGKILL)
            child.wait(PATIENCE_S)
        with sender_of(one, settings) as sender:
            assert sender.sent == noted(one.keep.folder)
            assert all_taken(sender, 200)
            sender.finish()
    assert until(lambda: covered(collector) >= set(range(1, 201)))


def test_without_a_collector_attempts_are_few_and_nothing_is_lost(
    tmp_path: Path, signed: Papers, collector: Rsyslog, caplog: pytest.LogCaptureFixture
) -> None:
    collector.stop()
    settings = sending(collector.port, signed, retry_first_s=0.2, retry_max_s=0.4)
    with trail(tmp_path / "home", settings) as one, sender_of(one, settings) as sender:
        stored(one, 3)
        with caplog.at_level(logging.WARNING):
            begun_s = time.monotonic()
            for _ in range(1_000):
                sender.turn()
            took_s = time.monotonic() - begun_s
        failures = sender.sent.failures
        assert failures >= 1
        assert (
            len([each for each in caplog.records if "audit-not-sent" in each.message]) == failures
        )
        assert failures <= 2 + took_s / 0.1, "it waits between two attempts"
        assert sender.sent.spot.number == 0
        collector.start()
        assert all_taken(sender, 3)
        assert sender.sent.failures == 0


def test_a_collector_that_never_reads_slows_no_record(tmp_path: Path, signed: Papers) -> None:
    """The sender stands still; who writes records does not notice."""
    with never_reading(signed) as port:
        settings = sending(port, signed, timeout_s=0.3)
        with trail(tmp_path / "home", settings) as one, sender_of(one, settings) as sender:
            for study in range(3_000):
                one.record("conflict-settled", None, study=f"1.2.{study}", padding="x" * 1_000)
            assert until(lambda: sender.turn() is None or sender.sent.failures >= 1)
            assert "timed out" in sender.sent.why
            head = one.keep.head()
            assert head is not None and (head.number, head.missed) == (3_000, 0)


def test_a_collector_whose_certificate_nobody_signed_gets_nothing(
    tmp_path: Path, signed: Papers, collector: Rsyslog
) -> None:
    others = tmp_path / "others"
    others.mkdir()
    settings = sending(collector.port, papers(others))
    with trail(tmp_path / "home", settings) as one, sender_of(one, settings) as sender:
        stored(one, 1)
        assert until(lambda: sender.turn() is None or sender.sent.failures >= 1)
        assert "certificate" in sender.sent.why.lower()
    assert collector.messages() == []


def test_the_checker_of_these_tests_refuses_what_the_schema_does() -> None:
    with pytest.raises(AssertionError):
        checked(b"<AuditMessage/>")
    with pytest.raises(AssertionError):
        checked(b'<AuditMessage><EventIdentification EventDateTime="x"/></AuditMessage>')

"""The log holds events and places, never what a library quotes from a Data Set."""

import io
import json
import logging
import warnings
from collections.abc import Iterator

import pytest
import structlog

from config.settings import Logging
from pacs.observe import log


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level, shown = list(root.handlers), root.level, warnings.showwarning
    levels = {name: logging.getLogger(name).level for name in log.QUIET_LIBRARIES}
    yield
    root.handlers, warnings.showwarning = handlers, shown
    root.setLevel(level)
    for name, before in levels.items():
        logging.getLogger(name).setLevel(before)
    structlog.reset_defaults()


def configured(**settings: str) -> io.StringIO:
    stream = io.StringIO()
    log.configure(Logging(**settings), stream)  # type: ignore[arg-type]  # literals come as text
    return stream


def test_structlog_and_standard_logging_share_one_form() -> None:
    stream = configured(format="json")
    structlog.get_logger("scp").info("stored", association="a1", size_bytes=5)
    logging.getLogger("storage").warning("slow %s", "disk")
    first, second = (json.loads(line) for line in stream.getvalue().splitlines())
    assert (first["event"], first["association"], first["level"]) == ("stored", "a1", "info")
    assert (second["event"], second["logger"], second["level"]) == (
        "slow disk",
        "storage",
        "warning",
    )
    assert first["timestamp"].endswith("Z")


def test_text_is_one_line_per_event() -> None:
    stream = configured()
    structlog.get_logger("scp").info("stored", note="two\nlines")
    assert stream.getvalue().count("\n") == 1
    assert "event='stored'" in stream.getvalue()


def test_what_is_below_the_level_is_not_logged() -> None:
    stream = configured(level="warning")
    structlog.get_logger("scp").info("stored")
    assert stream.getvalue() == ""


@pytest.mark.parametrize("name", log.QUIET_LIBRARIES)
def test_libraries_print_no_data_set_even_when_debugging(name: str) -> None:
    stream = configured(level="debug")
    logging.getLogger(f"{name}.any").info("(0010,0010) PN [DOE^JANE]")
    logging.getLogger(f"{name}.any").debug("(0010,0010) PN [DOE^JANE]")
    assert stream.getvalue() == ""


def test_a_value_quoted_in_a_warning_or_an_error_does_not_reach_the_log() -> None:
    stream = configured(level="debug", format="json")
    try:
        raise ValueError("DOE^JANE")
    except ValueError:
        logging.getLogger("pydicom").exception("Invalid value for VR PN: 'DOE^JANE'")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = log._note_warning
        warnings.warn("Invalid value for VR PN: 'DOE^JANE'", UserWarning, stacklevel=1)
    written = stream.getvalue()
    assert "DOE" not in written
    assert "library_message at test_log.py" in written
    assert "python_warning UserWarning at test_log.py" in written

"""The log: one configuration for our events and everybody else's. It never holds patient data.

Lines go to standard error, as text or JSON. What libraries say about values
they read is reduced to where they said it: pydicom quotes values in its
warnings, and values are patient data.
"""

import logging
import sys
import warnings
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any, TextIO

import structlog

from config.settings import Logging

QUIET_LIBRARIES = ("pynetdicom", "pydicom")
"""Never below WARNING, whatever our own level: below it they print Data Sets."""

QUOTING_LIBRARY = "pydicom"
"""Its messages may quote element values at any level."""

Event = MutableMapping[str, Any]


def configure(settings: Logging, stream: TextIO | None = None) -> None:
    """Send every log line of this process to ``stream`` (standard error) in the settings' form."""
    level = logging.getLevelNamesMapping()[settings.level.upper()]
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(_formatter(settings))
    handler.addFilter(_without_values)
    logging.basicConfig(handlers=[handler], level=level, force=True)
    for name in QUIET_LIBRARIES:
        logging.getLogger(name).setLevel(max(level, logging.WARNING))
    warnings.showwarning = _note_warning
    structlog.configure(
        processors=[*_common(), structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )


def _common() -> list[structlog.typing.Processor]:
    return [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]


def _formatter(settings: Logging) -> logging.Formatter:
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer(ensure_ascii=False)
        if settings.format == "json"
        else structlog.processors.KeyValueRenderer(
            key_order=["timestamp", "level", "event"], sort_keys=True
        )
    )
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=_common(),
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
    )


def _without_values(record: logging.LogRecord) -> bool:
    """Keep where a quoting library spoke, not what it said."""
    if record.name.split(".")[0] == QUOTING_LIBRARY:
        record.msg = "library_message at %s:%s"
        record.args = (Path(record.pathname).name, record.lineno)
        record.exc_info = record.exc_text = record.stack_info = None
    return True


def _note_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Log that Python warned, and where; the text may quote a value."""
    del message, file, line
    logging.getLogger("py.warnings").warning(
        "python_warning %s at %s:%s", category.__name__, Path(filename).name, lineno
    )

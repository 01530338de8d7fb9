"""Who reduces images on their way out, put together for one process when the first one is reduced."""

import threading
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from config.settings import Settings
from pacs.core.errors import ProcessingFailed
from pacs.core.processing import Processor

if TYPE_CHECKING:
    from processing.datasets.process import SandboxedProcessor


class Reducer:
    """Gives the processor; until it is asked, nothing of image processing is loaded or started.

    For any number of threads; to be asked after forking. One image takes no longer than a
    conversion for a receiver may: somebody waits for it.
    """

    def __init__(self, settings: Settings, scratch: Path) -> None:
        timeout_s = min(settings.process.timeout_s, settings.retrieve.transcode_timeout_s)
        self._settings = msgspec.structs.replace(settings.process, timeout_s=timeout_s)
        self._scratch = scratch
        self._lock = threading.Lock()
        self._processor: SandboxedProcessor | None = None
        self._closed = False

    def __call__(self) -> Processor:
        """Give it. Raises ``ProcessingFailed`` once it is closed."""
        from processing.datasets.process import SandboxedProcessor

        with self._lock:
            if self._closed:
                raise ProcessingFailed("the archive is being closed")
            if self._processor is None:
                self._processor = SandboxedProcessor(self._settings, self._scratch)
            return self._processor

    def close(self) -> None:
        """End its workers, if there are any. Work under way fails."""
        with self._lock:
            self._closed = True
            processor, self._processor = self._processor, None
        if processor is not None:
            processor.close()

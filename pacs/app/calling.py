"""What calling a peer needs of the archive's parts, without opening an archive."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from config.settings import Retrieve
from pacs.core.sending_ports import Transcoder
from processing.datasets.transcode import SandboxedTranscoder


@contextmanager
def transcoding(bounds: Retrieve) -> Iterator[Transcoder]:
    """Give a transcoder with a folder of its own, so that no server sweeps it meanwhile."""
    with tempfile.TemporaryDirectory(prefix="pacs-send-") as folder:
        transcoder = SandboxedTranscoder(bounds, Path(folder))
        try:
            yield transcoder
        finally:
            transcoder.close()

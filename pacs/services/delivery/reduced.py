"""Images above a bound of pixel density, made smaller on their way out. PS3.3 Sections C.7.6.1.1.2, C.7.6.2.

Owns what a reduced image is called and how small it gets: both Rows and Columns
within the bound, in the shape of its source, one and the same object whenever it
is made. Refuses to hold any: it lives as long as it is being sent. The bound
limits what may be seen, so no right to have images processed is asked for.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from pydicom.filereader import read_dataset

from pacs.core.errors import ProcessingFailed, ProcessingRefused, ProcessingUnknown
from pacs.core.identifiers import ObjectId, SOPClassUID, derived_uid, object_id_time_ms
from pacs.core.processing import DerivedImage, ProcessingRequest, Processor, StoredImage
from pacs.core.records import Held, Payload
from pacs.services.delivery.payloads import Preparation

OPERATION: Final = "resize"
SECONDARY_CAPTURE: Final = SOPClassUID("1.2.840.10008.5.1.4.1.1.7")
"""What becomes of an image whose class cannot say what the reduced one is: palettes, for one."""
_ROWS: Final = 0x00280010
_COLUMNS: Final = 0x00280011
_REFUSALS = (ProcessingRefused, ProcessingFailed, ProcessingUnknown)

GetProcessor = Callable[[], Processor]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reduced:
    """What one reduction was: the Data Set it was made of, and how long it took."""

    size_bytes: int
    duration_ms: int


class Reduction:
    """What one retrieve reduces, to at most ``max_matrix`` Rows and Columns; for any number of threads.

    ``sides_px`` are the greater of Rows and Columns of what is above it, by kept file.
    """

    def __init__(
        self, processor: GetProcessor, max_matrix: int, sides_px: Mapping[ObjectId, int]
    ) -> None:
        self._processor = processor
        self._max_matrix = max_matrix
        self._sides_px = sides_px
        self._done: dict[ObjectId, Reduced] = {}

    @property
    def preparation(self) -> Preparation:
        """How delivery has it done, ahead of its turn."""
        return Preparation(make=self._made, applies=self.applies, sop_classes=(SECONDARY_CAPTURE,))

    def applies(self, held: Held) -> bool:
        """Tell whether it is above the bound."""
        return held.place.object_id in self._sides_px

    def of(self, held: Held) -> Reduced | None:
        """Give what was done for one that has been sent, once; ``None`` where nothing was."""
        return self._done.pop(held.place.object_id, None)

    @staticmethod
    def is_refusal(failure: Exception | None) -> bool:
        """Tell whether something was not sent because it cannot be made smaller."""
        return isinstance(failure, _REFUSALS)

    @contextmanager
    def _made(self, held: Held, payload: Payload) -> Iterator[Payload]:
        """Yield it reduced, as long as the block.

        Raises ``ProcessingRefused``, ``ProcessingFailed`` or ``ProcessingUnknown``.
        """
        processor = self._processor()
        request = self._request(processor, held, payload)
        began_s = time.monotonic()
        with processor.process(request) as results:
            if len(results) != 1:
                raise ProcessingRefused(f"one image would become {len(results)}")
            self._require_within(results[0])
            self._done[held.place.object_id] = Reduced(
                size_bytes=held.place.size_bytes - held.place.data_set_offset,
                duration_ms=round((time.monotonic() - began_s) * 1_000),
            )
            yield _payload(results[0])

    def _request(self, processor: Processor, held: Held, payload: Payload) -> ProcessingRequest:
        """Ask for it in words that the source, the bound and the version alone decide."""
        object_id, bound = held.place.object_id, str(self._max_matrix)
        parameters = {"factor": repr(self._max_matrix / self._sides_px[object_id])}
        version = processor.checked(OPERATION, parameters).version
        return ProcessingRequest(
            operation=OPERATION,
            parameters=parameters,
            sources=[
                StoredImage(
                    path=payload.path,
                    offset=payload.offset,
                    transfer_syntax_uid=payload.transfer_syntax_uid,
                )
            ],
            series_instance_uid=derived_uid(held.series_instance_uid, OPERATION, bound),
            # When it came here: the moment of this retrieve would make another object of it.
            made=datetime.fromtimestamp(object_id_time_ms(object_id) // 1_000, UTC),
            uid_root="/".join((held.sop_instance_uid, held.digest, OPERATION, version, bound)),
        )

    def _require_within(self, made: DerivedImage) -> None:
        """Measure what leaves, whatever the index says of its source."""
        try:
            with Path(made.path).open("rb") as file:
                said = read_dataset(
                    file,
                    is_implicit_VR=False,
                    is_little_endian=True,
                    stop_when=lambda tag, *_: tag > _COLUMNS,
                    specific_tags=[_ROWS, _COLUMNS],
                )
            largest = max(int(said.Rows), int(said.Columns))
        except (AttributeError, TypeError, ValueError) as error:
            raise ProcessingFailed("a reduced image does not say its size") from error
        if largest > self._max_matrix:
            raise ProcessingFailed("a reduced image is above the bound")


def _payload(made: DerivedImage) -> Payload:
    return Payload(
        sop_class_uid=made.sop_class_uid,
        sop_instance_uid=made.sop_instance_uid,
        transfer_syntax_uid=made.transfer_syntax_uid,
        path=made.path,
        offset=0,
    )

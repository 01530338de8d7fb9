"""What one retrieve was, for accounting: deliveries, and reductions on the way, window by window and study by study.

Owns when that is noted: once a second while instances are taken, and at the end, so that a process
that is killed loses the facts of a second and no more.
"""

import logging
import time
from collections.abc import Iterator

from pacs.core.caller import Caller
from pacs.core.errors import RecordsFailed
from pacs.core.identifiers import AETitle, StudyInstanceUID, new_object_id
from pacs.core.ports import Records
from pacs.core.usage import Delivered, Processed, asked_by
from pacs.services.delivery.reduced import OPERATION
from pacs.services.retrieve.tally import Taken, Tally

LOGGER = logging.getLogger("pacs.retrieve")

WINDOW_S = 1.0
"""What was taken is kept back no longer than this while more is taken."""


class Account:
    """The facts of one retrieve. For one thread; who asked for the images is who had them reduced."""

    def __init__(self, records: Records, caller: Caller, receiver: AETitle, tally: Tally) -> None:
        self._records = records
        self._caller = caller
        self._receiver = receiver
        self._tally = tally
        self._delivery = new_object_id()  # Message IDs come again within an association
        self._windows = 0
        self._window: list[Delivered | Processed] = []
        self._noted_s = time.monotonic()

    def look(self) -> None:
        """Note a window where it is time to; one that cannot be noted now waits for the next look."""
        if time.monotonic() - self._noted_s < WINDOW_S or not (self._window or self._tally.taken):
            return
        try:
            self._note()
        except RecordsFailed:
            LOGGER.warning("delivery-not-noted-yet receiver=%s", self._receiver)

    def close(self) -> None:
        """Note what is left, once the retrieve is over however it ended. Raises ``RecordsFailed``."""
        while self._window or self._tally.taken:
            self._note()

    def _note(self) -> None:
        """Write one window. Where that fails it may be written all the same: it stays as it is, keys and all."""
        try:
            if not self._window:
                taken = self._tally.take()
                self._window = [fact for study in taken for fact in self._facts(*study)]
                self._windows += 1
            with self._records.transaction() as unit:
                for fact in self._window:
                    unit.record_usage(fact)
            self._window = []
        finally:
            self._noted_s = time.monotonic()

    def _facts(self, study: StudyInstanceUID, taken: Taken) -> Iterator[Delivered | Processed]:
        caller = self._caller
        yield Delivered(
            subscriber=caller.subscriber,
            delivery=f"{self._delivery}/{self._windows}",
            study_instance_uid=study,
            receiver=self._receiver,
            asked_by=asked_by(caller),
            purpose=caller.purpose,
            instances=taken.instances,
            sent_bytes=taken.sent_bytes,
        )
        if taken.reduced:
            yield Processed(
                subscriber=caller.subscriber,
                session=new_object_id(),
                operation=OPERATION,
                study_instance_uid=study,
                asked_by=asked_by(caller),
                purpose=caller.purpose,
                images=taken.reduced,
                size_bytes=taken.reduced_bytes,
                duration_ms=taken.reduced_ms,
            )

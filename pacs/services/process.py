"""Processing on request: images that are held go in, derived images are held in a series of their own.

Decides what is one piece of work, whose the results are and how many are done
at once; knows neither pixels nor tables. Results come in through ingest like
anything that arrives, so rules and usage apply: each is held whole or not at all.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from pydicom.uid import generate_uid

from pacs.core.caller import Caller, SubscriberName, on_behalf
from pacs.core.errors import (
    InstanceNotFound,
    PacsError,
    ProcessingFailed,
    ProcessingRefused,
    ProcessingUnknown,
)
from pacs.core.identifiers import AETitle, Registrant, StudyInstanceUID, new_object_id
from pacs.core.ports import AuditTrail, InstanceStore, Records, RetrieveIndex
from pacs.core.processing import (
    DerivedImage,
    ProcessingRequest,
    Processor,
    StoredImage,
    Takes,
)
from pacs.core.records import Held, IncomingMeta, Provenance, Selection
from pacs.core.usage import Processed, asked_by
from pacs.services.store import Ingest

_READ_BYTES: Final = 1 << 20
_MAX_DESCRIPTION: Final = 64

Advance = Callable[[int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What somebody wants: an operation, its parameters as text, and what it is done to."""

    operation: str
    parameters: Mapping[str, str]
    selection: Selection
    series_description: str = ""


@dataclass(slots=True, kw_only=True)
class Tally:
    """What came of it. ``series`` are the derived ones; ``reasons`` say why pieces were not done."""

    sources: int = 0
    derived: int = 0
    series: list[str] = field(default_factory=list)
    reasons: Counter[str] = field(default_factory=Counter)


@dataclass(slots=True, kw_only=True)
class _Work:
    """What was done for one registrant with one study: what accounting asks for."""

    images: int = 0
    size_bytes: int = 0
    duration_ms: int = 0

    def count(self, piece: "_Piece", duration_ms: int) -> None:
        """One more piece was computed, and its results are held."""
        self.images += len(piece.sources)
        self.size_bytes += sum(
            one.place.size_bytes - one.place.data_set_offset for one in piece.sources
        )
        self.duration_ms += duration_ms


_Whose = tuple[Registrant, StudyInstanceUID]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Done:
    """How one piece ended: so many results are held, or why there are none."""

    derived: int = 0
    error: PacsError | None = None
    duration_ms: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Piece:
    """What is computed at once: sources of one registrant, and the series the results go to."""

    sources: Sequence[Held]
    series_instance_uid: str


class Processing:
    """Makes derived images. Safe to use from many threads."""

    def __init__(
        self,
        *,
        index: RetrieveIndex,
        store: InstanceStore,
        processor: Processor,
        ingest: Ingest,
        records: Records,
        audit: AuditTrail,
        receiving_ae_title: AETitle,
    ) -> None:
        self._index = index
        self._store = store
        self._processor = processor
        self._ingest = ingest
        self._records = records
        self._audit = audit
        self._receiving_ae_title = receiving_ae_title

    def run(
        self,
        caller: Caller,
        asked: Asked,
        *,
        workers: int,
        most: int,
        advance: Advance = lambda _: None,
    ) -> Tally:
        """Compute what is asked of what ``caller`` may see, and hold the results.

        They belong to whoever registered the source, in a new series for each
        series or study, however often it is asked. ``workers`` pieces are done at once,
        ``most`` instances at most. Raises ``ProcessingUnknown``, ``ProcessingRefused``
        where there is too much, ``InstanceNotFound`` where there is nothing.
        """
        operation = self._processor.checked(asked.operation, asked.parameters)
        _require_description(asked.series_description)
        held = self._selected(caller, asked.selection, most)
        pieces = list(_pieces(operation.takes, held))
        tally = Tally(sources=len(held))
        work: dict[_Whose, _Work] = {}
        try:
            for piece, done in self._results(asked, pieces, workers):
                _count(tally, work, piece, done)
                advance(len(piece.sources))
        finally:
            self._note_usage(caller, operation.name, work)
            self._audit.record(
                "processed",
                caller,
                operation=operation.name,
                version=operation.version,
                sources=tally.sources,
                derived=tally.derived,
                series=tuple(tally.series),
            )
        return tally

    def _results(
        self, asked: Asked, pieces: Sequence[_Piece], workers: int
    ) -> Iterator[tuple[_Piece, _Done]]:
        threads = ThreadPoolExecutor(workers, thread_name_prefix="process")
        wait = True
        try:
            work = [threads.submit(self._done, asked, piece) for piece in pieces]
            for piece, result in zip(pieces, work, strict=True):
                yield piece, result.result()
        except KeyboardInterrupt:
            wait = False  # what runs ends with the processor
            raise
        finally:
            threads.shutdown(wait=wait, cancel_futures=True)

    def _selected(self, caller: Caller, selection: Selection, most: int) -> Sequence[Held]:
        rows = self._index.select(selection, caller.visibility, most)
        if not rows:
            raise InstanceNotFound("nothing is held under that UID")
        if len(rows) > most:
            raise ProcessingRefused(
                f"more than {most} instances (process.max_instances): name a series"
            )
        return self._index.fetch([row for row, _, _ in rows])

    def _note_usage(self, caller: Caller, operation: str, work: Mapping[_Whose, _Work]) -> None:
        """Note what was done, study by study, for whom the images belong to."""
        if not work:
            return
        with self._records.transaction() as unit:
            for (registrant, study), done in work.items():
                unit.record_usage(
                    Processed(
                        subscriber=SubscriberName(registrant),
                        session=new_object_id(),
                        operation=operation,
                        study_instance_uid=study,
                        asked_by=asked_by(caller),
                        purpose=caller.purpose,
                        images=done.images,
                        size_bytes=done.size_bytes,
                        duration_ms=done.duration_ms,
                    )
                )

    def _done(self, asked: Asked, piece: _Piece) -> _Done:
        """Compute one piece and hold its results; what kept it from being done is not to keep others."""
        request = ProcessingRequest(
            operation=asked.operation,
            parameters=asked.parameters,
            sources=[self._stored(one) for one in piece.sources],
            series_instance_uid=piece.series_instance_uid,
            series_description=asked.series_description,
        )
        began_s = time.monotonic()
        try:
            with self._processor.process(request) as results:
                for one in results:
                    self._hold(one, piece.sources[0])
        except (ProcessingRefused, ProcessingFailed) as error:
            return _Done(error=error)
        duration_ms = round((time.monotonic() - began_s) * 1_000)
        return _Done(derived=len(results), duration_ms=duration_ms)

    def _stored(self, held: Held) -> StoredImage:
        return StoredImage(
            path=self._store.path(held.place),
            offset=held.place.data_set_offset,
            transfer_syntax_uid=held.transfer_syntax_uid,
        )

    def _hold(self, derived: DerivedImage, source: Held) -> None:
        """Take one result in, as its source's registrant would have sent it."""
        origin = self._store.read_meta(source.place)[0].provenance
        caller = replace(
            on_behalf(source.registrant, new_object_id()),
            issuer_of_patient_id=origin.issuer_of_patient_id,
            ae_title=self._receiving_ae_title,
        )
        meta = IncomingMeta(
            sop_class_uid=derived.sop_class_uid,
            sop_instance_uid=derived.sop_instance_uid,
            transfer_syntax_uid=derived.transfer_syntax_uid,
            provenance=Provenance(
                registrant=source.registrant,
                issuer_of_patient_id=origin.issuer_of_patient_id,
                received_utc=datetime.now(UTC),
                association=caller.association,
                source_ae_title=self._receiving_ae_title,
                receiving_ae_title=self._receiving_ae_title,
            ),
        )
        with self._store.incoming(meta) as incoming, Path(derived.path).open("rb") as file:
            while piece := file.read(_READ_BYTES):
                incoming.write(memoryview(piece))
            self._ingest.accept(caller, incoming)


def _pieces(takes: Takes, held: Sequence[Held]) -> Iterator[_Piece]:
    """Say what is computed at once: an image, the volume of a series, or what a study has of one place."""
    groups: dict[tuple[str, ...], list[Held]] = {}
    for one in held:
        series = () if takes is Takes.STUDY else (one.series_instance_uid,)
        groups.setdefault((one.registrant, one.study_instance_uid, *series), []).append(one)
    for group in groups.values():
        uid = str(generate_uid(prefix=None))
        if takes is Takes.IMAGE:
            for one in group:
                yield _Piece(sources=(one,), series_instance_uid=uid)
        else:
            yield _Piece(sources=group, series_instance_uid=uid)


def _count(tally: Tally, work: dict[_Whose, _Work], piece: _Piece, done: _Done) -> None:
    if done.error is not None:
        tally.reasons[str(done.error)] += 1
        return
    first = piece.sources[0]
    whose = (first.registrant, first.study_instance_uid)
    work.setdefault(whose, _Work()).count(piece, done.duration_ms)
    tally.derived += done.derived
    if done.derived and piece.series_instance_uid not in tally.series:
        tally.series.append(piece.series_instance_uid)


def _require_description(text: str) -> None:
    """Series Description is LO, and stands in the source's character set, of which ASCII is a part."""
    if len(text) > _MAX_DESCRIPTION or not text.isascii() or not (text.isprintable() or not text):
        raise ProcessingUnknown("a series description has at most 64 printable ASCII characters")
    if "\\" in text:
        raise ProcessingUnknown("a series description holds no backslash")

"""Processing at once: what is asked is computed in this process and held, each time in series of its own.

For whoever is at the machine, in the name of the images' owner, whose contract must grant it.
Decides how many lots are done at once and what is noted of them; ``computing`` does each.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime

from pydicom.uid import generate_uid

from pacs.core.caller import Caller, SubscriberName
from pacs.core.errors import InstanceNotFound, NotAuthorized, ProcessingRefused
from pacs.core.identifiers import Registrant, StudyInstanceUID, new_object_id
from pacs.core.ports import AuditTrail, Records, RetrieveIndex, Snapshots
from pacs.core.processing import Processor
from pacs.core.records import Held, Selection
from pacs.core.usage import Processed, asked_by
from pacs.services.process.computing import Computing, Done, Lot, Recipe, data_set_bytes, lots
from pacs.services.process.standing import owners_purposes
from pacs.services.process.words import require_description

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
    """What came of it. ``series`` are the derived ones; ``reasons`` say why lots were not done."""

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

    def count(self, lot: Lot, duration_ms: int) -> None:
        """One more lot was computed, and its results are held."""
        self.images += len(lot.sources)
        self.size_bytes += data_set_bytes(lot.sources)
        self.duration_ms += duration_ms


_Whose = tuple[Registrant, StudyInstanceUID]


class Processing:
    """Makes derived images. Safe to use from many threads."""

    def __init__(
        self,
        *,
        index: RetrieveIndex,
        processor: Processor,
        computing: Computing,
        records: Records,
        audit: AuditTrail,
        snapshots: Snapshots,
    ) -> None:
        self._index = index
        self._processor = processor
        self._computing = computing
        self._records = records
        self._audit = audit
        self._snapshots = snapshots

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
        series or study, however often it is asked. ``workers`` lots are done at once,
        ``most`` instances at most. Raises ``ProcessingUnknown``, ``ProcessingRefused``
        where there is too much, ``InstanceNotFound`` where there is nothing, ``NotAuthorized``
        where the contract of whose images they are grants no processing.
        """
        operation = self._processor.checked(asked.operation, asked.parameters)
        require_description(asked.series_description)
        held = self._selected(caller, asked.selection, most)
        purposes = self._granted(caller, operation.name, held)
        own = list(lots(operation.takes, held, lambda _: str(generate_uid(prefix=None))))
        tally = Tally(sources=len(held))
        work: dict[_Whose, _Work] = {}
        try:
            for lot, done in self._results(asked, own, workers):
                _count(tally, work, lot, done)
                advance(len(lot.sources))
        finally:
            self._note_usage(caller, operation.name, work, purposes)
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
        self, asked: Asked, own: Sequence[Lot], workers: int
    ) -> Iterator[tuple[Lot, Done]]:
        recipe = Recipe(
            operation=asked.operation,
            parameters=asked.parameters,
            series_description=asked.series_description,
        )
        threads = ThreadPoolExecutor(workers, thread_name_prefix="process")
        wait = True
        try:
            work = [threads.submit(self._computing.done, recipe, lot) for lot in own]
            for lot, result in zip(own, work, strict=True):
                yield lot, result.result()
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

    def _granted(
        self, caller: Caller, operation: str, held: Sequence[Held]
    ) -> Mapping[Registrant, str]:
        """Give the purposes of all owners. Raises ``NotAuthorized``, which is on record then."""
        owners = dict.fromkeys(one.registrant for one in held)
        try:
            return owners_purposes(owners, self._snapshots.newest(), datetime.now(UTC))
        except NotAuthorized as error:
            self._audit.record("process-refused", caller, operation=operation, cause=str(error))
            raise

    def _note_usage(
        self,
        caller: Caller,
        operation: str,
        work: Mapping[_Whose, _Work],
        purposes: Mapping[Registrant, str],
    ) -> None:
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
                        purpose=purposes[registrant],
                        images=done.images,
                        size_bytes=done.size_bytes,
                        duration_ms=done.duration_ms,
                    )
                )


def _count(tally: Tally, work: dict[_Whose, _Work], lot: Lot, done: Done) -> None:
    if done.error is not None:
        tally.reasons[str(done.error)] += 1
        return
    first = lot.sources[0]
    whose = (first.registrant, first.study_instance_uid)
    work.setdefault(whose, _Work()).count(lot, done.duration_ms)
    tally.derived += len(done.held)
    if done.held and lot.series_instance_uid not in tally.series:
        tally.series.append(lot.series_instance_uid)

"""One piece of a workitem: some of its results computed and held, on whatever node.

Repeated after a crash it makes the same objects again, which are held once.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Final

from pacs.core.errors import PacsError, ProcessingFailed, RecordsFailed
from pacs.core.identifiers import Registrant, StudyInstanceUID
from pacs.core.job_ports import JobContext
from pacs.core.process_results import Made, PieceDone
from pacs.core.records import Held
from pacs.core.work import Retry
from pacs.core.workitems import WorkitemState, WorkitemUID
from pacs.services.process.computing import Done, Lot, Recipe, data_set_bytes
from pacs.services.process.desk import Desk, LotWork, PieceWork
from pacs.services.process.ending import Hand
from pacs.services.process.sources import digest_of

_STEPS: Final = 20
"""Times at most that progress is told of one workitem, whatever it is cut into."""
_ATTEMPTS: Final = 2
"""At what was not done within its bounds: a second node may have more room, a third will not."""


class Piecework:
    """Handles pieces. Safe to use from many threads."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def piece(self, job: JobContext[PieceWork]) -> object:
        """Handle one job of kind ``process.piece``."""
        work = job.payload
        if any(one.number == work.number for one in self._noted(work)):
            return "it was done before"
        if not self._is_wanted(work):
            return "its workitem is not to be performed any more"
        if work.expires_utc is not None and work.expires_utc <= datetime.now(UTC):
            return "its workitem has expired"
        done = self._done(job)
        if done is None:
            return None
        self._tell(job)
        with job.finish(f"{sum(len(one.instances) for one in done.made)} results"):
            self._desk.results.note(done)
        return None

    def _is_wanted(self, work: PieceWork) -> bool:
        """Tell whether the workitem is performed still, by us, and nobody asked for its end."""
        try:
            item = self._desk.workitems.read(WorkitemUID(work.uid))
        except RecordsFailed:
            raise
        except PacsError:
            return False  # removed
        ours = item.transaction_uid == work.session
        return ours and item.state is WorkitemState.IN_PROGRESS and not item.cancel_asked

    def _tell(self, job: JobContext[PieceWork]) -> None:
        """Let those who watch know, so often at most that it costs nothing; that it fails costs nothing else."""
        work = job.payload
        ended = self._desk.results.ended(work.session) + 1
        if _STEPS * ended // work.pieces == _STEPS * (ended - 1) // work.pieces:
            return
        hand = Hand(self._desk, work.uid, work.session, job=job.id)
        try:
            hand.tell(ended, work.pieces + 1, f"{ended} of {work.pieces} pieces are done")
        except PacsError as error:
            job.log(f"its progress was not told: {error}")

    def _noted(self, work: PieceWork) -> Iterator[PieceDone]:
        """What has been noted of this session, as it is cut now."""
        for one in self._desk.results.of(work.session):
            if (one.key, one.pieces) == (work.key, work.pieces):
                yield one

    def _done(self, job: JobContext[PieceWork]) -> PieceDone | None:
        """Compute; ``None`` where the job was told to stop."""
        work = job.payload
        held = self._desk.index.fetch([row for lot in work.lots for row in lot.rows])
        tally = _Tally(work)
        if digest_of(held) != work.digest:
            tally.reasons.append("an image was deleted or changed meanwhile")
            return tally.done()
        for lot, done in self._results(job, held):
            if isinstance(done.error, ProcessingFailed) and job.attempt < _ATTEMPTS:
                raise Retry(str(done.error), after_s=0)
            tally.count(lot, done)
        return None if job.cancelled() else tally.done()

    def _results(
        self, job: JobContext[PieceWork], held: Sequence[Held]
    ) -> Iterator[tuple[Lot, Done]]:
        """Compute lot after lot, a few at once; none is begun once the job, or the workitem, is to stop."""
        work = job.payload
        recipe = Recipe(
            operation=work.operation,
            version=work.version,
            parameters=work.parameters,
            series_description=work.series_description,
            made=work.made,
        )
        lots = list(_lots(work, held))

        def goes_on() -> bool:
            return not job.cancelled() and self._is_wanted(work)

        with ThreadPoolExecutor(self._desk.threads, thread_name_prefix="piece") as threads:
            begun = [
                threads.submit(lambda lot: self._one(recipe, lot) if goes_on() else None, lot)
                for lot in lots
            ]
            try:
                for number, (lot, future) in enumerate(zip(lots, begun, strict=True)):
                    done = future.result()
                    if done is not None:
                        job.progress(number + 1, len(lots))
                        yield lot, done
            finally:
                threads.shutdown(wait=True, cancel_futures=True)

    def _one(self, recipe: Recipe, lot: Lot) -> Done:
        return self._desk.computing.done(recipe, lot)


def _lots(work: PieceWork, held: Sequence[Held]) -> Iterator[Lot]:
    """The lots with their sources, in the order of their rows."""
    at = 0
    for lot in work.lots:
        sources = held[at : at + len(lot.rows)]
        at += len(lot.rows)
        yield _lot(work, lot, sources)


def _lot(work: PieceWork, lot: LotWork, sources: Sequence[Held]) -> Lot:
    return Lot(
        sources=sources,
        series_instance_uid=lot.series_instance_uid,
        uid_root=f"{work.session}/{lot.series_instance_uid}",
        part=lot.part,
        parts=lot.parts,
    )


class _Tally:
    """What came of the lots of one piece."""

    def __init__(self, work: PieceWork) -> None:
        self._work = work
        self._made: dict[str, list[tuple[str, str]]] = {}
        self.reasons: list[str] = []
        self._images = self._size_bytes = self._duration_ms = 0

    def count(self, lot: Lot, done: Done) -> None:
        """One more lot. Sources that several parts share are counted with the first."""
        if done.error is not None:
            self.reasons.append(str(done.error))
            return
        if lot.part == 0:
            self._images += len(lot.sources)
            self._size_bytes += data_set_bytes(lot.sources)
        self._duration_ms += done.duration_ms
        self._made.setdefault(lot.series_instance_uid, []).extend(done.held)

    def done(self) -> PieceDone:
        """Say how the piece ended."""
        work = self._work
        return PieceDone(
            session=work.session,
            number=work.number,
            pieces=work.pieces,
            key=work.key,
            operation=work.operation,
            registrant=Registrant(work.registrant),
            study_instance_uid=StudyInstanceUID(work.study_instance_uid),
            made=tuple(
                Made(series_instance_uid=series, instances=tuple(instances))
                for series, instances in self._made.items()
            ),
            reasons=tuple(self.reasons),
            images=self._images,
            size_bytes=self._size_bytes,
            duration_ms=self._duration_ms,
        )

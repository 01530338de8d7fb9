"""Our performer: a workitem is claimed, judged, cut into pieces that any node does, and handed on. PS3.4 Annex CC.

Decides what is one piece, and whether what is asked exists already. A piece is
computed by ``piece``, results leave by ``deliver``; both on whatever node.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Final

from pacs.core.caller import Caller, SubscriberName
from pacs.core.errors import InstanceNotFound, PeerUnreachable, ProcessingRefused
from pacs.core.job_ports import JobContext
from pacs.core.ports import Unit
from pacs.core.process_results import PieceDone
from pacs.core.processing import Keep, OperationFact, Takes
from pacs.core.records import Held, Job
from pacs.core.usage import Processed, asked_by
from pacs.core.work import Postpone, Retry
from pacs.services.process.computing import Lot, lots
from pacs.services.process.desk import (
    DeliverWork,
    Desk,
    LotWork,
    PieceWork,
    WorkitemWork,
)
from pacs.services.process.ending import Hand, are_held, reasons_of, series_of, take_back
from pacs.services.process.order import Wanted
from pacs.services.process.report import Discontinued, Why, defaults
from pacs.services.process.sources import Row, digest_of, found
from pacs.services.process.words import uid_of

_MOST_PIECES: Final = 5_000
_FETCHES: Final = 6
_FETCH_AGAIN_S: Final = 30.0
_ONCE: Final = "once:"
"""Before the key of results that are deleted once they are delivered: nobody else gets those."""


class Performing:
    """Handles workitems. Safe to use from many threads."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def workitem(self, job: JobContext[WorkitemWork]) -> None:
        """Handle one job of kind ``process.workitem``."""
        work = job.payload
        hand = Hand(self._desk, work.uid, work.transaction_uid, job=job.id)
        waits_s = hand.waits_s(work.made, self._desk.settings.max_wait_s)
        if waits_s > 0:
            raise Postpone("the workitem is not to be begun yet", after_s=waits_s)
        why_not = hand.take_up()
        if why_not:
            self._take_back(work)
            self._end(job, why_not)
            return
        wanted: Wanted | None = None
        try:
            wanted, fact, caller = hand.allowed(work.creator)
            hand.require_input()
            if job.parted:
                session, said = self._gathered(job), "computed"
            else:
                made = hand.began_utc or work.made  # not before its input was there
                session = self._reused(job, wanted, fact, caller, made=made)
                said = "there already"
        except Discontinued as why:
            self._take_back(work)
            hand.discontinue(hand.performed(wanted), why)
            self._audit(work, "process-discontinued", cause=why.text)
            self._end(job, why.text)
            return
        self._end(job, said, deliver=session)

    def _take_back(self, work: WorkitemWork) -> None:
        """Delete what was made of a workitem that has no end in which it could be named."""
        take_back(self._desk, work.uid, self._desk.results.of(work.transaction_uid))

    # --- cutting -----------------------------------------------------------------------

    def _reused(
        self,
        job: JobContext[WorkitemWork],
        wanted: Wanted,
        fact: OperationFact,
        caller: Caller,
        *,
        made: datetime,
    ) -> str:
        """Give the session that has the results already; else ask for pieces and wait for them."""
        self._fetch(job, wanted, caller)
        try:
            rows = found(self._desk.index, caller, wanted.inputs, self._desk.settings.max_instances)
        except InstanceNotFound as error:
            raise Discontinued(Why.MISSING, str(error)) from error
        except ProcessingRefused as error:
            raise Discontinued(Why.REFUSED, str(error)) from error
        key = _key(wanted, fact, [held for _, held in rows])
        registrant = rows[0][1].registrant
        done = self._desk.results.whole(registrant, key, self._desk.settings.reuse_s)
        if done and are_held(self._desk, registrant, series_of(done)):
            return done[0].session
        work = replace(job.payload, made=made)
        job.children(list(self._pieces(work, wanted, fact, rows, key)))
        raise AssertionError("a job that waits for its parts leaves its handler")

    def _fetch(self, job: JobContext[WorkitemWork], wanted: Wanted, caller: Caller) -> None:
        """Fetch what is not held here and said to be elsewhere; a place that is away gets some minutes."""
        desk = self._desk
        snapshot, most = desk.snapshots.newest(), desk.settings.max_instances
        for one in wanted.inputs:
            try:
                desk.fetching.fetch(caller, one, snapshot, job.cancelled, most=most)
            except PeerUnreachable as error:
                if job.attempt < _FETCHES:
                    raise Retry(
                        f"images cannot be fetched: {error}", after_s=_FETCH_AGAIN_S
                    ) from error
                raise Discontinued(
                    Why.MISSING, "images cannot be fetched: nobody answers"
                ) from error
            except ProcessingRefused as error:
                raise Discontinued(Why.REFUSED, str(error)) from error

    def _pieces(
        self,
        work: WorkitemWork,
        wanted: Wanted,
        fact: OperationFact,
        rows: Sequence[Row],
        key: str,
    ) -> Iterator[Job]:
        order = wanted.order
        number_of = {id(held): row for row, held in rows}
        cut = list(self._cut(work, fact, [held for _, held in rows]))
        if len(cut) > _MOST_PIECES:
            raise Discontinued(Why.REFUSED, f"more than {_MOST_PIECES} volumes: name fewer")
        for number, some in enumerate(cut):
            sources = [held for lot in some for held in lot.sources]
            yield PieceWork(
                uid=work.uid,
                session=work.transaction_uid,
                number=number,
                pieces=len(cut),
                key=_ONCE + key if order.keep_results is Keep.UNTIL_DONE else key,
                registrant=sources[0].registrant,
                study_instance_uid=sources[0].study_instance_uid,
                operation=fact.name,
                version=fact.version,
                parameters=dict(order.parameters),
                series_description=order.series_description,
                made=work.made,
                digest=digest_of(sources),
                lots=tuple(
                    LotWork(
                        rows=tuple(number_of[id(held)] for held in lot.sources),
                        series_instance_uid=lot.series_instance_uid,
                        part=lot.part,
                        parts=lot.parts,
                    )
                    for lot in some
                ),
                expires_utc=wanted.expires_utc,
            ).job(group=order.group)

    def _cut(
        self, work: WorkitemWork, fact: OperationFact, held: Sequence[Held]
    ) -> Iterator[Sequence[Lot]]:
        """Say what is one piece: so many images of a study, a volume or its share, the sets of a study."""
        settings = self._desk.settings
        own = list(lots(fact.takes, held, lambda whose: uid_of(work.transaction_uid, *whose)))
        if fact.takes is Takes.IMAGE:
            some: list[Lot] = []
            most = max(settings.piece_images, -(-2 * len(own) // _MOST_PIECES))
            for lot in own:
                if some and (len(some) == most or not _is_same_study(some, lot)):
                    yield some
                    some = []
                some.append(lot)
            yield some
            return
        parts = settings.volume_parts if fact.divisible else 1
        for lot in own:
            for part in range(parts):
                yield [
                    Lot(
                        sources=lot.sources,
                        series_instance_uid=lot.series_instance_uid,
                        part=part,
                        parts=parts,
                    )
                ]

    # --- what came of it -----------------------------------------------------------------

    def _gathered(self, job: JobContext[WorkitemWork]) -> str:
        """Give the session, where its pieces gave anything."""
        parts = job.children(())
        done = self._desk.results.of(job.payload.transaction_uid)
        if not series_of(done):
            reasons = reasons_of(done, len(parts)) or "it gave no result"
            refused = any(one.reasons for one in done)
            raise Discontinued(Why.REFUSED if refused else Why.FAILED, reasons)
        return job.payload.transaction_uid

    def _end(self, job: JobContext[WorkitemWork], said: str, *, deliver: str = "") -> None:
        """End the job, with what was used and what follows, in one transaction."""
        work = job.payload
        done = self._desk.results.of(work.transaction_uid)
        with job.finish(said) as unit:
            self._note_usage(unit, work, done)
            if deliver:
                unit.enqueue(
                    DeliverWork(
                        uid=work.uid,
                        transaction_uid=work.transaction_uid,
                        creator=work.creator,
                        session=deliver,
                        reused=deliver != work.transaction_uid,
                    ).job()
                )
        if done:
            self._audit(
                work,
                "processed",
                operation=done[0].operation,
                sources=sum(one.images for one in done),
                derived=sum(len(one.instances) for one in series_of(done)),
                series=tuple(one.series_instance_uid for one in series_of(done)),
            )

    def _note_usage(self, unit: Unit, work: WorkitemWork, done: Sequence[PieceDone]) -> None:
        """Note what was computed, study by study, for whoever asked; for whose images, where that is an admin."""
        for study in dict.fromkeys(one.study_instance_uid for one in done):
            some = [one for one in done if one.study_instance_uid == study and one.made]
            if some:
                unit.record_usage(
                    Processed(
                        subscriber=SubscriberName(
                            some[0].registrant if work.creator.is_admin else work.creator.subscriber
                        ),
                        session=work.uid,
                        operation=some[0].operation,
                        study_instance_uid=study,
                        asked_by=asked_by(work.creator.named()),
                        purpose=work.creator.purpose,
                        images=sum(one.images for one in some),
                        size_bytes=sum(one.size_bytes for one in some),
                        duration_ms=sum(one.duration_ms for one in some),
                    )
                )

    def _audit(self, work: WorkitemWork, event: str, **details: object) -> None:
        self._desk.audit.record(event, work.creator.named(), workitem=work.uid, **details)


def _is_same_study(some: Sequence[Lot], lot: Lot) -> bool:
    return some[0].sources[0].study_instance_uid == lot.sources[0].study_instance_uid


def _key(wanted: Wanted, fact: OperationFact, held: Sequence[Held]) -> str:
    """Name all that the results depend on. Who registered the images is asked for beside it."""
    asked = [
        fact.name,
        fact.version,
        sorted({**defaults(fact), **wanted.order.parameters}.items()),
        wanted.order.series_description,
        sorted(one.digest for one in held),
    ]
    return hashlib.sha256(json.dumps(asked).encode()).hexdigest()

"""The job that has a destination answer for what it was sent, and waits for its word. PS3.4 Annex J.

Owns the course of one job: transactions are noted, asked for, waited for a
while on the same association and then by being tried again, which a report
brings forward. What a peer has not said by the deadline it has not said.
Idempotent: what a crash left unknown is asked anew under another UID, and a
report on either counts. Refuses to send anything again.
"""

import logging
import time
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Final

from pydicom.uid import generate_uid

from config.settings import Commitment as CommitmentSettings
from pacs.core.commitment import (
    CommitmentAsking,
    CommitmentRows,
    CommitmentSender,
    Reference,
    Standing,
    Transaction,
    TransactionUID,
)
from pacs.core.errors import PeerRefused, PeerUnreachable, ServiceNotOffered
from pacs.core.forwarding import CommitmentWork
from pacs.core.identifiers import SOPInstanceUID
from pacs.core.job_ports import JobContext
from pacs.core.ports import Snapshots
from pacs.core.work import Hold, Permanent, Postpone, Retry

LOGGER = logging.getLogger("pacs.commitment")

MOST_FAILED_LISTED: Final = 700
"""More UIDs than this do not fit into the result of a job; then the job itself fails."""

_LEAST_PAUSE_S: Final = 1.0
_MOST_PAUSE_S: Final = 60.0
_PAUSE_PER_WAITED: Final = 0.25
_LOOK_S: Final = 1.0

_SUCCEEDED: Final = frozenset({0x0000, 0x0001, 0x0107, 0x0116})
_NOT_OFFERED: Final = frozenset({0x0112, 0x0118, 0x0122, 0x0123, 0x0211})
"""No such instance, class, action or operation: the peer takes the context and provides nothing in it."""
_NEVER: Final = frozenset({0x0105, 0x0106, 0x0114, 0x0115, 0x0117, 0x0119, 0x0120, 0x0121, 0x0124})
"""What it says of this request it will say again. Statuses of PS3.7 Annex C, also Section 10.1.4.1.10."""


class Commitments:
    """Asks and waits; for many workers at once."""

    def __init__(
        self,
        *,
        rows: CommitmentRows,
        sender: CommitmentSender,
        snapshots: Snapshots,
        settings: CommitmentSettings,
        most_references: int,
    ) -> None:
        self._rows = rows
        self._sender = sender
        self._snapshots = snapshots
        self._settings = settings
        self._most_references = most_references

    def run(self, context: JobContext[CommitmentWork]) -> None:
        """Do one job as far as it can be done now. Raises what says how it goes on."""
        work = context.payload
        references = tuple(dict.fromkeys(work.references))
        missing = list(self._missing(references, self._rows.standing(context.id)))
        if missing:
            try:
                self._ask(context, missing)
            except ServiceNotOffered:
                self._not_offered(context)
                return
        if not context.cancelled():
            self._conclude(context, references)

    # --- asking --------------------------------------------------------------------------

    def _missing(
        self, references: tuple[Reference, ...], standing: Sequence[Standing]
    ) -> Iterator[tuple[int, tuple[Reference, ...]]]:
        """What no transaction is known to be about, in pieces that one may hold."""
        known = sorted(
            (one.first, one.first + one.count)
            for one in standing
            if one.asked or one.outcome is not None
        )
        at = 0
        for first, last in (*known, (len(references), len(references))):
            for begin in range(at, first, self._most_references):
                yield begin, references[begin : min(begin + self._most_references, first)]
            at = max(at, last)

    def _ask(
        self,
        context: JobContext[CommitmentWork],
        missing: Sequence[tuple[int, tuple[Reference, ...]]],
    ) -> None:
        """Ask for everything that is missing on one association, and wait there for a while."""
        ae_title = context.payload.destination
        peer = self._snapshots.newest().peers.get(ae_title)
        if peer is None:
            raise Permanent(f"{ae_title} is no peer")
        try:
            with self._sender.open(peer) as asking:
                for first, references in missing:
                    if context.cancelled():
                        return
                    self._transact(context, asking, first, references)
                self._listen(context, asking)
        except PeerUnreachable as failure:
            raise Hold(str(failure)) from failure
        except ServiceNotOffered:
            raise
        except PeerRefused as failure:
            raise Retry(str(failure)) from failure

    def _transact(
        self,
        context: JobContext[CommitmentWork],
        asking: CommitmentAsking,
        first: int,
        references: tuple[Reference, ...],
    ) -> None:
        transaction = Transaction(
            uid=TransactionUID(str(generate_uid(prefix=None))),
            job=context.id,
            ae_title=context.payload.destination,
            first=first,
            references=references,
        )
        late = self._is_late(transaction)  # looked at first: what is begun may have it forgotten
        # Durable before the request leaves: its report must find it, whatever happens to us.
        self._rows.begin(
            transaction, deadline_s=self._settings.deadline_s, keep_s=self._settings.keep_s
        )
        try:
            status = asking.ask(transaction)
        except PeerUnreachable as gone:
            if late:
                raise self._silent(context, len(references)) from gone
            raise
        if status in _SUCCEEDED or status >> 12 == 0xB:
            self._rows.asked(transaction.uid)
            context.log(f"asked for {len(references)} instances, transaction {transaction.uid}")
            return
        self._rows.drop(transaction.uid)
        said = f"{transaction.ae_title} refused with status {status:04X}"
        if status in _NOT_OFFERED:
            raise ServiceNotOffered(said)
        raise Permanent(said) if status in _NEVER else Retry(said)

    def _is_late(self, transaction: Transaction) -> bool:
        """Tell whether the same was begun so long ago that an answer is due, and had none.

        A peer that associates and leaves at each request would else be asked for ever: each
        request has a deadline of its own. One that is only away is waited for.
        """
        first, last = transaction.first, transaction.first + len(transaction.references)
        now = self._rows.now()
        return any(
            one.deadline_utc <= now and one.first < last and first < one.first + one.count
            for one in self._rows.standing(transaction.job)
            if not one.asked and one.outcome is None
        )

    def _listen(self, context: JobContext[CommitmentWork], asking: CommitmentAsking) -> None:
        """Stay for the reports, as long as the peer does; it may also report on one it opens."""
        end_s = time.monotonic() + self._settings.wait_on_association_s
        try:
            while not context.cancelled() and _unreported(self._rows.standing(context.id)):
                rest_s = end_s - time.monotonic()
                if rest_s <= 0:
                    return
                asking.wait(min(rest_s, _LOOK_S))
        except PeerUnreachable as gone:
            LOGGER.info("commitment-association-ended why=%s", gone)

    # --- what follows ----------------------------------------------------------------------

    def _not_offered(self, context: JobContext[CommitmentWork]) -> None:
        self._rows.over(context.id)
        if context.payload.required:
            raise Permanent(f"{context.payload.destination} does not offer Storage Commitment")
        with context.finish({"offered": False, "committed": 0, "failed": {}}):
            pass

    def _conclude(
        self, context: JobContext[CommitmentWork], references: Sequence[Reference]
    ) -> None:
        """End the job where everything is reported or too late; else let it wait."""
        standing, now = self._rows.standing(context.id), self._rows.now()
        open_ones = _unreported(standing)
        if open_ones:
            self._wait(context, open_ones, now)
        failed: dict[SOPInstanceUID, int] = {}
        for one in standing:
            failed.update(one.outcome.failed if one.outcome is not None else {})
        if len(failed) > MOST_FAILED_LISTED:
            self._rows.over(context.id)
            raise Permanent(f"{len(failed)} of {len(references)} instances were not committed")
        committed = len({uid for _, uid in references} - failed.keys())
        with context.finish({"offered": True, "committed": committed, "failed": failed}):
            self._rows.over(context.id)

    def _wait(
        self, context: JobContext[CommitmentWork], open_ones: Sequence[Standing], now: datetime
    ) -> None:
        deadline = min(one.deadline_utc for one in open_ones)
        if now >= deadline:
            raise self._silent(context, sum(one.count for one in open_ones))
        waited_s = (now - max(one.asked_utc for one in open_ones)).total_seconds()
        pause_s = max(_LEAST_PAUSE_S, min(_MOST_PAUSE_S, waited_s * _PAUSE_PER_WAITED))
        rest_s = (deadline - now).total_seconds()
        raise Postpone("waits for the report", after_s=min(pause_s, rest_s))

    def _silent(self, context: JobContext[CommitmentWork], count: int) -> Permanent:
        """End what was asked; a job that is tried again asks anew, with the whole time."""
        self._rows.over(context.id)
        return Permanent(
            f"{context.payload.destination} said nothing of {count} instances"
            f" within {self._settings.deadline_s:g} s"
        )


def _unreported(standing: Sequence[Standing]) -> list[Standing]:
    """Transactions the peer took and has not reported; one that was asked again counts once reported."""
    reported = {one.first for one in standing if one.outcome is not None}
    return [one for one in standing if one.asked and one.first not in reported]

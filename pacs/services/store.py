"""Taking instances in: what stands behind a success of C-STORE. Design law 1.

Decides what is kept, what is held already and what is refused; knows neither
sockets nor tables. The order is: finish and read the header, compare with the
request, make the file durable, commit the rows, and only then say yes.
"""

import os
from collections.abc import Callable, Iterable, Sequence
from typing import BinaryIO, Protocol

from config.settings import Parsing
from pacs.core.attributes import Level
from pacs.core.caller import Caller
from pacs.core.errors import (
    InstanceNotFound,
    RecordsFailed,
    SOPClassMismatch,
    SOPInstanceMismatch,
    StorageFailed,
)
from pacs.core.identifiers import Digest, StudyInstanceUID, TransferSyntaxUID
from pacs.core.ports import (
    ArrivalRule,
    Incoming,
    InstanceStore,
    Records,
    RepeatRule,
    Snapshots,
    Unit,
)
from pacs.core.records import (
    Arrival,
    Held,
    IncomingMeta,
    Instance,
    Job,
    Place,
    StoreOutcome,
)
from pacs.core.sending_ports import Transcoder
from pacs.core.usage import Registered
from pacs.services.header import read_header


class ArrivalIndex(Protocol):
    """What is held already, asked without a transaction."""

    def versions(self, instance: Instance) -> Sequence[Held]:
        """List what is held, not deleted, under the same registrant, patient, series and SOP Instance UID."""
        ...

    def is_committed(self, instance: Instance) -> bool:
        """Tell whether the rows of this very file are committed. Raises ``RecordsFailed``."""
        ...


class Ingest:
    """Takes instances in. Safe to use from many threads."""

    def __init__(
        self,
        *,
        records: Records,
        index: ArrivalIndex,
        store: InstanceStore,
        transcoder: Transcoder,
        snapshots: Snapshots,
        parsing: Parsing,
    ) -> None:
        self._records = records
        self._index = index
        self._store = store
        self._transcoder = transcoder
        self._snapshots = snapshots
        self._parsing = parsing
        self._rules: tuple[ArrivalRule, ...] = ()
        self._repeat_rules: tuple[RepeatRule, ...] = ()

    def add_rule(self, rule: ArrivalRule) -> None:
        """Ask one more rule at each arrival; while the archive is put together."""
        self._rules = (*self._rules, rule)

    def add_repeat_rule(self, rule: RepeatRule) -> None:
        """Ask one more rule about what is held already; while the archive is put together."""
        self._repeat_rules = (*self._repeat_rules, rule)

    def accept(self, caller: Caller, incoming: Incoming) -> StoreOutcome:
        """As ``take``, for who need not know the study."""
        return self.take(caller, incoming)[0]

    def take(self, caller: Caller, incoming: Incoming) -> tuple[StoreOutcome, StudyInstanceUID]:
        """Keep one received instance and name its study; when this returns, it survives power loss.

        Raises ``InstanceUnreadable``, ``InstanceIncomplete``, ``SOPClassMismatch``,
        ``SOPInstanceMismatch``, ``InstanceTooLarge``, ``CapacityExhausted``,
        ``StorageFailed`` or ``RecordsFailed``; then nothing was acknowledged.
        """
        instance = self._read(incoming)
        study = instance.header.study_instance_uid
        return self._keep(caller, instance, incoming), study

    def _keep(self, caller: Caller, instance: Instance, incoming: Incoming) -> StoreOutcome:
        held = self._index.versions(instance)
        if self._is_held(instance, held, incoming) and self._repeat(caller, instance, held):
            return StoreOutcome.ALREADY_HELD
        incoming.keep(instance.header.study_instance_uid)
        added = self._commit(caller, instance, incoming)
        if not added:
            incoming.discard()  # somebody else's copy of the same bytes was quicker
            self._holds(instance, self._index.versions(instance))
            return StoreOutcome.ALREADY_HELD
        incoming.settle()
        return StoreOutcome.KEPT_AS_VERSION if held else StoreOutcome.KEPT

    def _read(self, incoming: Incoming) -> Instance:
        digest = incoming.finish()
        with incoming.open_data_set() as data_set:
            instance = read_instance(
                data_set,
                incoming.meta,
                digest=digest,
                place_of=incoming.place,
                size_bytes=incoming.data_set_bytes,
                parsing=self._parsing,
            )
        # PS3.7 Section 9.1.1.1: the request names what the Data Set is.
        if instance.header.sop_class_uid != incoming.meta.sop_class_uid:
            raise SOPClassMismatch(offending_elements=(0x00080016,))
        if instance.header.sop_instance_uid != incoming.meta.sop_instance_uid:
            raise SOPInstanceMismatch(offending_elements=(0x00080018,))
        return instance

    def _is_held(self, instance: Instance, held: Iterable[Held], incoming: Incoming) -> bool:
        """Same digest, or same elements and pixels in another syntax: there is nothing new to keep.

        Only here, for a SOP Instance UID that came before in another encoding,
        are pixels looked at while storing; within the sandbox and its bounds.
        """
        if self._holds(instance, held):
            return True
        arrived = (incoming.arrival_path, instance.place.data_set_offset)
        return any(
            self._transcoder.same_content(
                (*arrived, instance.transfer_syntax_uid),
                (self._store.path(one.place), one.place.data_set_offset, one.transfer_syntax_uid),
            )
            for one in held
            # Of a form, the syntax it is held in says nothing about what was received.
            if one.form is not None or one.transfer_syntax_uid != instance.transfer_syntax_uid
        )

    def _holds(self, instance: Instance, held: Iterable[Held]) -> bool:
        """Tell whether these bytes are kept. Rows without a whole file are damage, never a success.

        Raises ``StorageFailed`` then: ``pacs verify`` names the file, ``pacs
        reindex`` forgets it, and it can be sent again.
        """
        same = [one for one in held if one.digest == instance.digest]
        for one in same:
            try:
                with self._store.open(one.place) as file:
                    size_bytes = file.seek(0, os.SEEK_END)
            except (InstanceNotFound, OSError) as error:
                raise StorageFailed(f"held, but not there: {one.place.name}") from error
            if size_bytes != one.place.size_bytes:
                raise StorageFailed(f"held, but not whole: {one.place.name}")
        return bool(same)

    def _repeat(self, caller: Caller, instance: Instance, held: Sequence[Held]) -> bool:
        """Note that it came once more; ``False`` where what was held is deleted meanwhile."""
        jobs = self._asked_again(caller, instance)
        if jobs is None:
            return True
        with self._records.transaction() as unit:
            return _noted(unit, instance, held, jobs)

    def _asked_again(self, caller: Caller, instance: Instance) -> Sequence[Job] | None:
        """The jobs of the rules about what is held already; ``None`` where it is nothing to any."""
        if not self._repeat_rules:
            return None
        arrival = Arrival(level=Level.IMAGE, caller=caller, instance=instance)
        snapshot = self._snapshots.current()
        said = [rule(arrival, snapshot) for rule in self._repeat_rules]
        asked = [jobs for jobs in said if jobs is not None]
        return _in_order(job for jobs in asked for job in jobs) if asked else None

    def _commit(self, caller: Caller, instance: Instance, incoming: Incoming) -> bool:
        try:
            with self._records.transaction() as unit:
                added = unit.add_instance(instance)
                if added:
                    self.facts(unit, caller, instance)
                elif (jobs := self._asked_again(caller, instance)) is not None:
                    _noted(unit, instance, unit.versions(instance), jobs)
            return added
        except RecordsFailed:
            if self._settle_doubt(instance, incoming):
                return True
            raise
        except BaseException:
            self._settle_doubt(instance, incoming)
            raise

    def _settle_doubt(self, instance: Instance, incoming: Incoming) -> bool:
        """A failed commit may have happened: ask. Where nobody answers, start-up will.

        Raises ``RecordsFailed`` when nobody answers. The file is removed only
        when the database says that it does not know it.
        """
        committed = self._index.is_committed(instance)
        if not committed:
            incoming.discard()
        return committed

    def facts(self, unit: Unit, caller: Caller, instance: Instance) -> None:
        """Note usage and the jobs that arrival rules ask for, in the transaction of the rows."""
        place, header = instance.place, instance.header
        unit.record_usage(
            Registered(
                subscriber=caller.subscriber,
                object_id=place.object_id,
                study_instance_uid=header.study_instance_uid,
                modality=header.values.get("Modality", ""),
                size_bytes=place.size_bytes - place.data_set_offset,
            )
        )
        for job in self.asked(caller, Level.IMAGE, instance):
            unit.enqueue(job)

    def asked(self, caller: Caller, level: Level, instance: Instance) -> Sequence[Job]:
        """The jobs that the arrival rules ask for, in the order every transaction asks for them.

        By unique key: two transactions that took the same keys in other orders
        would wait for each other.
        """
        if not self._rules:
            return ()
        arrival = Arrival(level=level, caller=caller, instance=instance)
        snapshot = self._snapshots.current()
        return _in_order(job for rule in self._rules for job in rule(arrival, snapshot))


def _in_order(jobs: Iterable[Job]) -> Sequence[Job]:
    listed = list(jobs)
    return sorted(listed, key=lambda one: one.unique_key or "") if len(listed) > 1 else listed


def _noted(unit: Unit, instance: Instance, held: Sequence[Held], jobs: Sequence[Job]) -> bool:
    if not unit.came_again(instance, held):
        return False
    for one in jobs:
        unit.enqueue(one)
    return True


def read_instance(
    data_set: BinaryIO,
    meta: IncomingMeta,
    *,
    digest: Digest,
    place_of: Callable[..., Place],
    size_bytes: int,
    parsing: Parsing,
) -> Instance:
    """Make the index's view of one Data Set. ``place_of`` gives its place from the Study Instance UID."""
    header = read_header(
        data_set,
        size_bytes,
        TransferSyntaxUID(meta.transfer_syntax_uid),
        parsing,
        issuer_of_patient_id=meta.provenance.issuer_of_patient_id,
    )
    return Instance(
        header=header,
        place=place_of(header.study_instance_uid),
        digest=digest,
        transfer_syntax_uid=meta.transfer_syntax_uid,
        provenance=meta.provenance,
    )

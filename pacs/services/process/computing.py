"""One result or several computed from sources at once, and held: what every way of asking shares.

Decides what is computed at once and whose the results are; knows neither pixels
nor tables. Results come in through ingest like anything that arrives, so rules
and usage apply: each is held whole or not at all.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from pacs.core.attributes import Level
from pacs.core.caller import Visibility, on_behalf
from pacs.core.errors import PacsError, ProcessingFailed, ProcessingRefused, ProcessingUnknown
from pacs.core.identifiers import (
    AETitle,
    SOPClassUID,
    SOPInstanceUID,
    new_object_id,
)
from pacs.core.ports import InstanceStore, RetrieveIndex
from pacs.core.processing import (
    DerivedImage,
    ProcessingRequest,
    Processor,
    StoredImage,
    Takes,
)
from pacs.core.records import Held, IncomingMeta, Provenance, Selection
from pacs.services.store import Ingest

_READ_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Lot:
    """What is computed at once: sources of one registrant, and the series the results go to.

    With a ``uid_root``, doing it again makes the same objects, not further ones.
    """

    sources: Sequence[Held]
    series_instance_uid: str
    uid_root: str = ""
    part: int = 0
    parts: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """What is done to each lot of a request. ``made`` is when results say they were made, now unless given."""

    operation: str
    parameters: Mapping[str, str]
    series_description: str = ""
    version: str = ""
    made: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """How one lot ended: what is held of it, or why there is nothing."""

    held: Sequence[tuple[SOPClassUID, SOPInstanceUID]] = ()
    error: PacsError | None = None
    duration_ms: int = 0


class Computing:
    """Computes lots and holds what comes of them. Safe to use from many threads."""

    def __init__(
        self,
        *,
        index: RetrieveIndex,
        store: InstanceStore,
        processor: Processor,
        ingest: Ingest,
        ae_title: AETitle,
    ) -> None:
        self._index = index
        self._store = store
        self._processor = processor
        self._ingest = ingest
        self._ae_title = ae_title

    def done(self, recipe: Recipe, lot: Lot) -> Done:
        """Compute one lot and hold its results; that it cannot be is said, not raised.

        Raises what kept a result from being held.
        """
        request = ProcessingRequest(
            operation=recipe.operation,
            parameters=recipe.parameters,
            sources=[self._stored(one) for one in lot.sources],
            series_instance_uid=lot.series_instance_uid,
            series_description=recipe.series_description,
            version=recipe.version,
            part=lot.part,
            parts=lot.parts,
            made=recipe.made,
            uid_root=lot.uid_root,
        )
        began_s = time.monotonic()
        try:
            with self._processor.process(request) as results:
                for one in results:
                    self._hold(one, lot)
        except (ProcessingRefused, ProcessingFailed, ProcessingUnknown) as error:
            return Done(error=error)
        return Done(
            held=[(one.sop_class_uid, one.sop_instance_uid) for one in results],
            duration_ms=round((time.monotonic() - began_s) * 1_000),
        )

    def _stored(self, held: Held) -> StoredImage:
        return StoredImage(
            path=self._store.path(held.place),
            offset=held.place.data_set_offset,
            transfer_syntax_uid=held.transfer_syntax_uid,
        )

    def _hold(self, derived: DerivedImage, lot: Lot) -> None:
        """Take one result in, as its source's registrant would have sent it; once, where it has a root."""
        source = lot.sources[0]
        if lot.uid_root and self._is_held(derived, lot):
            return
        origin = self._store.read_meta(source.place)[0].provenance
        caller = replace(
            on_behalf(source.registrant, new_object_id()),
            issuer_of_patient_id=origin.issuer_of_patient_id,
            ae_title=self._ae_title,
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
                source_ae_title=self._ae_title,
                receiving_ae_title=self._ae_title,
            ),
        )
        with self._store.incoming(meta) as incoming, Path(derived.path).open("rb") as file:
            while piece := file.read(_READ_BYTES):
                incoming.write(memoryview(piece))
            self._ingest.accept(caller, incoming)

    def _is_held(self, derived: DerivedImage, lot: Lot) -> bool:
        """Tell whether this very object was held by an attempt that did not live to say so."""
        source = lot.sources[0]
        own = Visibility(registrants=frozenset({source.registrant}))
        selection = Selection(
            level=Level.IMAGE,
            study_instance_uids=(source.study_instance_uid,),
            series_instance_uids=(lot.series_instance_uid,),
            sop_instance_uids=(derived.sop_instance_uid,),
        )
        return bool(self._index.select(selection, own, 1))


def lots(
    takes: Takes, held: Sequence[Held], series_of: Callable[[tuple[str, ...]], str]
) -> Iterator[Lot]:
    """Say what is computed at once: an image, the volume of a series, or what a study has of one place.

    ``series_of`` names the series that results go to, by registrant, study and series of their sources.
    """
    groups: dict[tuple[str, ...], list[Held]] = {}
    for one in held:
        series = () if takes is Takes.STUDY else (one.series_instance_uid,)
        groups.setdefault((one.registrant, one.study_instance_uid, *series), []).append(one)
    for whose, group in groups.items():
        uid = series_of(whose)
        if takes is Takes.IMAGE:
            for one in group:
                yield Lot(sources=(one,), series_instance_uid=uid)
        else:
            yield Lot(sources=group, series_instance_uid=uid)


def data_set_bytes(held: Sequence[Held]) -> int:
    """How many bytes of Data Sets these are, as they lie."""
    return sum(one.place.size_bytes - one.place.data_set_offset for one in held)

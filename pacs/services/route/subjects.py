"""What is known of an instance when a route is judged: on arrival, in a file, or in the archive.

On arrival the index's own attributes are known and nothing is read. Of what is
held, the index is asked first; a file is read only where the index cannot say.
Of a patient, study or series the index knows the values of the earliest instance,
so an attribute of those levels matches where the index or the instance itself says so.
"""

from collections import OrderedDict
from collections.abc import Callable
from datetime import datetime
from typing import Final, TypeVar

from pydicom.dataset import Dataset

from pacs.core.attributes import Level
from pacs.core.conditions import Found
from pacs.core.errors import PacsError
from pacs.core.identifiers import AETitle, Registrant, TransferSyntaxUID
from pacs.core.records import Instance, Place
from pacs.services.find.entities import Entity, HeaderReader
from pacs.services.find.identifiers import Query, Source
from pacs.services.route.keys import Condition

_MOST_REMEMBERED: Final = 50_000
_ANY_QUERY = Query(level=Level.IMAGE, keys=(), combined=(), character_sets=(), relational=False)
Value = TypeVar("Value")


def own_text(instance: Instance, keyword: str) -> str:
    """The text of an indexed attribute as the instance itself has it."""
    if keyword == "PatientID":
        return instance.header.patient_id
    if keyword == "IssuerOfPatientID":
        return instance.header.issuer_of_patient_id
    return instance.header.values.get(keyword, "")


class Arriving:
    """An instance on its way in. What the index does not hold is not known yet."""

    __slots__ = ("_instance",)

    def __init__(self, instance: Instance) -> None:
        self._instance = instance

    @property
    def registrant(self) -> Registrant:
        """Whose it is."""
        return self._instance.provenance.registrant

    @property
    def calling_ae_title(self) -> AETitle:
        """Who sent it."""
        return self._instance.provenance.source_ae_title

    @property
    def called_ae_title(self) -> AETitle | None:
        """Whom the sender called."""
        return self._instance.provenance.receiving_ae_title

    @property
    def received_utc(self) -> datetime:
        """When it came."""
        return self._instance.provenance.received_utc

    def has(self, condition: Condition) -> bool | None:
        """Tell whether the attribute matches."""
        if condition.key.source is Source.INDEX:
            return condition.matches(own_text(self._instance, condition.key.keyword))
        return None

    def text(self, condition: Condition) -> str:
        """Give the attribute's text."""
        return own_text(self._instance, condition.key.keyword)


class InFile(Arriving):
    """An instance in a file, with all its attributes but those that need its study."""

    __slots__ = ("_entity",)

    def __init__(self, instance: Instance, header: Dataset) -> None:
        super().__init__(instance)
        modality = instance.header.values.get("Modality", "")
        self._entity = _entity(
            Found(
                row=0,
                values={
                    "ModalitiesInStudy": modality,
                    "SOPClassesInStudy": instance.header.sop_class_uid,
                },
                registrant=instance.provenance.registrant,
                received_utc=instance.provenance.received_utc.isoformat(),
                place=instance.place,
                transfer_syntax_uid=instance.transfer_syntax_uid,
            ),
            lambda _, __: header,
        )

    def has(self, condition: Condition) -> bool | None:
        """Tell whether the attribute matches."""
        if condition.key.source is Source.INDEX:
            return super().has(condition)
        found = condition.matches(_text(self._entity, condition))
        # What other instances of the study hold is not known.
        return found or (None if condition.key.source is Source.COMPUTED else False)

    def text(self, condition: Condition) -> str:
        """Give the attribute's text."""
        if condition.key.source is Source.INDEX:
            return super().text(condition)
        return _text(self._entity, condition)


class Memory:
    """What files said, so that they need not be read again; a file never changes."""

    def __init__(self) -> None:
        self._said: OrderedDict[tuple[str, str], object] = OrderedDict()

    def recall(self, key: tuple[str, str], ask: Callable[[], Value]) -> Value:
        """Give what was said, or ask and keep it; whatever is raised is not kept."""
        found = self._said.get(key)
        if found is None:
            found = ask()
            self._said[key] = found
            if len(self._said) > _MOST_REMEMBERED:
                self._said.popitem(last=False)
        return found  # type: ignore[return-value]  # under one key lie values of one type


class Kept:
    """An instance the archive holds: the index first, then its file, once."""

    def __init__(
        self,
        found: Found,
        source: AETitle,
        *,
        read: Callable[[Place], Instance],
        read_header: HeaderReader,
        memory: Memory,
    ) -> None:
        self._found = found
        self._source = source
        self._read = read
        self._memory = memory
        self._instance: Instance | None = None
        self._unreadable = False
        self._read_header = read_header
        self._entity = _entity(found, self._header)

    @property
    def registrant(self) -> Registrant:
        """Whose it is."""
        return Registrant(self._found.registrant)

    @property
    def calling_ae_title(self) -> AETitle:
        """Who sent it."""
        return self._source

    @property
    def called_ae_title(self) -> AETitle | None:
        """Whom the sender called; only the file knows."""
        return self._recalled("called", lambda: self._own().provenance.receiving_ae_title)

    @property
    def received_utc(self) -> datetime:
        """When it came."""
        return datetime.fromisoformat(self._found.received_utc)

    def has(self, condition: Condition) -> bool | None:
        """Tell whether the attribute matches; ``None`` where its file cannot be read."""
        source = condition.key.source
        if source is Source.HEADER:
            return self._recalled(condition.said, lambda: self._header_matches(condition))
        if condition.matches(_text(self._entity, condition)):
            return True
        if condition.decided_by_rows:
            return False
        keyword = condition.key.keyword
        return self._recalled(
            condition.said, lambda: condition.matches(own_text(self._own(), keyword))
        )

    def text(self, condition: Condition) -> str:
        """Give the attribute's text."""
        return _text(self._entity, condition)

    def _own(self) -> Instance:
        if self._instance is None:
            self._instance = self._read(_place(self._found))
        return self._instance

    def _header(self, place: Place, syntax: TransferSyntaxUID) -> Dataset:
        try:
            return self._read_header(place, syntax)
        except PacsError:
            self._unreadable = True  # the entity takes it for one without attributes
            raise

    def _header_matches(self, condition: Condition) -> bool:
        matches = condition.matches(_text(self._entity, condition))
        if self._unreadable:
            raise _Unreadable
        return matches

    def _recalled(self, what: str, ask: Callable[[], Value]) -> Value | None:
        try:
            return self._memory.recall((_place(self._found).object_id, what), ask)
        except PacsError:
            return None  # damage is found and reported by verification


class _Unreadable(PacsError):
    """The file of an instance cannot be read."""


def _place(found: Found) -> Place:
    if found.place is None:
        raise _Unreadable("an instance has a place")
    return found.place


def _entity(found: Found, read_header: HeaderReader) -> Entity:
    return Entity(found, _ANY_QUERY, read_header)


def _text(entity: Entity, condition: Condition) -> str:
    text = entity.text(condition.key)
    # A sequence without items has no value.
    return "" if condition.key.vr == "SQ" and text == "[]" else text

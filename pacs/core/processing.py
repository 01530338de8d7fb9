"""Processing of images: which operations there are, what is asked of one, and the port to whoever computes it."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from typing import Protocol

from pacs.core.identifiers import AETitle, SOPClassUID, SOPInstanceUID, TransferSyntaxUID


class Takes(Enum):
    """What one result of an operation is made of; each of these is a piece of work of its own."""

    IMAGE = "each image"
    SERIES = "each volume"
    STUDY = "images of the same place"


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """One parameter of an operation, in words: what it may be, what it is unless given, what for.

    Whether one that ``is_length`` is in mm or in pixels, the operation's parameter ``unit`` says.
    """

    name: str
    default: str
    bounds: str
    says: str
    is_length: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class OperationFact:
    """One operation as it is listed. ``code`` is its DCM code (PS3.16 CID 7203), where there is one.

    ``divisible``: its results on one volume may be computed in parts, see ``ProcessingRequest``.
    Whatever takes each image is divided by its sources.
    """

    name: str
    version: str
    takes: Takes
    summary: str
    code: str
    parameters: Sequence[Parameter]
    divisible: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredImage:
    """One source: its file, from ``offset`` on in that syntax."""

    path: str
    offset: int
    transfer_syntax_uid: TransferSyntaxUID


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessingRequest:
    """One piece of work: an operation with its parameters on sources, results into a series.

    ``version`` pins it, empty is the newest installed. Of a ``divisible`` operation, ``part`` of
    ``parts`` (counted from 0) computes its share of the results and no other; their numbers are
    those they have in the whole. A share may be empty.

    The same request with the same ``uid_root`` (any text) and ``made`` (when, ``None`` is now)
    gives the same bytes, however the sources or the parts are shared out; without a ``uid_root``
    every result has a new UID.
    """

    operation: str
    parameters: Mapping[str, str]
    sources: Sequence[StoredImage]
    series_instance_uid: str
    series_description: str = ""
    version: str = ""
    part: int = 0
    parts: int = 1
    made: datetime | None = None
    uid_root: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DerivedImage:
    """One result: a file that holds only its Data Set."""

    path: str
    sop_class_uid: SOPClassUID
    sop_instance_uid: SOPInstanceUID
    transfer_syntax_uid: TransferSyntaxUID


class Keep(Enum):
    """How long something stays held that processing took in or made."""

    YES = "yes"
    UNTIL_DONE = "until-done"  # until every destination has taken what was made


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessingOrder:
    """What shall be made of images, whoever asks: a workitem or a profile.

    ``version`` pins the operation to one of the installed software versions; empty takes the
    newest. Without ``destinations`` the results stay to be fetched. ``group`` names the nodes that
    may do it, empty is all.
    """

    operation: str
    version: str = ""
    parameters: Mapping[str, str] = field(default_factory=dict)
    series_description: str = ""
    destinations: tuple[AETitle, ...] = ()
    keep_results: Keep = Keep.YES
    group: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """An operation under an AE title of its own: what is sent there is processed so when it is quiet.

    ``asker`` adds the AE that sent it to the destinations. ``keep_sources`` is about what was sent there.
    """

    ae_title: AETitle
    order: ProcessingOrder
    asker: bool = False
    keep_sources: Keep = Keep.YES
    active: bool = True


class Processor(Protocol):
    """Computes derived images, bounded in time and memory; a crash does not reach the caller."""

    def checked(
        self, operation: str, parameters: Mapping[str, str], version: str = ""
    ) -> OperationFact:
        """Give the operation, the newest installed unless ``version`` pins it.

        Raises ``ProcessingUnknown`` where there is none, says which versions are where one is
        pinned that is not, or that it takes no such parameters.
        """
        ...

    def process(self, request: ProcessingRequest) -> AbstractContextManager[Sequence[DerivedImage]]:
        """Yield the results; their files are removed afterwards.

        Raises ``ProcessingRefused`` with the reason where these images cannot be
        processed so, ``ProcessingFailed`` where the work was not done within its bounds,
        ``ProcessingUnknown`` where the operation is not installed.
        """
        ...

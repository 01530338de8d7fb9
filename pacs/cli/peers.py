"""Calling a peer from the command line: who it is, what is asked, what its Status means.

Owns the two ways to name a peer, the identifier made of ``KEYWORD=VALUE`` and
the exit code of an answer. It refuses to know any one service.
"""

import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import wraps

import click
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataset import Dataset

from config.settings import Association, Settings
from pacs.association.message import Operation
from pacs.association.requested import RetrieveResponse
from pacs.association.tls import CALLS
from pacs.cli import exits
from pacs.cli.archive import opened
from pacs.cli.home import Home
from pacs.cli.keys import key_arguments, parse_keys
from pacs.cli.output import note, plain, progress
from pacs.core.attributes import Level
from pacs.core.caller import admin
from pacs.core.errors import EntryNotFound, NotInitialized
from pacs.core.identifiers import AETitle, is_ae_title
from pacs.core.records import Peer
from pacs.observe.log import configure
from scp.status import COMMON, category
from scu.status import meaning


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """A peer as the person named it: AE title added with ``pacs peer add``, or ``AE@host:port``."""

    text: str
    tls: bool = False


def peer_argument(command: Callable[..., int]) -> Callable[..., int]:
    """Give a command its peer, as ``named``."""

    @click.argument("named", metavar="AE")
    @click.option("--tls", is_flag=True, help="Call over TLS; a peer added so is called so anyway.")
    @wraps(command)
    def naming(*args: object, named: str, tls: bool, **options: object) -> int:
        return command(*args, named=Named(text=named, tls=tls), **options)

    return naming


_NUMBERS: Mapping[str, type[int] | type[float]] = {
    **dict.fromkeys(("US", "SS", "UL", "SL", "UV", "SV"), int),
    **dict.fromkeys(("FL", "FD"), float),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What a peer is asked: keys at a level of an information model."""

    level: Level
    keys: Mapping[str, str]
    patient_root: bool


def question_options(command: Callable[..., int]) -> Callable[..., int]:
    """Give a command its keys, ``--level`` and ``--model``, as one ``question``."""

    @key_arguments
    @click.option(
        "--level",
        type=click.Choice([one.value for one in Level], case_sensitive=False),
        default=Level.STUDY.value,
        show_default=True,
        help="Query/Retrieve Level.",
    )
    @click.option(
        "--model",
        type=click.Choice(["study", "patient"]),
        help="Information model; patient where the level is PATIENT, else study.",
    )
    @wraps(command)
    def asking(
        *args: object, keys: tuple[str, ...], level: str, model: str | None, **options: object
    ) -> int:
        asked = Level(level.upper())
        if asked is Level.PATIENT and model == "study":
            raise click.UsageError("the study model has no PATIENT level")
        question = Question(
            level=asked,
            keys=parse_keys(keys),
            patient_root=asked is Level.PATIENT or model == "patient",
        )
        return command(*args, question=question, **options)

    return asking


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """Whom we call, and as whom."""

    peer: Peer
    settings: Settings

    @property
    def ae_title(self) -> str:
        """Our own AE title."""
        return self.settings.dicom.ae_title

    @property
    def bounds(self) -> Association:
        """Bounds of the association."""
        return self.settings.association


def call(home: Home, named: Named) -> Call:
    """Resolve a peer by its name. Raises ``NotInitialized``, ``EntryNotFound`` or ``UsageError``.

    ``AE@host:port`` needs no archive; its settings are those of ``home``, the
    defaults where there is none.
    """
    settings = home.load().settings
    configure(settings.logging)
    CALLS.set_up(settings.tls, home.path)
    peer = _given(named.text) if "@" in named.text else _known(home, named.text)
    if settings.logging.level != "debug":
        # What it logs as errors is said in our own line, with what to do about it.
        logging.getLogger("pynetdicom").setLevel(logging.CRITICAL)
    return Call(peer=replace(peer, tls=named.tls or peer.tls), settings=settings)


def _given(named: str) -> Peer:
    ae_title, _, address = named.rpartition("@")
    host, _, port = address.rpartition(":")
    usable = is_ae_title(ae_title) and host and port.isascii() and port.isdigit()
    if not usable or not 1 <= int(port) <= 65_535:
        raise click.UsageError(f"{named!r} is not AE@host:port")
    return Peer(ae_title=AETitle(ae_title.strip()), host=host.strip("[]"), port=int(port))


def _known(home: Home, ae_title: str) -> Peer:
    try:
        with opened(home) as archive:
            return archive.peers.find(admin("peer"), ae_title)
    except NotInitialized as error:
        raise NotInitialized(
            f"{home.path} holds no archive, so a peer has to be named AE@host:port"
        ) from error
    except EntryNotFound as error:
        raise EntryNotFound(
            f"no peer is named {plain(ae_title)}; add it with 'pacs peer add AE HOST PORT',"
            " or name it AE@host:port"
        ) from error


def identifier_of(level: Level, keys: Mapping[str, str]) -> Dataset:
    """Make an identifier. Raises ``UsageError`` for what no key can be."""
    identifier = Dataset()
    identifier.QueryRetrieveLevel = level.value
    if not "".join(keys.values()).isascii():
        identifier.SpecificCharacterSet = "ISO_IR 192"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # whether a value suits its VR is the peer's to say
        for keyword, value in keys.items():
            _add(identifier, keyword, value)
    return identifier


def _add(identifier: Dataset, keyword: str, value: str) -> None:
    tag = tag_for_keyword(keyword)
    if tag is None:
        raise click.UsageError(f"{keyword} is not a DICOM keyword")
    vr = dictionary_VR(tag)
    if vr == "SQ" and value:
        raise click.UsageError(f"{keyword} is a sequence: it is asked for without a value")
    number = _NUMBERS.get(vr.partition(" ")[0])
    try:
        setattr(identifier, keyword, number(value) if number and value else value or None)
    except (ValueError, TypeError, OverflowError) as error:
        raise click.UsageError(f"{keyword} cannot be {value!r}") from error


def described(operation: Operation, status: int) -> str:
    """Write a Status as its number and its meaning.

    >>> described(Operation.C_MOVE, 0xA801)
    '0xA801 Refused: Move Destination unknown'
    """
    words = meaning(operation, status) or COMMON.get(status) or "not a Status of this service"
    return f"0x{status:04X} {words}"


def code_of(operation: Operation, status: int, comment: str = "") -> int:
    """Give the exit code of a final Status and say what it means unless it is success."""
    kind = category(status)
    if kind != "success":
        words = described(operation, status)
        note(words if plain(comment) in words else f"{words}: {plain(comment)}")
    return exits.DONE if kind in ("success", "warning") else exits.REFUSED


def followed(responses: Iterator[RetrieveResponse], label: str) -> RetrieveResponse:
    """Show a retrieve's progress and give its last response."""
    last = next(responses)
    with progress(_done(last) + last.progress.remaining or None, label) as advance:
        shown = 0
        while True:
            advance(max(0, _done(last) - shown))
            shown = max(shown, _done(last))
            following = next(responses, None)
            if following is None:
                return last
            last = following


def _done(response: RetrieveResponse) -> int:
    counters = response.progress
    return counters.completed + counters.failed + counters.warning


def concluded(operation: Operation, last: RetrieveResponse) -> int:
    """Say how a retrieve ended and give its exit code: 4 as soon as one sub-operation failed."""
    counters = last.progress
    if _done(last) or not last.status:
        note(f"{counters.completed} done, {counters.failed} failed, {counters.warning} warnings")
    code = code_of(operation, last.status, last.comment)
    return exits.REFUSED if counters.failed else code

"""What is held compressed goes to who gets compressed, and comes as it was received where that cannot be made."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
import pytest

from config.settings import Retrieve
from pacs.app.archive import Archive
from pacs.core.errors import TranscodingFailed
from pacs.core.forms import SYNTAXES
from pacs.core.identifiers import TransferSyntaxUID
from pacs.core.records import Payload, PeerEncoding, SendOutcome
from pacs.core.restoring import Restorer
from pacs.core.sending_ports import Transcoder
from pacs.services.delivery.ahead import Ahead
from pacs.services.delivery.choice import Choice
from pacs.services.delivery.contexts import Chosen, associations_for
from pacs.services.delivery.payloads import Payloads
from tests.forms import EXPLICIT, IMPLICIT, compress, fill
from tests.keeping import opened
from tests.transcoding import read_back

J70, J80, HT = (SYNTAXES[name] for name in ("jpeg-lossless", "jpeg-ls", "htj2k"))


@contextmanager
def started(home: Path) -> Iterator[Archive]:
    """Open an archive as a start does."""
    with opened(home) as archive:
        archive.reindex.recover()
        yield archive


class Taking:
    """A receiver that remembers what it is sent."""

    last_status: int | None = 0

    def __init__(self, *takes: TransferSyntaxUID) -> None:
        self._takes = takes
        self.got: dict[str, tuple[str, bytes]] = {}

    def accepted(self, sop_class_uid: str) -> tuple[TransferSyntaxUID, ...]:
        return self._takes

    def send(self, payload: Payload, originator: object, following: object = None) -> SendOutcome:
        wire = Path(payload.path).read_bytes()[payload.offset :]
        self.got[payload.sop_instance_uid] = (payload.transfer_syntax_uid, wire)
        return SendOutcome.SUCCESS

    def close(self) -> None: ...

    def abort(self) -> None: ...


def chosen(archive: Archive) -> list[Chosen]:
    rows = archive.database.execute("SELECT id, sop_class_uid, transfer_syntax_uid FROM instance")
    return [(int(row), sop_class, syntax) for row, sop_class, syntax in rows]


def sent(archive: Archive, taking: Taking, encoding: PeerEncoding) -> dict[str, tuple[str, bytes]]:
    waiting = archive.shipping.waiting(chosen(archive))
    with closing(archive.shipping.way(taking, waiting, encoding)) as way:  # type: ignore[arg-type]
        while way.send_next() is not None:
            continue
    return taking.got


def offered(archive: Archive, encoding: PeerEncoding) -> set[TransferSyntaxUID]:
    """The syntaxes of the contexts that one association proposes."""
    choice = Choice(encoding, archive.transcoder, Retrieve())
    (group,) = associations_for(chosen(archive), choice.wanted)
    return {syntax for _, (syntax,) in group.offers}


@pytest.mark.parametrize(
    ("takes", "expected"),
    [
        ((EXPLICIT, IMPLICIT, J70), J70),
        ((EXPLICIT, J70, J80), J80),
        ((EXPLICIT, J70, J80, HT), HT),
    ],
)
def test_who_gets_compressed_gets_the_best_it_takes_of_what_is_held_compressed(
    tmp_path: Path, takes: tuple[TransferSyntaxUID, ...], expected: TransferSyntaxUID
) -> None:
    with started(tmp_path) as archive:
        kept = fill(archive)
        compress(archive, "htj2k")
        got = sent(archive, Taking(*takes), PeerEncoding.COMPRESSED)
        assert {sop: syntax for sop, (syntax, _) in got.items()} == dict.fromkeys(kept, expected)
        for sop, (syntax, wire) in got.items():
            before, after = read_back(kept[sop], EXPLICIT), read_back(wire, syntax)
            assert np.array_equal(before.pixel_array, after.pixel_array)
        for policy in (PeerEncoding.AS_STORED, PeerEncoding.UNCOMPRESSED, PeerEncoding.COMPRESSED):
            plain = sent(archive, Taking(IMPLICIT, EXPLICIT), policy)
            assert plain == {sop: (EXPLICIT, wire) for sop, wire in kept.items()}


def test_a_move_offers_what_is_held_compressed_in_every_form_it_may_take(tmp_path: Path) -> None:
    with started(tmp_path) as archive:
        fill(archive, 1)
        compress(archive, "htj2k")
        assert {HT, EXPLICIT, IMPLICIT, J70, J80} <= offered(archive, PeerEncoding.COMPRESSED)
        assert offered(archive, PeerEncoding.AS_STORED) == {HT, EXPLICIT, IMPLICIT}


class Unable:
    """A transcoder whose encoders never work."""

    def __init__(self, able: Transcoder) -> None:
        self._able = able
        self.tried = 0

    @property
    def restorer(self) -> Restorer:
        return self._able.restorer

    def convertible(self, source: TransferSyntaxUID, target: TransferSyntaxUID) -> bool:
        return self._able.convertible(source, target)

    @contextmanager
    def convert(
        self, path: str, offset: int, source: TransferSyntaxUID, target: TransferSyntaxUID
    ) -> Iterator[str]:
        self.tried += 1
        if self.tried:
            raise TranscodingFailed
        yield path

    def same_content(self, left: object, right: object) -> bool:
        return False


def test_where_no_other_form_can_be_made_it_comes_bit_for_bit_as_received(tmp_path: Path) -> None:
    """Never by the codec alone: what it makes is another encoding, and not held to the digest."""
    with started(tmp_path) as archive:
        kept = fill(archive, 1)
        compress(archive, "htj2k")
        held = archive.shipping.waiting(chosen(archive)).take()
        assert held is not None
        unable = Unable(archive.transcoder)
        ahead = Ahead(Retrieve())
        payloads = Payloads(
            store=archive.store,
            transcoder=unable,
            choice=Choice(PeerEncoding.COMPRESSED, unable, Retrieve()),
            ahead=ahead,
        )
        with payloads.made(held, lambda _: (J80, IMPLICIT, EXPLICIT)) as made:
            assert unable.tried == 1
            assert made.transfer_syntax_uid == EXPLICIT
            assert Path(made.path).read_bytes()[made.offset :] == kept[held.sop_instance_uid]
        ahead.close()

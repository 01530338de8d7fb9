"""Which form a receiver gets, and which contexts are offered for it."""

from collections.abc import Sequence
from contextlib import AbstractContextManager

import pytest

from config.settings import Retrieve
from pacs.core.errors import TranscodingFailed
from pacs.core.identifiers import SOPClassUID, TransferSyntaxUID
from pacs.core.records import PeerEncoding
from pacs.services.delivery.choice import LOSSLESS, Choice
from pacs.services.delivery.contexts import Chosen, associations_for

AS_STORED, COMPRESSED, UNCOMPRESSED = (
    PeerEncoding.AS_STORED,
    PeerEncoding.COMPRESSED,
    PeerEncoding.UNCOMPRESSED,
)
CT, SR, CAPTURE = (SOPClassUID(f"1.2.840.10008.5.1.4.1.1.{end}") for end in ("2", "88.11", "7"))
EXPLICIT, IMPLICIT, BIG, DEFLATED, J50, J57, J70, J80, J81, J90, J91, HT, RPCL, HTLOSSY, RLE = (
    TransferSyntaxUID(f"1.2.840.10008.1.2{end}")
    for end in (
        *(".1", "", ".2", ".1.99", ".4.50"),
        *(".4.57", ".4.70", ".4.80", ".4.81", ".4.90", ".4.91", ".4.201", ".4.202", ".4.203"),
        ".5",
    )
)


LOSSY = (J50, J81, J91, HTLOSSY)


class Able:
    """A transcoder that says it can do everything but compress what a lossy codec made."""

    def convertible(self, source: TransferSyntaxUID, target: TransferSyntaxUID) -> bool:
        if target in (EXPLICIT, IMPLICIT, BIG, DEFLATED):
            return True
        return source not in LOSSY and source != target

    def convert(
        self, path: str, offset: int, source: TransferSyntaxUID, target: TransferSyntaxUID
    ) -> AbstractContextManager[str]:
        raise TranscodingFailed

    def same_content(self, left: object, right: object) -> bool:
        return False


def choice(encoding: PeerEncoding, settings: Retrieve | None = None) -> Choice:
    return Choice(encoding, Able(), settings or Retrieve())


@pytest.mark.parametrize(
    ("encoding", "source", "accepted", "expected"),
    [
        (AS_STORED, EXPLICIT, (J80, IMPLICIT, EXPLICIT), [EXPLICIT]),
        (AS_STORED, J50, (J50, EXPLICIT), [J50]),
        (AS_STORED, J50, (IMPLICIT, EXPLICIT), [EXPLICIT, IMPLICIT]),
        (AS_STORED, J90, (J80, J70), [J80, J70]),
        (AS_STORED, J90, (J80, IMPLICIT), [IMPLICIT, J80]),
        (AS_STORED, J91, (J80, J70), []),
        (AS_STORED, EXPLICIT, (J70, RLE, J80), [J80, J70, RLE]),
        (AS_STORED, BIG, (DEFLATED, IMPLICIT), [IMPLICIT, DEFLATED]),
        (UNCOMPRESSED, J70, (J70, IMPLICIT, EXPLICIT), [EXPLICIT, IMPLICIT, J70]),
        (UNCOMPRESSED, J50, (J50, IMPLICIT), [IMPLICIT, J50]),
        (UNCOMPRESSED, J70, (J70,), [J70]),
        (UNCOMPRESSED, IMPLICIT, (EXPLICIT, IMPLICIT), [IMPLICIT]),
        (UNCOMPRESSED, BIG, (EXPLICIT, BIG), [BIG]),
        (UNCOMPRESSED, DEFLATED, (DEFLATED, IMPLICIT), [IMPLICIT, DEFLATED]),
        (UNCOMPRESSED, EXPLICIT, (J80, IMPLICIT), [IMPLICIT, J80]),
        (COMPRESSED, EXPLICIT, (EXPLICIT, IMPLICIT, J70, J90), [J90, J70, EXPLICIT, IMPLICIT]),
        (COMPRESSED, EXPLICIT, (J57, HT, RLE), [HT, J57, RLE]),
        (COMPRESSED, J70, (EXPLICIT, J80, J70), [J70, J80, EXPLICIT]),
        (COMPRESSED, HT, (EXPLICIT, J70, J90, J80), [J80, J90, J70, EXPLICIT]),
        (COMPRESSED, RPCL, (EXPLICIT, J80, RPCL), [RPCL, J80, EXPLICIT]),
        (COMPRESSED, RLE, (RLE, J80, EXPLICIT), [RLE, J80, EXPLICIT]),
        (COMPRESSED, J50, (EXPLICIT, J80, J50), [J50, EXPLICIT]),
        (COMPRESSED, DEFLATED, (EXPLICIT, J80, DEFLATED), [DEFLATED, J80, EXPLICIT]),
        (COMPRESSED, J50, (IMPLICIT, J80, J70), [IMPLICIT]),
    ],
)
def test_forms_in_the_order_in_which_they_are_tried(
    encoding: PeerEncoding,
    source: TransferSyntaxUID,
    accepted: tuple[TransferSyntaxUID, ...],
    expected: list[TransferSyntaxUID],
) -> None:
    assert list(choice(encoding).forms(CT, source, accepted)) == expected


@pytest.mark.parametrize("encoding", list(PeerEncoding))
@pytest.mark.parametrize("source", LOSSY)
def test_what_a_lossy_codec_made_is_never_compressed_again(
    encoding: PeerEncoding, source: TransferSyntaxUID
) -> None:
    everything = (EXPLICIT, IMPLICIT, *LOSSY, J57, J70, J80, J90, HT, RLE)
    forms = choice(encoding).forms(CT, source, everything)
    assert set(forms) <= {source, EXPLICIT, IMPLICIT}
    assert source in forms


@pytest.mark.parametrize("source", [J57, J70, J80, J90, HT, RPCL, RLE])
@pytest.mark.parametrize("encoding", [AS_STORED, COMPRESSED])
def test_what_is_stored_compressed_is_sent_as_it_lies_where_it_is_taken(
    encoding: PeerEncoding, source: TransferSyntaxUID
) -> None:
    everything = (EXPLICIT, IMPLICIT, J57, J70, J80, J90, HT, RPCL, RLE)
    assert choice(encoding).forms(CT, source, everything)[0] == source


def test_the_order_of_compression_is_a_setting() -> None:
    settings = Retrieve(compressed_order=("rle", "jpeg-lossless"))
    forms = choice(COMPRESSED, settings).forms(CT, EXPLICIT, (J80, J70, RLE, EXPLICIT))
    assert list(forms) == [RLE, J70, EXPLICIT]
    assert set(Retrieve().compressed_order) == set(LOSSLESS)


def test_objects_without_pixels_are_not_compressed_in_vain() -> None:
    compressing = choice(COMPRESSED)
    assert compressing.wanted(SR, [EXPLICIT]) == ()
    assert list(compressing.forms(SR, EXPLICIT, (J80, EXPLICIT, IMPLICIT))) == [EXPLICIT, IMPLICIT]


def test_a_class_that_never_compresses_is_not_tried_for_ever() -> None:
    compressing, accepted = choice(COMPRESSED), (J80, J70, EXPLICIT)
    for _ in range(3):
        assert list(compressing.forms(CT, EXPLICIT, accepted)) == [J80, J70, EXPLICIT]
        compressing.tried((CT, EXPLICIT, J80), well=False)
    assert list(compressing.forms(CT, EXPLICIT, accepted)) == [J70, EXPLICIT]
    assert list(compressing.forms(CT, IMPLICIT, accepted))[:1] == [J80], "from another form it may"
    assert list(compressing.forms(CT, EXPLICIT, (J80,))) == [J80], "there is nothing else"


def test_one_that_fails_now_and_then_is_tried_each_time() -> None:
    compressing, accepted = choice(COMPRESSED), (J80, EXPLICIT)
    compressing.tried((CT, EXPLICIT, J80), well=True)
    for _ in range(50):
        compressing.tried((CT, EXPLICIT, J80), well=False)
    assert list(compressing.forms(CT, EXPLICIT, accepted)) == [J80, EXPLICIT]


def test_what_the_receiver_needs_is_tried_for_each_instance() -> None:
    plain = choice(UNCOMPRESSED)
    for _ in range(50):
        plain.tried((CT, J70, EXPLICIT), well=False)
    assert list(plain.forms(CT, J70, (EXPLICIT, J70))) == [EXPLICIT, J70]


def classes(count: int) -> list[Chosen]:
    return [(row, SOPClassUID(f"1.2.{row}"), EXPLICIT) for row in range(count)]


def offered(chosen: Sequence[Chosen], encoding: PeerEncoding) -> list[list[TransferSyntaxUID]]:
    """The syntaxes of each association's contexts."""
    groups = associations_for(chosen, choice(encoding).wanted)
    assert sorted(row for group in groups for row in group.rows) == [row for row, _, _ in chosen]
    for group in groups:
        assert len(set(group.offers)) == len(group.offers) <= 128
    return [[one for _, (one,) in group.offers] for group in groups]


def test_only_what_can_be_compressed_is_offered_compressed() -> None:
    for lossy in LOSSY:
        assert offered([(1, CT, lossy)], COMPRESSED) == [[lossy, EXPLICIT, IMPLICIT]]
    assert offered([(1, CT, HT)], AS_STORED) == [[HT, EXPLICIT, IMPLICIT]]
    assert offered([(1, CT, HT)], COMPRESSED) == [[HT, EXPLICIT, IMPLICIT, J80, J90, J70, J57, RLE]]
    assert offered([(1, CT, EXPLICIT)], UNCOMPRESSED) == [[EXPLICIT, IMPLICIT]]
    assert offered([(1, CT, EXPLICIT)], AS_STORED) == [[EXPLICIT, IMPLICIT]]
    assert offered([(1, CT, EXPLICIT)], COMPRESSED) == [
        [EXPLICIT, IMPLICIT, J80, J90, HT, J70, J57, RLE]
    ]


@pytest.mark.parametrize("count", [1, 62, 63, 200])
@pytest.mark.parametrize("encoding", [AS_STORED, COMPRESSED])
def test_what_an_image_may_become_is_offered_on_every_association(
    count: int, encoding: PeerEncoding
) -> None:
    groups = associations_for(classes(count), choice(encoding).wanted, (CAPTURE,))
    assert len(groups) == -(-count // 63), "126 contexts of them, and two besides"
    for group in groups:
        assert len(set(group.offers)) == len(group.offers) <= 128
        assert {(CAPTURE, (EXPLICIT,)), (CAPTURE, (IMPLICIT,))} <= set(group.offers)
    packed = (CAPTURE, (J80,)) in groups[0].offers
    assert packed == (encoding is COMPRESSED and count < 63), "where there is room"


def test_what_is_held_beside_what_an_image_may_become_is_offered_once() -> None:
    (group,) = associations_for([(1, CAPTURE, J50), (2, CT, J70)], besides=(CAPTURE,))
    assert group.offers == [
        *((CAPTURE, (one,)) for one in (EXPLICIT, IMPLICIT, J50)),
        *((CT, (one,)) for one in (J70, EXPLICIT, IMPLICIT)),
    ]


def test_a_syntax_that_is_stored_too_is_offered_once() -> None:
    (syntaxes,) = offered([(1, CT, EXPLICIT), (2, CT, J80)], COMPRESSED)
    assert syntaxes == [EXPLICIT, J80, IMPLICIT, J90, HT, J70, J57, RLE]


@pytest.mark.parametrize("count", [1, 16, 30, 64, 65, 200])
def test_compression_costs_no_further_association(count: int) -> None:
    plain, widened = offered(classes(count), AS_STORED), offered(classes(count), COMPRESSED)
    assert len(widened) == len(plain)
    for before, after in zip(plain, widened, strict=True):
        assert after[: len(before)] == before
        assert len(after) == min(128, 4 * len(before))


def test_the_best_is_offered_for_every_class_before_the_second_best_for_any() -> None:
    (syntaxes,) = offered(classes(40), COMPRESSED)
    assert syntaxes[80:] == [J80] * 40 + [J90] * 8

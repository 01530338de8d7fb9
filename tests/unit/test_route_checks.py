"""What makes no sense as a route is refused before it is kept, with one clear line."""

from dataclasses import replace
from typing import Any

import pytest

from pacs.core.attributes import Level
from pacs.core.errors import DestinationUnknown, EntryConflicts
from pacs.core.identifiers import AETitle, Registrant
from pacs.core.records import Peer
from pacs.core.routing import Coercion, CoercionKind, Priors, Route
from pacs.services.route.checks import Ourselves, check

PEERS = {
    one.ae_title: one
    for one in (
        Peer(ae_title=AETitle("DEST"), host="127.0.0.1", port=11113),
        Peer(ae_title=AETitle("FAR"), host="10.0.0.1", port=11112),
        Peer(ae_title=AETitle("SELF"), host="localhost", port=11112),
        Peer(ae_title=AETitle("HERE"), host="192.0.2.7", port=11112),
    )
}
OURSELVES = Ourselves(ae_title=AETitle("PACS"), host="192.0.2.7", port=11112)
GOOD = Route(name="r", level=Level.STUDY, destinations=(AETitle("DEST"), AETitle("FAR")))
SET, DELETE, MAP, PREFIX = CoercionKind


def refusal(**change: Any) -> str:
    with pytest.raises(EntryConflicts) as refused:
        check(replace(GOOD, **change), PEERS, OURSELVES)
    line = str(refused.value)
    assert line and "\n" not in line
    return line


def coerced(kind: CoercionKind, keyword: str, value: str = "", **mapping: str) -> dict[str, Any]:
    one = Coercion(kind=kind, keyword=keyword, value=value, mapping=mapping)
    return {"coercions": (one,)}


@pytest.mark.parametrize("name", ["", "a|b", "ü", "-a", "a" * 65, "a b", "a\n"])
def test_names_that_no_key_or_command_takes_are_refused(name: str) -> None:
    assert "name has" in refusal(name=name)


def test_destinations_are_peers_other_than_ourselves() -> None:
    assert "needs a destination" in refusal(destinations=())
    assert "twice" in refusal(destinations=(AETitle("DEST"), AETitle("DEST")))
    for own in ("SELF", "HERE"):
        assert "is this archive itself" in refusal(destinations=(AETitle(own),))
    with pytest.raises(DestinationUnknown, match="no peer is named NOPE"):
        check(replace(GOOD, destinations=(AETitle("NOPE"),)), PEERS, OURSELVES)


def test_numbers_have_bounds() -> None:
    assert "priority" in refusal(priority=1_001)
    assert "priority" in refusal(priority=-1_001)
    assert "prior studies" in refusal(priors=Priors(latest=0))
    assert "prior studies" in refusal(priors=Priors(latest=101))
    assert "lie within" in refusal(priors=Priors(latest=1, within_days=0))
    assert "waits for" in refusal(level=Level.PATIENT)
    assert "registrant" in refusal(registrants=(Registrant(""),))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (coerced(SET, "StudyInstanceUID", "1.2"), "is a UID"),
        (coerced(DELETE, "FrameOfReferenceUID"), "is a UID"),
        (coerced(MAP, "SOPClassUID", **{"1.2": "1.3"}), "is a UID"),
        (coerced(SET, "MediaStorageSOPClassUID", "1"), "no attribute of a Data Set"),
        (coerced(DELETE, "TransferSyntaxUID"), "no attribute of a Data Set"),
        (coerced(SET, "PixelData", "0"), "how other values are read"),
        (coerced(DELETE, "PixelData"), "how other values are read"),
        (coerced(SET, "SpecificCharacterSet", "ISO_IR 100"), "how other values are read"),
        (coerced(SET, "Rows", "1"), "how other values are read"),
        (coerced(SET, "Nothing", "1"), "is not a DICOM keyword"),
        (coerced(SET, "RequestAttributesSequence", "1"), "cannot be given a set"),
        (coerced(SET, "EncapsulatedDocument", "1"), "cannot be given a set"),
        (coerced(MAP, "EncapsulatedDocument", a="b"), "cannot be given a map"),
        (coerced(SET, "StudyDate", "2024"), "cannot be '2024'"),
        (coerced(SET, "Modality", "ct"), "cannot be 'ct'"),
        (coerced(SET, "AccessionNumber", "12345678901234567"), "cannot be"),
        (coerced(SET, "StudyDescription", "a\nb"), "cannot be"),
        (coerced(SET, "InstanceNumber", "one"), "cannot be 'one'"),
        (coerced(SET, "PatientWeight", "heavy"), "cannot be 'heavy'"),
        (coerced(SET, "SmallestImagePixelValue", "70000"), "cannot be '70000'"),
        (coerced(SET, "RecommendedDisplayFrameRateInFloat", "inf"), "cannot be 'inf'"),
        (coerced(SET, "ImageType", "ORIGINAL\\primary"), "cannot be 'primary'"),
        (coerced(MAP, "Modality"), "at least one pair"),
        (coerced(MAP, "Modality", CT="ct"), "cannot be 'ct'"),
        (coerced(PREFIX, "PatientID"), "at least one character"),
        (coerced(PREFIX, "StudyDate", "2"), "cannot be given a prefix"),
        (coerced(PREFIX, "SeriesNumber", "2"), "cannot be given a prefix"),
    ],
)
def test_changes_that_would_break_what_is_sent_are_refused(
    change: dict[str, Any], said: str
) -> None:
    assert said in refusal(**change)


def test_one_attribute_is_changed_in_one_way() -> None:
    both = (
        *coerced(SET, "PatientID", "1")["coercions"],
        *coerced(DELETE, "PatientID")["coercions"],
    )
    assert "more than one way" in refusal(coercions=both)


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"priority": -1_000, "priors": Priors(latest=100, within_days=36_500)},
        coerced(SET, "StudyDate", "20240229"),
        coerced(SET, "StudyDate"),
        coerced(SET, "PatientName", "Doe^Jane=山田"),
        coerced(SET, "ImageType", "ORIGINAL\\PRIMARY"),
        coerced(SET, "PatientComments", "two\nlines \\ here"),
        coerced(SET, "SmallestImagePixelValue", "65535"),
        coerced(SET, "PatientWeight", "71.5"),
        coerced(DELETE, "RequestAttributesSequence"),
        coerced(DELETE, "EncapsulatedDocument"),
        coerced(MAP, "Modality", CT="MR", OT=""),
        coerced(PREFIX, "PatientID", "X-"),
    ],
)
def test_what_makes_sense_is_kept(change: dict[str, Any]) -> None:
    check(replace(GOOD, **change), PEERS, OURSELVES)

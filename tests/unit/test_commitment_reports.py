"""What counts as committed: what was asked for, named as referenced, and not as failed."""

from pydicom.dataset import Dataset

from pacs.core.commitment import Reference
from pacs.core.identifiers import SOPClassUID, SOPInstanceUID
from pacs.services.commitment.reports import judged

CT, MR = SOPClassUID("1.2.840.10008.5.1.4.1.1.2"), SOPClassUID("1.2.840.10008.5.1.4.1.1.4")
ASKED: tuple[Reference, ...] = tuple((CT, SOPInstanceUID(f"1.{n}")) for n in range(1, 5))


def item(uid: str, sop_class_uid: str = CT, **more: object) -> Dataset:
    made = Dataset()
    made.ReferencedSOPClassUID, made.ReferencedSOPInstanceUID = sop_class_uid, uid
    for keyword, value in more.items():
        setattr(made, keyword, value)
    return made


def information(committed: list[Dataset], failed: list[Dataset]) -> Dataset:
    made = Dataset()
    if committed:
        made.ReferencedSOPSequence = committed
    if failed:
        made.FailedSOPSequence = failed
    return made


def test_all_are_committed() -> None:
    told = information([item(uid) for _, uid in ASKED], [])
    assert judged(ASKED, told).failed == {}


def test_what_is_missing_in_both_sequences_has_failed() -> None:
    told = information([item("1.1")], [item("1.2", FailureReason=0x0119)])
    assert judged(ASKED, told).failed == {"1.2": 0x0119, "1.3": 0, "1.4": 0}
    assert judged(ASKED, Dataset()).failed == {uid: 0 for _, uid in ASKED}


def test_what_is_in_both_sequences_has_failed() -> None:
    told = information([item(uid) for _, uid in ASKED], [item("1.4", FailureReason=0x0110)])
    assert judged(ASKED, told).failed == {"1.4": 0x0110}


def test_another_class_than_asked_is_a_conflict() -> None:
    told = information([item(uid, MR) for _, uid in ASKED], [])
    assert set(judged(ASKED, told).failed.values()) == {0x0119}


def test_a_failure_without_its_reason_is_a_failure() -> None:
    told = information(
        [item(uid) for _, uid in ASKED[2:]], [item("1.1"), item("1.2", FailureReason=[1, 2])]
    )
    assert judged(ASKED, told).failed == {"1.1": 0x0110, "1.2": 0x0110}


def test_instances_nobody_asked_for_are_nothing_to_us() -> None:
    others = [item("9.1"), item(""), Dataset()]
    told = information([*others, *(item(uid) for _, uid in ASKED)], others)
    assert judged(ASKED, told).failed == {}

"""Reducing on the way out: which, how far, and what never leaves."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from pydicom.dataset import Dataset

from config.settings import Settings
from pacs.app.reduced import Reducer
from pacs.core.errors import ProcessingFailed, ProcessingRefused, ProcessingUnknown
from pacs.core.identifiers import (
    Digest,
    Registrant,
    SeriesInstanceUID,
    SOPClassUID,
    SOPInstanceUID,
    StudyInstanceUID,
    TransferSyntaxUID,
    derived_uid,
    new_object_id,
)
from pacs.core.processing import DerivedImage, OperationFact, ProcessingRequest, Takes
from pacs.core.records import Held, Payload, Place
from pacs.services.delivery.reduced import Reduction
from tests.archive import data_set_offset
from tests.keeping import encoded
from tests.phantoms import ct_series, saved

CT, EXPLICIT = SOPClassUID("1.2.840.10008.5.1.4.1.1.2"), TransferSyntaxUID("1.2.840.10008.1.2.1")


def held_one(*, digest: str = "blake3:aa", sop: str = "1.2.3.4") -> Held:
    return Held(
        registrant=Registrant("a"),
        study_instance_uid=StudyInstanceUID("1.2"),
        series_instance_uid=SeriesInstanceUID("1.2.3"),
        sop_class_uid=CT,
        sop_instance_uid=SOPInstanceUID(sop),
        transfer_syntax_uid=EXPLICIT,
        digest=Digest(digest),
        place=Place(
            name="x",
            object_id=new_object_id(1_767_225_600_123),
            size_bytes=1_300,
            data_set_offset=300,
        ),
    )


def payload_of(held: Held, path: str = "/nowhere", offset: int = 300) -> Payload:
    return Payload(
        sop_class_uid=held.sop_class_uid,
        sop_instance_uid=held.sop_instance_uid,
        transfer_syntax_uid=held.transfer_syntax_uid,
        path=path,
        offset=offset,
    )


class Computer:
    """A processor that writes images of these sizes, and remembers what it was asked."""

    def __init__(self, folder: Path, *sizes: Mapping[str, int], version: str = "1.0") -> None:
        self.folder, self.sizes, self.version = folder, sizes, version
        self.asked: list[ProcessingRequest] = []

    def checked(self, operation: str, parameters: Mapping[str, str]) -> OperationFact:
        return OperationFact(
            name=operation,
            version=self.version,
            takes=Takes.IMAGE,
            summary="",
            code="",
            parameters=(),
        )

    @contextmanager
    def process(self, request: ProcessingRequest) -> Iterator[Sequence[DerivedImage]]:
        self.asked.append(request)
        made = []
        for number, size in enumerate(self.sizes):
            one = Dataset()
            one.PatientName = "Doe"
            for keyword, value in size.items():
                setattr(one, keyword, value)
            path = self.folder / f"{number}.dcm"
            path.write_bytes(encoded(one))
            made.append(
                DerivedImage(
                    path=str(path),
                    sop_class_uid=CT,
                    sop_instance_uid=SOPInstanceUID("2.25.1"),
                    transfer_syntax_uid=EXPLICIT,
                )
            )
        yield made


@pytest.fixture
def asked_of(tmp_path: Path) -> Callable[..., ProcessingRequest]:
    def asked(held: Held, bound: int = 256, side: int = 512, **more: str) -> ProcessingRequest:
        computer = Computer(tmp_path, {"Rows": 1, "Columns": 1}, **more)
        reduction = Reduction(lambda: computer, bound, {held.place.object_id: side})
        with reduction.preparation.make(held, payload_of(held)):
            pass
        return computer.asked[0]

    return asked


def test_what_is_asked_follows_from_source_bound_and_version(
    asked_of: Callable[..., ProcessingRequest],
) -> None:
    held = held_one()
    first = asked_of(held)
    assert first == asked_of(held)
    assert first.made == datetime(2026, 1, 1, tzinfo=UTC), "when it was registered"
    others = [
        asked_of(held_one(digest="blake3:bb")),
        asked_of(held_one(sop="1.2.3.5")),
        asked_of(held, version="1.1"),
        asked_of(held, bound=255),
    ]
    assert len({one.uid_root for one in (first, *others)}) == 5
    in_series = [one.series_instance_uid == first.series_instance_uid for one in others]
    assert in_series == [True, True, True, False]


@pytest.mark.parametrize("bound", [1, 3, 255, 256, 300, 511, 4_095])
@pytest.mark.parametrize("side", [512, 513, 1_000, 4_097, 65_535])
def test_the_greater_side_becomes_the_bound(
    asked_of: Callable[..., ProcessingRequest], bound: int, side: int
) -> None:
    if bound < side:
        factor = float(asked_of(held_one(), bound, side).parameters["factor"])
        assert round(side * factor) == bound
        assert round((side - 1) * factor) <= bound


@pytest.mark.parametrize(
    ("sizes", "error"),
    [
        ([], ProcessingRefused),
        ([{"Rows": 9, "Columns": 9}] * 2, ProcessingRefused),
        ([{"Rows": 257, "Columns": 9}], ProcessingFailed),
        ([{"Rows": 9, "Columns": 257}], ProcessingFailed),
        ([{"Rows": 9}], ProcessingFailed),
    ],
)
def test_what_is_not_one_image_within_the_bound_does_not_leave(
    tmp_path: Path, sizes: list[dict[str, int]], error: type[Exception]
) -> None:
    held = held_one()
    reduction = Reduction(lambda: Computer(tmp_path, *sizes), 256, {held.place.object_id: 512})
    with pytest.raises(error) as raised, reduction.preparation.make(held, payload_of(held)):
        pytest.fail("it would have been sent")
    assert Reduction.is_refusal(raised.value)
    assert reduction.of(held) is None


def test_only_what_is_denser_is_reduced_and_counts_once(tmp_path: Path) -> None:
    dense, other = held_one(), held_one()
    computer = Computer(tmp_path, {"Rows": 256, "Columns": 200})
    reduction = Reduction(lambda: computer, 256, {dense.place.object_id: 512})
    assert reduction.preparation.applies(dense)
    assert not reduction.preparation.applies(other)
    with reduction.preparation.make(dense, payload_of(dense)) as payload:
        assert (payload.sop_instance_uid, payload.offset) == ("2.25.1", 0)
    done = reduction.of(dense)
    assert done is not None
    assert (done.size_bytes, reduction.of(dense), reduction.of(other)) == (1_000, None, None)


def test_uids_are_those_of_version_8_uuids() -> None:
    uids = {derived_uid("1.2", str(number)) for number in range(500)}
    assert len(uids) == 500
    for uid in uids:
        value = int(uid.removeprefix("2.25."))
        assert (value >> 76 & 0xF, value >> 62 & 0b11, value >> 128) == (8, 0b10, 0)
    assert derived_uid("1", "2") != derived_uid("12") != derived_uid("1\x002", "")


def test_nothing_is_started_before_the_first_and_nothing_stays(tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    reducer = Reducer(Settings(), scratch)
    reducer.close()
    assert not scratch.exists()
    with pytest.raises(ProcessingFailed):
        reducer()
    (file,) = saved(ct_series(count=1, rows=40, columns=48), tmp_path / "in")
    held = held_one()
    with closing(Reducer(Settings(), scratch)) as again:
        reduction = Reduction(again, 24, {held.place.object_id: 48})
        stored = payload_of(held, str(file), data_set_offset(file))
        with reduction.preparation.make(held, stored) as payload:
            assert Path(payload.path).stat().st_size > 20 * 24 * 2
        assert not Path(payload.path).exists()
        assert list(scratch.iterdir()) == []
        tiny = Reduction(again, 1, {held.place.object_id: 4_000})
        with pytest.raises(ProcessingUnknown), tiny.preparation.make(held, stored):
            pytest.fail("a hundredth is the least")
        gone = replace(stored, path=str(tmp_path / "gone"))
        with pytest.raises(ProcessingFailed), reduction.preparation.make(held, gone):
            pytest.fail("there is nothing to reduce")

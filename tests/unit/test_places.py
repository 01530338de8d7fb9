"""Which images show one place: told by what they state, never guessed; and which came first."""

import random
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset, FileDataset
from pydicom.sequence import Sequence as Items

from processing.datasets.places import PlaceUnknown, place_of, time_of
from tests.phantoms import ct_series, hounsfield, image, patient, saved
from tests.unit.test_derived import XA, asked, enhanced, made

CLASS = "1.2.840.10008.5.1.4.1.1."
SLIDE, NM, DX = f"{CLASS}77.1.6", f"{CLASS}20", f"{CLASS}1.1"
CAPTURE, CAPTURES, ULTRASOUND = f"{CLASS}7", f"{CLASS}7.2", f"{CLASS}6.1"
POINTERS = {
    "frame-time": 0x0018_1063,
    "frame-times": 0x0018_1065,
    "windows": 0x0054_0010,
    "detectors": 0x0054_0020,
    "time-slots": 0x0054_0070,
    "slices": 0x0054_0080,
    "angles": 0x0054_0090,
    "offsets": 0x3004_000C,
    "pages": 0x0018_2001,
}


def unplaced(sop_class: str, frames: int = 1, **says: Any) -> FileDataset:
    """An image that states no position."""
    samples = np.arange(frames * 64, dtype=np.uint16).reshape(frames, 8, 8)
    one = image(samples if frames > 1 else samples[0], patient(), sop_class=sop_class)
    for name in ("ImagePositionPatient", "ImageOrientationPatient", "FrameOfReferenceUID"):
        delattr(one, name)
    if frames > 1:
        one.NumberOfFrames = frames
    for name, value in says.items():
        setattr(one, name, value)
    return one


def pointed(sop_class: str, *names: str, frames: int = 4, **says: Any) -> FileDataset:
    pointers = [POINTERS[name] for name in names]
    return unplaced(sop_class, frames, FrameIncrementPointer=pointers, **says)


def test_images_of_one_place_have_that_in_common() -> None:
    one, other = ct_series(count=2, rows=4, columns=6)
    again = deepcopy(one)
    assert place_of(one, 0) == place_of(again, 0) != place_of(other, 0)
    again.FrameOfReferenceUID = "1.2.3"
    assert place_of(one, 0) != place_of(again, 0)


@pytest.mark.parametrize(
    "source",
    [
        unplaced(XA, 4),
        unplaced(ULTRASOUND.replace("6.1", "3.1"), 4),
        pointed(XA, "frame-time"),
        pointed(CAPTURES, "frame-times"),
        pointed(NM, "time-slots", "detectors", DetectorVector=[1, 1, 1, 1]),
    ],
)
def test_frames_that_differ_in_time_show_one_place(source: FileDataset) -> None:
    assert len({place_of(source, frame) for frame in range(4)}) == 1
    other = deepcopy(source)
    other.SOPInstanceUID = "1.2.3"
    assert place_of(other, 0) != place_of(source, 0), "another run may lie anywhere"


def test_frames_of_several_detectors_or_energies_are_told_apart() -> None:
    source = pointed(
        NM,
        "windows",
        "detectors",
        "time-slots",
        frames=8,
        EnergyWindowVector=[1, 1, 1, 1, 2, 2, 2, 2],
        DetectorVector=[1, 1, 2, 2, 1, 1, 2, 2],
        TimeSlotVector=[1, 2] * 4,
    )
    places = [place_of(source, frame) for frame in range(8)]
    assert len(set(places)) == 4 and places[0] == places[1] != places[2]


@pytest.mark.parametrize(
    ("source", "says"),
    [
        (unplaced(SLIDE, 4, TotalPixelMatrixRows=16, TotalPixelMatrixColumns=16), "tiles"),
        (
            pointed(CAPTURES, "offsets", GridFrameOffsetVector=[0, 3, 6, 9]),
            "Grid Frame Offset Vector",
        ),
        (pointed(NM, "slices", SliceVector=[1, 2, 3, 4]), "slices behind each other"),
        (unplaced(NM, 4, SpacingBetweenSlices="3"), "slices behind each other"),
        (pointed(NM, "angles", AngularViewVector=[1, 2, 3, 4]), "different angles"),
        (pointed(CAPTURES, "pages"), "more than time"),
        (unplaced(CAPTURES, 4), "do not say that they differ in time only"),
        (pointed(XA, "frame-time", PositionerMotion="DYNAMIC"), "the positioner moves"),
        (unplaced(XA, 4, TableMotion="DYNAMIC"), "the table moves"),
    ],
)
def test_frames_that_differ_in_place_are_refused_with_the_reason(
    source: FileDataset, says: str, tmp_path: Path
) -> None:
    with pytest.raises(PlaceUnknown, match=says):
        place_of(source, 0)
    files = saved([source], tmp_path / "in")
    for operation in ("add", "mean", "subtract"):
        refused = asked(operation, files, tmp_path / "out")["refused"]
        assert refused.startswith("no two images show the same place; ") and says in refused


def pair(sop_class: str, **says: Sequence[str]) -> list[FileDataset]:
    """Two images of one series that differ in these."""
    made_ = [unplaced(sop_class) for _ in range(2)]
    for number, one in enumerate(made_):
        one.SeriesInstanceUID, one.InstanceNumber = "1.2.3", number + 1
        for name, values in says.items():
            setattr(one, name, values[number])
    return made_


@pytest.mark.parametrize("sop_class", [XA, DX, CAPTURE, ULTRASOUND])
def test_single_images_of_one_stated_view_show_one_place(sop_class: str) -> None:
    one, other = pair(sop_class, ViewPosition=["PA", "PA"], ImageLaterality=["U", "U"])
    assert place_of(one, 0) == place_of(other, 0)
    other.SeriesInstanceUID = "1.2.4"
    assert place_of(one, 0) != place_of(other, 0)


@pytest.mark.parametrize(
    "says",
    [
        {"ViewPosition": ["PA", "LL"]},
        {"ViewPosition": ["CC", "CC"], "ImageLaterality": ["L", "R"]},
        {"Laterality": ["L", "R"]},
        {"PatientOrientation": [["L", "F"], ["P", "F"]]},
        {"PositionerPrimaryAngle": ["0", "90"]},
        {"PositionerPrimaryAngle": ["0", "0"], "PositionerSecondaryAngle": ["0", "-20"]},
        {"ViewPosition": ["PA", "PA"], "ImagerPixelSpacing": [[0.1, 0.1], [0.2, 0.2]]},
    ],
)
def test_differing_views_are_differing_places(says: Any, tmp_path: Path) -> None:
    images = pair(DX, **says)
    assert place_of(images[0], 0) != place_of(images[1], 0)
    refused = asked("mean", saved(images, tmp_path / "in"), tmp_path / "out")["refused"]
    assert refused == "no two images show the same place"


def test_images_that_say_nothing_of_their_place_are_refused(tmp_path: Path) -> None:
    for sop_class, says in ((CAPTURE, "nor which view they are"), (NM, "where they lie")):
        files = saved(pair(sop_class), tmp_path / sop_class)
        assert says in asked("add", files, tmp_path / "out")["refused"]


# --- time ---------------------------------------------------------------------------------


def timed(**content: Sequence[Any]) -> FileDataset:
    """An enhanced image: frames of one place, whose content items say these, frame by frame."""
    source = enhanced(4)
    groups = source.PerFrameFunctionalGroupsSequence
    for number, group in enumerate(groups):
        said = Dataset()
        for name, values in content.items():
            setattr(said, name, values[number])
        group.FrameContentSequence = Items([said])
        group.PlanePositionSequence = groups[0].PlanePositionSequence
    source.PixelData = np.repeat(np.arange(1, 5, dtype="<u2") * 100, 24 * 32).tobytes()
    source.Rows, source.Columns = 24, 32
    return source


@pytest.mark.parametrize(
    "content",
    [
        {"FrameAcquisitionDateTime": [f"2026010210000{n}.5" for n in (3, 1, 0, 2)]},
        {"FrameReferenceDateTime": [f"2026010210000{n}" for n in (3, 1, 0, 2)]},
        {"TemporalPositionIndex": [4, 2, 1, 3]},
        {
            "FrameAcquisitionDateTime": [f"2026010210000{n}" for n in (3, 1, 0, 2)],
            "TemporalPositionIndex": [1, 2, 3, 4],
        },
        {
            "FrameAcquisitionDateTime": [f"2026010210000{n}" for n in (3, 1, 0, 2)],
            "FrameReferenceDateTime": [f"2026010210000{n}" for n in (1, 2, 3, 4)],
        },
        {
            "FrameAcquisitionDateTime": [
                "20260102100003+0000",
                "20260102110001+0100",
                "20260102100000",
                "20260102090002-0100",
            ]
        },
    ],
)
def test_the_mask_is_the_first_in_time_however_frames_are_stored(
    content: dict[str, Any], tmp_path: Path
) -> None:
    source = timed(**content)
    order = sorted(range(4), key=lambda frame: time_of(source, frame))
    assert order == [2, 1, 3, 0]
    results = made("subtract", saved([source], tmp_path / "in"), tmp_path / "out", mask=1)
    found = [one.SourceImageSequence[0].ReferencedFrameNumber for one in results]
    assert [list(one) for one in found] == [[2, 3], [4, 3], [1, 3]]
    differences = [float(np.median(hounsfield(one))) for one in results]
    # The frames' rescale intercepts differ by one each.
    assert differences == [-100 + 1, 100 - 1, -200 + 2]


def test_images_without_times_of_their_frames_are_in_the_order_of_their_own() -> None:
    images = [unplaced(XA, InstanceNumber=9 - number) for number in range(4)]
    for number, one in enumerate(images):
        one.AcquisitionDate, one.AcquisitionTime = "20260102", f"10000{number}.25"
    images[3].AcquisitionDateTime = "20260102095959"
    shuffled = random.Random(5).sample(images, 4)
    found = sorted(shuffled, key=lambda one: time_of(one, 0))
    assert [images.index(one) for one in found] == [3, 0, 1, 2]
    for one in images:
        for name in ("AcquisitionDate", "AcquisitionTime", "AcquisitionDateTime"):
            one.pop(name, None)
    found = sorted(shuffled, key=lambda one: time_of(one, 0))
    assert [one.InstanceNumber for one in found] == [6, 7, 8, 9]

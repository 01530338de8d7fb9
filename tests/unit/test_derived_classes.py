"""What becomes of classes: enhanced images with and without groups, parts of a concatenation, doses."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pydicom.uid import generate_uid

from tests.phantoms import image, patient
from tests.unit.test_derived import asked, enhanced, errors_of, made, saved_one

__all__ = ["errors_of"]

ENHANCED_MR = "1.2.840.10008.5.1.4.1.1.4.1"


def test_a_part_of_a_concatenation_leaves_that_behind(tmp_path: Path) -> None:
    source = enhanced()
    source.ConcatenationUID = source.SOPInstanceUIDOfConcatenationSource = generate_uid()
    source.InConcatenationNumber, source.InConcatenationTotalNumber = 1, 2
    source.ConcatenationFrameOffsetNumber = 0
    (found,) = made("median", [saved_one(source, tmp_path / "in")], tmp_path / "out")
    assert found.SOPClassUID == source.SOPClassUID
    assert not [one for one in found.dir() if "oncatenation" in one]


def test_an_enhanced_mr_image_without_groups_is_one_all_the_same(
    tmp_path: Path, errors_of: Callable[[Path], set[str]]
) -> None:
    samples = np.arange(512, dtype=np.uint16).reshape(2, 16, 16)
    source = image(samples, patient(), sop_class=ENHANCED_MR)
    source.Modality, source.NumberOfFrames = "MR", 2
    source.ImageType = ["ORIGINAL", "PRIMARY", "T1", "NONE"]
    source.EchoPulseSequence, source.BulkMotionCompensationTechnique = "SPIN", "NONE"
    path = saved_one(source, tmp_path / "in")
    (found,) = made("median", [path], tmp_path / "out")
    assert (found.SOPClassUID, found.NumberOfFrames) == (ENHANCED_MR, 2)
    assert found.ImageType == ["DERIVED", "PRIMARY", "T1", "FILTERED"]
    for gone in ("EchoPulseSequence", "BulkMotionCompensationTechnique"):
        assert gone not in found
    assert errors_of(tmp_path / "out" / "0.dcm.dcm") - errors_of(path) == set()


@pytest.mark.parametrize("operation", ["resize", "median", "mip", "add"])
def test_a_dose_is_refused_with_the_reason(operation: str, tmp_path: Path) -> None:
    source = image(
        np.ones((3, 8, 8), np.uint32), patient(), sop_class="1.2.840.10008.5.1.4.1.1.481.2"
    )
    source.Modality, source.NumberOfFrames, source.DoseGridScaling = "RTDOSE", 3, "1e-6"
    answer = asked(operation, [saved_one(source, tmp_path / "in")], tmp_path / "out")
    assert "RT Dose states the dose of a plan" in answer["refused"]

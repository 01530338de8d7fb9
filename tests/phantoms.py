"""Phantoms: objects in space, and series of CT slices through them, taken from any side."""

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

CT = "1.2.840.10008.5.1.4.1.1.2"
MR = "1.2.840.10008.5.1.4.1.1.4"

Array = npt.NDArray[Any]
Body = Callable[[Array], Array]
"""Points in mm, last axis x, y, z → values."""


def ellipsoids(points: Array) -> Array:
    """Air, a body of water, and a dense rod and ball in it, with soft edges."""
    x, y, z = np.moveaxis(points, -1, 0)
    body = 1 - ((x / 30) ** 2 + (y / 24) ** 2 + (z / 40) ** 2)
    ball = 1 - (((x - 8) / 9) ** 2 + ((y + 4) / 9) ** 2 + ((z - 6) / 9) ** 2)
    rod = 1 - (((x + 12) / 5) ** 2 + ((y - 6) / 5) ** 2)
    inside = np.clip(body * 8, 0, 1)
    values = -1000 + 1040 * inside
    values += 900 * np.clip(ball * 3, 0, 1) * inside + 600 * np.clip(rod * 3, 0, 1) * inside
    return values


def patient(name: str = "PHANTOM^ONE") -> Dataset:
    """What all images of one study say."""
    said = Dataset()
    said.SpecificCharacterSet = "ISO_IR 192"
    said.PatientName, said.PatientID = name, "PH-1"
    said.PatientBirthDate, said.PatientSex = "19700101", "O"
    said.StudyInstanceUID, said.StudyID = generate_uid(), "1"
    said.StudyDate, said.StudyTime = "20260102", "101112"
    said.AccessionNumber, said.ReferringPhysicianName = "A1", ""
    said.StudyDescription, said.TimezoneOffsetFromUTC = "Phantom", "+0000"
    return said


def image(
    samples: Array, study: Dataset, *, sop_class: str = CT, series: str = "", number: int = 1
) -> FileDataset:
    """One valid CT (or other) image of these stored samples; place and rescale are for the caller."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = sop_class
    one = FileDataset("", deepcopy(study), file_meta=meta, preamble=b"\0" * 128)
    one.SOPClassUID, one.SOPInstanceUID = sop_class, generate_uid()
    meta.MediaStorageSOPInstanceUID = one.SOPInstanceUID
    one.SeriesInstanceUID = series or generate_uid()
    one.Modality = "MR" if sop_class == MR else "CT"
    one.SeriesNumber, one.InstanceNumber, one.AcquisitionNumber = 3, number, 1
    one.SeriesDescription = "Thin"
    one.Manufacturer, one.PositionReferenceIndicator = "Phantoms", ""
    one.ImageType = ["ORIGINAL", "PRIMARY", "OTHER" if sop_class == MR else "AXIAL"]
    one.PatientPosition, one.KVP = "HFS", "120"
    one.FrameOfReferenceUID = "1.2.826.0.1.3680043.8.498.1"
    one.SamplesPerPixel, one.PhotometricInterpretation = 1, "MONOCHROME2"
    one.Rows, one.Columns = samples.shape[-2:]
    one.BitsAllocated = samples.dtype.itemsize * 8
    one.BitsStored, one.HighBit = one.BitsAllocated, one.BitsAllocated - 1
    one.PixelRepresentation = int(samples.dtype.kind == "i")
    one.PixelSpacing, one.SliceThickness = [1, 1], 1
    one.ImagePositionPatient, one.ImageOrientationPatient = [0, 0, 0], [1, 0, 0, 0, 1, 0]
    if sop_class == CT:
        one.RescaleIntercept, one.RescaleSlope, one.RescaleType = -1024, 1, "HU"
    one.PixelData = samples.astype(samples.dtype.newbyteorder("<")).tobytes()
    return one


def ct_series(
    body: Body = ellipsoids,
    *,
    count: int = 40,
    rows: int = 56,
    columns: int = 64,
    spacing_mm: float = 1.0,
    step_mm: tuple[float, float, float] = (0, 0, 2),
    along_row: tuple[float, float, float] = (1, 0, 0),
    along_column: tuple[float, float, float] = (0, 1, 0),
    study: Dataset | None = None,
) -> list[FileDataset]:
    """Slices around the origin; each moved by ``step_mm`` from the one before."""
    right, down = np.array(along_row, float), np.array(along_column, float)
    step = np.array(step_mm, float)
    study, series = study or patient(), generate_uid()
    made = []
    for number in range(count):
        middle = (number - (count - 1) / 2) * step
        first = middle - spacing_mm * ((columns - 1) / 2 * right + (rows - 1) / 2 * down)
        i, j = np.meshgrid(np.arange(rows), np.arange(columns), indexing="ij")
        points = first + spacing_mm * (i[..., None] * down + j[..., None] * right)
        samples = np.rint(body(points) + 1024).astype(np.uint16)
        one = image(samples, study, series=series, number=number + 1)
        one.PixelSpacing = [spacing_mm, spacing_mm]
        one.SliceThickness = f"{abs(float(step @ np.cross(right, down))):.6g}"
        one.ImagePositionPatient = [f"{value:.8g}" for value in first]
        one.ImageOrientationPatient = [f"{value:.10g}" for value in (*right, *down)]
        made.append(one)
    return made


def saved(images: list[FileDataset], folder: Path) -> list[Path]:
    """Write them as files, in an order that says nothing."""
    folder.mkdir(parents=True, exist_ok=True)
    order = np.random.default_rng(len(images)).permutation(len(images))
    paths = []
    for number, one in zip(order, images, strict=True):
        path = folder / f"{number:04d}.dcm"
        one.save_as(path, enforce_file_format=True)
        paths.append(path)
    return paths


def hounsfield(one: Dataset) -> Array:
    """The modality values of a Data Set, by a formula of our own."""
    dtype = f"<{'i' if one.PixelRepresentation else 'u'}{one.BitsAllocated // 8}"
    frames = int(one.get("NumberOfFrames") or 1)
    cells = np.frombuffer(one.PixelData, dtype)[: frames * one.Rows * one.Columns]
    shape = (one.Rows, one.Columns) if frames == 1 else (frames, one.Rows, one.Columns)
    slope, intercept = float(one.get("RescaleSlope", 1)), float(one.get("RescaleIntercept", 0))
    return cells.reshape(shape).astype(float) * slope + intercept

"""Made-up studies: small CT series with anatomy nobody has, in plain Part 10 files."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

ROOT = "2.25."
RESCALE_INTERCEPT = -1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """Whose study it is."""

    patient_id: str
    name: str
    study_date: str
    description: str


PEOPLE = (
    Person(
        patient_id="DEMO-1",
        name="Lovelace^Ada",
        study_date="20260105",
        description="Thorax, low dose",
    ),
    Person(
        patient_id="DEMO-2",
        name="Müller^Jörg",
        study_date="20260212",
        description="Abdomen",
    ),
    Person(
        patient_id="DEMO-3",
        name="Yamada^Tarou=山田^太郎=やまだ^たろう",
        study_date="20260320",
        description="Neck",
    ),
)


def write_study(folder: Path, person: Person, *, instances: int, rows: int) -> str:
    """Write one CT study of one series; give its Study Instance UID."""
    folder.mkdir(parents=True, exist_ok=True)
    study, series, frame = (generate_uid(ROOT) for _ in range(3))
    for number in range(1, instances + 1):
        image = _slice(rows, number / instances)
        ds = _describe(person, number=number, image=image)
        ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.FrameOfReferenceUID = study, series, frame
        ds.save_as(folder / f"{number:04d}.dcm", enforce_file_format=True)
    return str(study)


def _slice(rows: int, height: float) -> np.ndarray:
    """Draw a body with a few round organs and noise, in stored values of 12 bits."""
    noise = np.random.default_rng(round(height * 1_000_000))
    y, x = np.mgrid[-1 : 1 : rows * 1j, -1 : 1 : rows * 1j]
    image = np.full((rows, rows), 24.0)
    image[(x / 0.85) ** 2 + (y / 0.6) ** 2 < 1] = 1064
    for side in (-1, 1):
        image[(x - 0.4 * side) ** 2 + (y * 1.3) ** 2 < 0.1 * (1.2 - height)] = 224
    image[x**2 + (y - 0.35) ** 2 < 0.015] = 1724
    image += noise.normal(0, 12, image.shape)
    return image.clip(0, 4095).astype("<u2")


def _describe(person: Person, *, number: int, image: np.ndarray) -> Dataset:
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds = Dataset()
    ds.file_meta = meta
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.SOPClassUID = CTImageStorage
    ds.SOPInstanceUID = generate_uid(ROOT)
    ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    ds.StudyDate = ds.SeriesDate = person.study_date
    ds.StudyTime = ds.SeriesTime = "101500"
    ds.AccessionNumber = f"A-{person.patient_id}"
    ds.Modality = "CT"
    ds.Manufacturer = "Nobody"
    ds.StudyDescription = person.description
    ds.PatientName = person.name
    ds.PatientID = person.patient_id
    ds.PatientBirthDate = ""
    ds.PatientSex = "O"
    ds.SliceThickness = "1.5"
    ds.KVP = "120"
    ds.ReferringPhysicianName = ds.PositionReferenceIndicator = ds.Laterality = ""
    ds.PatientPosition = "HFS"
    ds.AcquisitionNumber = "1"
    ds.StudyID = "1"
    ds.SeriesNumber = "1"
    ds.InstanceNumber = str(number)
    ds.ImagePositionPatient = [-150.0, -150.0, 1.5 * number]
    ds.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    ds.SamplesPerPixel = 1
    ds.PhotometricInterpretation = "MONOCHROME2"
    ds.Rows, ds.Columns = image.shape
    ds.PixelSpacing = [0.6, 0.6]
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = 16, 12, 11
    ds.PixelRepresentation = 0
    ds.RescaleIntercept, ds.RescaleSlope = str(RESCALE_INTERCEPT), "1"
    ds.PixelData = image.tobytes()
    ds["PixelData"].VR = "OW"
    return ds

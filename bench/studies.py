"""The made-up studies a run sends: written once, before anything is timed, with the digest of every Data Set."""

import hashlib
import shutil
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import UID, CTImageStorage, MRImageStorage, generate_uid

from bench.synthetic import ROOT, Person, write_study

SEEDS = 4
"""Different images per kind of study; the instances of a study repeat them under their own UIDs."""
CT_ROWS, MR_ROWS, SMALL_ROWS = 512, 256, 16
MULTI_FRAME_GRAYSCALE_WORD = UID("1.2.840.10008.5.1.4.1.1.7.3")
FRAME_BYTES = CT_ROWS * CT_ROWS * 2
FAMILIES = (
    "Abel",
    "Berg",
    "Costa",
    "Dube",
    "Evans",
    "Fischer",
    "Garcia",
    "Hansen",
    "Ito",
    "Jensen",
)
MODALITIES = ("CT", "MR", "US", "CR")
FIRST_YEAR = 2024


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """One study as files."""

    study_instance_uid: str
    series_instance_uid: str
    files: tuple[Path, ...]

    def first(self, count: int) -> "Study":
        """Give the same study with at most so many instances."""
        return Study(
            study_instance_uid=self.study_instance_uid,
            series_instance_uid=self.series_instance_uid,
            files=self.files[:count],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """One study of the query archive, by what the queries ask for."""

    patient_id: str
    name: str
    date: str
    modality: str
    file: Path


def image_studies(folder: Path, *, modality: str, studies: int, instances: int) -> list[Study]:
    """Write CT 512² or MR 256² studies, 16-bit, of one series each."""
    images = seeds(folder, rows=CT_ROWS if modality == "CT" else MR_ROWS)
    return [
        _study(folder / str(number), images, modality=modality, instances=instances)
        for number in range(studies)
    ]


def seeds(folder: Path, *, rows: int) -> list[Dataset]:
    """Make the images whose copies become instances."""
    person = Person(patient_id="SEED", name="Seed^Only", study_date="20260101", description="Speed")
    write_study(folder / "seeds", person, instances=SEEDS, rows=rows)
    images: list[Dataset] = [dcmread(one) for one in sorted((folder / "seeds").iterdir())]
    shutil.rmtree(folder / "seeds")
    return images


def _study(folder: Path, images: Sequence[Dataset], *, modality: str, instances: int) -> Study:
    folder.mkdir(parents=True)
    study, series = generate_uid(ROOT), generate_uid(ROOT)
    files = []
    for number in range(1, instances + 1):
        image = images[number % len(images)]
        identify(image, modality=modality)
        image.PatientID = f"B-{study[-12:]}"
        image.StudyInstanceUID, image.SeriesInstanceUID = study, series
        image.InstanceNumber = str(number)
        files.append(folder / f"{number:04d}.dcm")
        image.save_as(files[-1], enforce_file_format=True)
    return Study(study_instance_uid=study, series_instance_uid=series, files=tuple(files))


def identify(image: Dataset, *, modality: str) -> None:
    """Make an image a new instance of a modality."""
    image.Modality = modality
    image.SOPClassUID = MRImageStorage if modality == "MR" else CTImageStorage
    image.SOPInstanceUID = generate_uid(ROOT)
    image.file_meta.MediaStorageSOPClassUID = image.SOPClassUID
    image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID


def query_archive(folder: Path, count: int) -> list[Listed]:
    """Write studies of one small instance each: spread over two years, four modalities, ten families."""
    (image, *_) = seeds(folder, rows=SMALL_ROWS)
    listed = []
    for number in range(count):
        one = Listed(
            patient_id=f"Q{number:06d}",
            name=f"{FAMILIES[number % 10]}{number // 10 % 20:02d}^Given{number}",
            date=f"{FIRST_YEAR + number % 2}{number // 2 % 12 + 1:02d}{number // 24 % 28 + 1:02d}",
            modality=MODALITIES[number % 7 % len(MODALITIES)],
            file=folder / f"{number:06d}.dcm",
        )
        identify(image, modality=one.modality)
        image.PatientID, image.PatientName, image.StudyDate = one.patient_id, one.name, one.date
        image.StudyInstanceUID, image.SeriesInstanceUID = generate_uid(ROOT), generate_uid(ROOT)
        image.save_as(one.file, enforce_file_format=True)
        listed.append(one)
    return listed


def multi_frame(folder: Path, size_bytes: int) -> Study:
    """Write one multi-frame object of so many bytes of pixels, frame after frame."""
    (image, *_) = seeds(folder, rows=CT_ROWS)
    identify(image, modality="OT")
    image.SOPClassUID = image.file_meta.MediaStorageSOPClassUID = MULTI_FRAME_GRAYSCALE_WORD
    image.StudyInstanceUID, image.SeriesInstanceUID = generate_uid(ROOT), generate_uid(ROOT)
    frames = size_bytes // FRAME_BYTES
    image.NumberOfFrames = str(frames)
    frame: bytes = image.PixelData
    del image.PixelData
    path = folder / "multi-frame.dcm"
    image.save_as(path, enforce_file_format=True)
    with path.open("ab") as file:
        file.write(struct.pack("<HH2sHI", 0x7FE0, 0x0010, b"OW", 0, frames * FRAME_BYTES))
        for _ in range(frames):
            file.write(frame)
    return Study(
        study_instance_uid=str(image.StudyInstanceUID),
        series_instance_uid=str(image.SeriesInstanceUID),
        files=(path,),
    )


def digests(files: Iterator[Path] | Sequence[Path]) -> list[str]:
    """Hash the Data Set of every file, sorted. The group's length says where it begins (PS3.10 7.1)."""
    return sorted(_digest(one) for one in files)


def _digest(path: Path) -> str:
    content = path.read_bytes()
    start = 144 + int.from_bytes(content[140:144], "little")
    return hashlib.sha256(memoryview(content)[start:]).hexdigest()

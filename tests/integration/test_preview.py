"""Pictures of what an operation will do: the result as it would be shown, and nothing of it held."""

import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import imagecodecs
import numpy as np
import numpy.typing as npt
import pytest
from pydicom.dataset import Dataset

from pacs.app.archive import Archive
from pacs.cli import exits, main
from tests.keeping import keep, opened
from tests.phantoms import ct_series, hounsfield, image, patient

Pacs = Callable[..., tuple[int, str]]
Picture = npt.NDArray[np.uint8]
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"


class Home:
    """An archive with a volume and a colour image, and the command line on it."""

    def __init__(self, archive: Archive) -> None:
        self.archive = archive
        study = patient()
        self.study = str(study.StudyInstanceUID)
        self.slices = ct_series(count=5, rows=24, columns=32, spacing_mm=2.0, study=study)
        for one in self.slices:
            one.WindowCenter, one.WindowWidth = [40, 300], [400, 1500]
            keep(archive, Dataset(dict(one.items())))
        self.series = str(self.slices[0].SeriesInstanceUID)
        self.color = image(np.zeros((8, 10), np.uint8), study, sop_class=SECONDARY_CAPTURE)
        self.samples = np.random.default_rng(7).integers(0, 256, (8, 10, 3), dtype=np.uint8)
        self.color.SamplesPerPixel, self.color.PhotometricInterpretation = 3, "RGB"
        self.color.PlanarConfiguration, self.color.Modality = 0, "OT"
        self.color.PixelData = self.samples.tobytes()
        keep(archive, Dataset(dict(self.color.items())))

    def rows(self) -> tuple[list[object], ...]:
        return tuple(
            list(self.archive.database.execute(f"SELECT * FROM {table}"))
            for table in ("instance", "usage_fact", "job")
        )


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    with opened(tmp_path_factory.mktemp("home")) as archive:
        yield Home(archive)


@pytest.fixture
def pacs(home: Home, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Pacs:
    monkeypatch.setenv("PACS_STORAGE__RESERVE_BYTES", "0")

    def run(*arguments: str) -> tuple[int, str]:
        code = main.run(["--home", str(home.archive.home), "process", "preview", *arguments])
        said = capsys.readouterr()
        return code, said.err or said.out

    return run


def shown(values: npt.NDArray[np.float64], center: float, width: float) -> Picture:
    """PS3.3 Section C.11.2.1.2.1, LINEAR, by a formula of our own."""
    scaled = ((values - (center - 0.5)) / (width - 1) + 0.5) * 255
    return np.asarray(np.clip(scaled, 0, 255), dtype=np.uint8)


def read(path: Path) -> Picture:
    decoded: Picture = imagecodecs.png_decode(path.read_bytes())
    return decoded


def close(picture: Picture, expected: Picture) -> bool:
    return bool(np.abs(picture.astype(int) - expected.astype(int)).max() <= 1)


def test_a_projection_is_shown_by_its_own_window_or_the_one_given(
    home: Home, pacs: Pacs, tmp_path: Path
) -> None:
    before = home.rows()
    projected = np.max([hounsfield(one) for one in home.slices], axis=0)
    own, wide = tmp_path / "own.png", tmp_path / "wide.png"
    code, said = pacs("mip", "--series", home.series, "--output", str(own))
    assert (code, said) == (exits.DONE, f"{own}\n")
    picture = read(own)
    assert picture.shape == projected.shape
    assert close(picture, shown(projected, 40, 400))
    given = ("--window", "0,2500")
    assert pacs("mip", "--series", home.series, "--output", str(wide), *given)[0] == exits.DONE
    assert close(read(wide), shown(projected, 0, 2500))
    assert not np.array_equal(picture, read(wide))
    assert home.rows() == before, "nothing is held, nothing noted"
    assert list(home.archive.scratch.glob("process-*")) == []


def test_of_an_operation_on_each_image_the_first_is_shown(
    home: Home, pacs: Pacs, tmp_path: Path
) -> None:
    output = tmp_path / "one.png"
    third = home.slices[2]
    asked = ("resize", "--set", "factor=0.5", "--window", "0,2500")
    said = pacs(*asked, "--instance", str(third.SOPInstanceUID), "--output", str(output))
    assert said[0] == exits.DONE, said
    assert read(output).shape == (12, 16)
    assert pacs("median", "--series", home.series, "--output", str(output), "--force")[0] == 0
    assert read(output).shape == (24, 32)


def test_colour_is_shown_as_colour(home: Home, pacs: Pacs, tmp_path: Path) -> None:
    output = tmp_path / "color.png"
    uid = str(home.color.SOPInstanceUID)
    code, said = pacs("median", "--instance", uid, "--output", str(output))
    assert code == exits.DONE, said
    from scipy.ndimage import median_filter

    expected = np.stack(
        [median_filter(home.samples[..., one], 3, mode="reflect") for one in range(3)], axis=-1
    )
    inner = (slice(1, -1), slice(1, -1))
    assert np.array_equal(read(output)[inner], expected[inner])


def test_a_result_is_chosen_by_its_number(home: Home, pacs: Pacs, tmp_path: Path) -> None:
    first, last, none = (tmp_path / f"{one}.png" for one in range(3))
    asked = ("mpr", "--series", home.series, "--set", "plane=coronal")
    assert pacs(*asked, "--output", str(first))[0] == exits.DONE
    assert pacs(*asked, "--output", str(last), "--frame", "12")[0] == exits.DONE
    assert not np.array_equal(read(first), read(last))
    code, said = pacs(*asked, "--output", str(none), "--frame", "4097")
    assert code == exits.FAILED
    assert "no number 4097" in said
    assert not none.exists()


def test_what_is_asked_wrongly_writes_nothing(home: Home, pacs: Pacs, tmp_path: Path) -> None:
    output = tmp_path / "out.png"
    instance = ("--instance", str(home.slices[0].SOPInstanceUID))
    series = ("--series", home.series)
    for arguments, code, line in (
        (("mop", *series), exits.USAGE, "no operation"),
        (("mip", *series, "--set", "plane=skewed"), exits.USAGE, "plane is stack or"),
        (("mip",), exits.USAGE, "--study, --series or --instance"),
        (("mip", *instance), exits.FAILED, "name a series"),
        (("mip", "--series", "1.2.3.4"), exits.FAILED, "nothing is held"),
        (("mip", *series, "--window", "40"), exits.USAGE, "center and width"),
        (("mip", *series, "--window", "40,0"), exits.USAGE, "above 0"),
        (("mip", *series, "--window", "nan,nan"), exits.USAGE, "above 0"),
    ):
        ended, said = pacs(*arguments, "--output", str(output))
        assert (ended, output.exists()) == (code, False), said
        assert line in said
    output.write_bytes(b"mine")
    ended, said = pacs("mip", *series, "--output", str(output))
    assert ended == exits.USAGE
    assert "--force" in said
    assert output.read_bytes() == b"mine"


def test_the_file_is_a_whole_png(home: Home, pacs: Pacs, tmp_path: Path) -> None:
    output = tmp_path / "whole.png"
    assert pacs("mip", "--series", home.series, "--output", str(output))[0] == exits.DONE
    data = output.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    kinds, at = [], 8
    while at < len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        chunk = data[at + 4 : at + 8 + length]
        assert struct.unpack(">I", data[at + 8 + length : at + 12 + length])[0] == zlib.crc32(chunk)
        kinds.append(chunk[:4])
        at += length + 12
    assert kinds == [b"IHDR", b"IDAT", b"IEND"]

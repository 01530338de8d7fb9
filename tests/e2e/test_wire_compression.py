"""Images that leave compressed and come back as the original, judged by DCMTK, GDCM, dicom3tools and Orthanc."""

import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import UID
from pynetdicom import AE, AllStoragePresentationContexts, evt

from pacs.core.records import PeerEncoding
from pacs.services.peer import SendingPolicy
from processing.codecs.frame import Form
from processing.codecs.registry import CODECS
from tests import raw_peer
from tests.archive import Archive, Receiver, Tool, data_set_of, free_port, run, serving, storescp
from tests.association_fakes import until
from tests.e2e.test_outbox_orthanc import orthanc, rest
from tests.keeping import ADMIN, opened
from tests.raw_peer import IMPLICIT_LITTLE, STUDY_ROOT, Instance, Taken, identifier
from tests.settled import known
from tests.transcoding import ARC, EXPLICIT, RLE, encoded, part10, read_back

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

ROOT = "1.2.826.0.1.3680043.10.994"
STORAGE = "1.2.840.10008.5.1.4.1.1."
LOSSLESS_STUDY, LOSSY_STUDY, HOSTILE_STUDY, PACKED_STUDY = (f"{ROOT}.{n}" for n in range(1, 5))
HTJ2K = ARC + "201"
SIDE = 96
HUGE = 60_000
"""Rows and columns of 7 GB that no byte stands behind."""


# --- what is stored --------------------------------------------------------------------


def shape(rows: int, columns: int, top: int, seed: int) -> np.ndarray:
    """Make something smooth with noise on it, between 0 and ``top``."""
    y, x = np.mgrid[0:rows, 0:columns]
    noise = np.random.default_rng(seed).normal(0, 0.01, (rows, columns))
    wave = 0.5 + 0.4 * np.sin((x + seed * 7) / 17) * np.cos(y / 23) + noise
    return np.clip(wave * top, 0, top)


def made(name: str, study: str, sop_class: str, pixels: np.ndarray, **changes: object) -> Dataset:
    """Describe frames × rows × columns (× 3)."""
    ds = Dataset()
    ds.SOPClassUID, ds.SOPInstanceUID = STORAGE + sop_class, f"{study}.{len(name)}.{hash_of(name)}"
    ds.StudyInstanceUID, ds.SeriesInstanceUID = study, f"{study}.{hash_of(name)}"
    ds.PatientID, ds.PatientName, ds.Modality = "WIRE", "Test^Wire", changes.pop("Modality", "OT")
    ds.StudyDate = ds.StudyTime = ds.AccessionNumber = ds.StudyID = ""
    ds.SeriesNumber, ds.InstanceNumber = 1, 1
    if len(pixels) > 1:
        ds.NumberOfFrames = len(pixels)
    ds.Rows, ds.Columns = pixels.shape[1:3]
    ds.SamplesPerPixel = 3 if pixels.ndim == 4 else 1
    ds.PhotometricInterpretation = "RGB" if pixels.ndim == 4 else "MONOCHROME2"
    ds.BitsAllocated = ds.BitsStored = pixels.dtype.itemsize * 8
    if pixels.ndim == 4:
        ds.PlanarConfiguration = 0
    for keyword, value in changes.items():
        setattr(ds, keyword, value)
    ds.HighBit, ds.PixelRepresentation = ds.BitsStored - 1, int(pixels.dtype.kind == "i")
    if ds.get("PlanarConfiguration") == 1:
        pixels = np.moveaxis(pixels, -1, 1)
    ds.PixelData = pixels.tobytes()
    ds["PixelData"].VR = "OB" if pixels.dtype.itemsize == 1 else "OW"
    return ds


def hash_of(name: str) -> int:
    return sum(ord(letter) * place for place, letter in enumerate(name, start=1))


def color(frames: int, seed: int) -> np.ndarray:
    planes = [shape(SIDE, SIDE + 1, 255, seed + n) for n in range(3 * frames)]
    return np.stack(planes, axis=-1).astype("u1").reshape(SIDE, SIDE + 1, frames, 3).swapaxes(
        1, 2
    ).swapaxes(0, 1)  # fmt: skip


MONOCHROME = {
    "ct": (shape(SIDE, SIDE + 3, 4_000, 1) - 1_024).astype("<i2")[None],
    "mr": shape(SIDE - 1, SIDE, 4_095, 2).astype("<u2")[None],
    "frames": np.stack([shape(SIDE, SIDE, 65_535, n) for n in range(3, 7)]).astype("<u2"),
    "gray": shape(SIDE, SIDE, 255, 9).astype("u1")[None],
}


def carried(study: str) -> dict[str, Dataset]:
    """Give images that every lossless syntax carries."""
    mono = MONOCHROME
    return {
        "ct": made("ct", study, "2", mono["ct"], Modality="CT", RescaleIntercept="0"),
        "mr": made("mr", study, "4", mono["mr"], Modality="MR", BitsStored=12),
        "frames": made("frames", study, "7.3", mono["frames"]),
        "color": made("color", study, "7.4", color(2, 20), PlanarConfiguration=1),
        "pixels": made("pixels", study, "7", color(1, 30)),
    }


def uncarried(study: str) -> dict[str, Dataset]:
    """Give what no image codec may touch: shared chroma, and no pixels at all."""
    shared = made("shared", study, "7", color(1, 40)[:, :, :SIDE])
    shared.PhotometricInterpretation = "YBR_FULL_422"
    shared.PixelData = shared.PixelData[: SIDE * SIDE * 2]
    report = made("report", study, "88.11", MONOCHROME["ct"], Modality="SR")
    for keyword in ("PixelData", "Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit",
                    "SamplesPerPixel", "PixelRepresentation", "PhotometricInterpretation"):  # fmt: skip
        del report[keyword]
    report.ValueType, report.ContinuityOfContent = "CONTAINER", "SEPARATE"
    return {"shared": shared, "report": report}


CARRIED, UNCARRIED = carried(LOSSLESS_STUDY), uncarried(LOSSLESS_STUDY)
PLAIN = {str(one.SOPInstanceUID): one for one in (*CARRIED.values(), *UNCARRIED.values())}
NAMES = {str(one.SOPInstanceUID): name for name, one in (CARRIED | UNCARRIED).items()}


def instance(ds: Dataset, syntax: str = EXPLICIT) -> Instance:
    return Instance(
        sop_class_uid=str(ds.SOPClassUID),
        sop_instance_uid=str(ds.SOPInstanceUID),
        transfer_syntax_uid=syntax,
        data_set=encoded(ds),
    )


def file_of(folder: Path, one: Instance) -> Path:
    """Write a Part 10 file."""
    path, _, _ = part10(folder, one.data_set, one.transfer_syntax_uid, one.sop_instance_uid)
    ds = dcmread(path)
    ds.file_meta.MediaStorageSOPClassUID = UID(one.sop_class_uid)
    ds.file_meta.MediaStorageSOPInstanceUID = UID(one.sop_instance_uid)
    ds.save_as(path)
    return Path(path)


# --- hostile streams -------------------------------------------------------------------


def hostile() -> dict[str, Instance]:
    """Give a whole image and four streams made to harm, each in a syntax of its own kind."""
    form = Form(rows=SIDE, columns=SIDE, samples=1, bits_allocated=8, bits_stored=8,
                signed=False, photometric="MONOCHROME2")  # fmt: skip
    pixels = MONOCHROME["gray"]

    def stream(last: str) -> bytes:
        return CODECS[ARC + last].encode(pixels[0], form)

    def packed(name: str, last: str, data: bytes, **changes: object) -> Instance:
        ds = made(name, HOSTILE_STUDY, "7", pixels, **changes)
        ds.PixelData = encapsulate([data])
        ds["PixelData"].VR, ds["PixelData"].is_undefined_length = "OB", True
        return instance(ds, ARC + last)

    bomb = bytearray(stream("90"))
    at = bomb.find(b"\xff\x51")
    for place in (at + 6, at + 22):
        bomb[place : place + 8] = HUGE.to_bytes(4, "big") * 2
    return {
        "whole": packed("whole", "70", stream("70")),
        "truncated": packed("truncated", "70", stream("70")[: 2 * SIDE]),
        "smaller": packed("smaller", "80", stream("80"), Rows=SIDE + 1),
        "bomb": packed("bomb", "90", bytes(bomb)),
        "announced": packed("announced", "90", bytes(bomb), Rows=HUGE, Columns=HUGE),
    }


HOSTILE = hostile()


# --- the archive and its peers ---------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Site:
    """The archive under test, and who listens around it."""

    archive: Archive
    receivers: Mapping[str, Receiver]
    ports: Mapping[str, int]
    """Of destinations that a test starts itself."""

    def move(self, destination: str, study: str) -> Dataset:
        """Have a study sent; give the final response."""
        with raw_peer.associated(self.archive.port, [(STUDY_ROOT + "2", [IMPLICIT_LITTLE])]) as one:
            asked = identifier("STUDY", StudyInstanceUID=study)
            return raw_peer.move(one, STUDY_ROOT, asked, destination)[-1][0]

    def moved(self, destination: str, study: str, count: int) -> dict[str, Path]:
        """Have all of a study sent to a storescp; give its files by SOP Instance UID."""
        last = self.move(destination, study)
        assert (last.Status, last.NumberOfCompletedSuboperations) == (0x0000, count)
        return by_uid(self.receivers[destination].taken())


def by_uid(paths: Sequence[Path]) -> dict[str, Path]:
    found = {str(dcmread(one, stop_before_pixels=True).SOPInstanceUID): one for one in paths}
    assert len(found) == len(paths)
    return found


COMPRESSING = {  # AE title: storescp's option, and what it prefers
    "TAKES70": ("+xs", ARC + "70"),
    "TAKES80": ("+xt", ARC + "80"),
    "TAKES90": ("+xv", ARC + "90"),
    "TAKESRLE": ("+xr", str(RLE)),
}
OTHERS = {  # AE title: storescp's option, and the policy
    "TAKES91": ("+xw", "compressed"),
    "TAKES81": ("+xu", "compressed"),
    "DEFLATED": ("+xd", "compressed"),
    "PLAINC": ("+x=", "compressed"),
    "EVERYTHING": ("+xa", "compressed"),
    "ASITLIES": ("+xa", "as-stored"),
    "PLAIN": ("+x=", "uncompressed"),
    "IMPLICIT": ("+xi", "as-stored"),
}
RAW = {"ONLYHTJ2K": "compressed", "ONLY80": "compressed"}
CALLERS = {"WANTSLESS": "compressed", "WANTSALL": "uncompressed"}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, peer_tool: Tool) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("wire")
    policies = {name: (option, "compressed") for name, (option, _) in COMPRESSING.items()} | OTHERS
    with ExitStack() as stack:
        receivers = {
            name: stack.enter_context(storescp(peer_tool, folder / name, option))
            for name, (option, _) in policies.items()
        }
        ports = {name: free_port() for name in (*RAW, *CALLERS)}
        encodings = {name: policy for name, (_, policy) in policies.items()} | RAW | CALLERS
        with opened(folder / "home") as unserved:  # a process for each "pacs peer add" takes long
            for name, policy in encodings.items():
                port = receivers[name].port if name in receivers else ports[name]
                sending = SendingPolicy(associations=2, encoding=PeerEncoding(policy))
                unserved.peers.add(ADMIN, name, "127.0.0.1", port, sending)
        archive = stack.enter_context(serving(folder / "home", settings={"jobs.workers": "1"}))
        assert set(raw_peer.send(archive.port, map(instance, PLAIN.values()))) == {0}
        yield Site(archive=archive, receivers=receivers, ports=ports)


# --- what a stranger makes of a file -----------------------------------------------------

DECODERS = {
    ARC + "70": ("dcmdjpeg", "+cn"),
    ARC + "80": ("dcmdjpls",),
    ARC + "90": ("gdcmconv", "--raw"),
    str(RLE): ("dcmdrle",),
}


def samples_of(ds: Dataset) -> np.ndarray:
    """Read native samples, colours as they are, color by pixel."""
    if not ds.get("file_meta"):
        ds.file_meta = FileMetaDataset()
        ds.file_meta.TransferSyntaxUID = UID(EXPLICIT)
    frames = get_decoder(UID(EXPLICIT)).iter_array(ds, raw=True)
    return np.stack([frame.copy() for frame, _ in frames])


def decoded(peer_tool: Tool, path: Path) -> np.ndarray:
    """Have another toolkit decode a file."""
    syntax = str(dcmread(path, stop_before_pixels=True).file_meta.TransferSyntaxUID)
    name, *options = DECODERS[syntax]
    plain = path.with_suffix(".plain")
    said = run(peer_tool(name), *options, str(path), str(plain))
    assert said.code == 0, said.text
    return samples_of(dcmread(plain))


KNOWN = ("JPEG 2000 reversible transfer syntax is required to have PhotometricInterpretation",)
"""PS3.3 Section A.8.5.4 knows RGB with a colour transform only; ours are without one (PS3.5 8.2.4)."""


def errors(peer_tool: Tool, path: Path) -> set[str]:
    """List what dicom3tools calls an error."""
    said = run(peer_tool("dciodvfy"), "-new", str(path)).text.splitlines()
    return {line for line in said if line.startswith("Error")}


def check_header(peer_tool: Tool, path: Path, original: Dataset) -> None:
    """Nothing but the pixels and how they lie has changed, and strangers read it."""
    said = run(peer_tool("dcmdump"), "-q", str(path))
    assert (said.code, "E:" in said.text) == (0, False), said.text
    found = dcmread(path)
    assert found.file_meta.MediaStorageSOPInstanceUID == original.SOPInstanceUID
    assert found.get("LossyImageCompression") == original.get("LossyImageCompression")
    for element in original:
        if element.keyword not in ("PixelData", "PlanarConfiguration"):
            assert found[element.tag].value == element.value, element.keyword
    assert {one.tag for one in found} == {one.tag for one in original}


def check_lossless(peer_tool: Tool, path: Path, syntax: str, folder: Path) -> None:
    found = dcmread(path, stop_before_pixels=True)
    original = PLAIN[str(found.SOPInstanceUID)]
    check_header(peer_tool, path, original)
    native = file_of(folder, instance(original))
    new = errors(peer_tool, path) - errors(peer_tool, native)
    assert [one for one in new if not any(known in one for known in KNOWN)] == []
    if original.SOPInstanceUID in {str(one.SOPInstanceUID) for one in CARRIED.values()}:
        assert found.file_meta.TransferSyntaxUID == syntax, NAMES[original.SOPInstanceUID]
        assert np.array_equal(decoded(peer_tool, path), samples_of(dcmread(native)))
    else:  # falls back to what every device takes
        assert found.file_meta.TransferSyntaxUID == EXPLICIT
        assert data_set_of(path) == instance(original).data_set


@pytest.mark.parametrize("destination", COMPRESSING)
def test_a_move_compresses_for_storescp(
    site: Site, peer_tool: Tool, tmp_path: Path, destination: str
) -> None:
    files = site.moved(destination, LOSSLESS_STUDY, len(PLAIN))
    assert files.keys() == PLAIN.keys()
    for path in files.values():
        check_lossless(peer_tool, path, COMPRESSING[destination][1], tmp_path)


def test_forwarding_compresses_as_a_move_does(site: Site, peer_tool: Tool, tmp_path: Path) -> None:
    site.archive.pacs("forward", "--to", "TAKES80", "--study", LOSSLESS_STUDY)
    jobs = ("job", "list", "--kind", "forward.send")
    assert until(lambda: all(one["ended_utc"] for one in site.archive.listed(*jobs)), 120)
    files = by_uid(site.receivers["TAKES80"].taken())
    assert files.keys() == PLAIN.keys()
    for path in files.values():
        check_lossless(peer_tool, path, ARC + "80", tmp_path)


@pytest.mark.parametrize("destination", ["TAKES91", "TAKES81", "DEFLATED", "PLAINC"])
def test_a_peer_that_takes_no_lossless_image_syntax_gets_the_stored_bytes(
    site: Site, destination: str
) -> None:
    files = site.moved(destination, LOSSLESS_STUDY, len(PLAIN))
    for uid, path in files.items():
        assert dcmread(path).file_meta.TransferSyntaxUID == EXPLICIT
        assert data_set_of(path) == instance(PLAIN[uid]).data_set


def getscu(site: Site, peer_tool: Tool, folder: Path, study: str, *options: str) -> list[Path]:
    folder.mkdir()
    said = run(
        peer_tool("getscu"), "-v", "-S", "+B", "-aec", "PACS", "-od", str(folder), *options,
        "-k", "QueryRetrieveLevel=STUDY", "-k", f"StudyInstanceUID={study}",
        "127.0.0.1", str(site.archive.port),
    )  # fmt: skip
    assert said.code == 0, said.text
    return sorted(folder.iterdir())


GETTING = {"+xs": ARC + "70", "+xt": ARC + "80", "+xv": ARC + "90", "+xr": str(RLE)}


@pytest.mark.parametrize("option", GETTING)
def test_getscu_gets_what_its_entry_says(
    site: Site, peer_tool: Tool, tmp_path: Path, option: str
) -> None:
    """It puts all syntaxes into one context: where ours goes first, what it cannot carry fails alone."""
    less = getscu(site, peer_tool, tmp_path / "c", LOSSLESS_STUDY, "-aet", "WANTSLESS", option)
    failing = str(UNCARRIED["shared"].SOPInstanceUID)
    assert by_uid(less).keys() == PLAIN.keys() - {failing}
    for path in less:
        check_lossless(peer_tool, path, GETTING[option], tmp_path)
    plain = getscu(site, peer_tool, tmp_path / "u", LOSSLESS_STUDY, "-aet", "WANTSALL", option)
    for uid, path in by_uid(plain).items():
        assert data_set_of(path) == instance(PLAIN[uid]).data_set


@contextmanager
def taking_only(syntax: str, taken: Taken, port: int) -> Iterator[None]:
    """Listen as a Storage SCP that knows one transfer syntax."""
    entity = AE(ae_title="RAWDEST")
    for one in AllStoragePresentationContexts:
        entity.add_supported_context(one.abstract_syntax, syntax)
    server = entity.start_server(
        ("127.0.0.1", port), block=False, evt_handlers=[(evt.EVT_C_STORE, taken)]
    )
    assert server is not None
    try:
        yield
    finally:
        server.shutdown()


def test_a_peer_that_takes_only_htj2k(site: Site) -> None:
    """Read by OpenJPEG of another build than proved it, and what cannot be carried fails alone."""
    taken = Taken()
    with taking_only(HTJ2K, taken, site.ports["ONLYHTJ2K"]):
        last = site.move("ONLYHTJ2K", LOSSLESS_STUDY)
    assert (last.Status, last.NumberOfFailedSuboperations) == (0xB000, len(UNCARRIED))
    assert len(taken.instances) == len(CARRIED)
    for one in taken.instances:
        assert one.transfer_syntax_uid == HTJ2K
        original = PLAIN[one.sop_instance_uid]
        found = read_back(one.data_set, one.transfer_syntax_uid)
        frames = generate_frames(found.PixelData, number_of_frames=found.get("NumberOfFrames", 1))
        pixels = np.stack([imagecodecs.jpeg2k_decode(frame) for frame in frames])
        assert np.array_equal(pixels, samples_of(Dataset(original)))
        assert "LossyImageCompression" not in found


@contextmanager
def running_orthanc(site: Site, peer_tool: Tool, folder: Path) -> Iterator[int]:
    """Run Orthanc as the peer ORTHANC; give its REST port."""
    with orthanc(peer_tool("Orthanc"), folder / "orthanc", site.archive.port) as (port, rest_port):
        where = ("127.0.0.1", str(port), "--encoding", "compressed")
        site.archive.pacs("peer", "add", "ORTHANC", *where)
        known(site.archive.port, "ORTHANC")
        yield rest_port


def test_orthanc_asks_for_a_study_and_takes_it_compressed(
    site: Site, peer_tool: Tool, tmp_path: Path
) -> None:
    with running_orthanc(site, peer_tool, tmp_path) as port:
        asked = {"Level": "Study", "Resources": [{"StudyInstanceUID": LOSSLESS_STUDY}]}
        rest(port, "/modalities/pacs/move", {**asked, "TargetAet": "ORTHANC"})
        held = rest(port, "/instances")
        assert len(held) == len(PLAIN)
        for one in held:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/instances/{one}/file") as answer:
                path = tmp_path / one
                path.write_bytes(answer.read())
            check_lossless(peer_tool, path, ARC + "80", tmp_path)


# --- what others compressed ---------------------------------------------------------------

PACKERS: dict[str, tuple[tuple[str, ...], str, str]] = {  # tool, storescu's option, names
    # Of several frames by plane it mixes the planes up: dcmdjpeg shows the same.
    ARC + "70": (("dcmcjpeg", "+e1"), "-xs", "ct mr frames pixels"),
    ARC + "80": (("dcmcjpls",), "-xt", "ct mr frames color pixels"),
    ARC + "90": (("gdcmconv", "--j2k"), "-xv", "ct mr frames color pixels"),
    str(RLE): (("dcmcrle",), "-xr", "ct mr frames color pixels"),
}


def storescu(site: Site, peer_tool: Tool, *arguments: str) -> None:
    where = ("127.0.0.1", str(site.archive.port))
    said = run(peer_tool("storescu"), "-v", "-R", "-aec", "PACS", *arguments[:1], *where,
               *arguments[1:])  # fmt: skip
    assert (said.code, "E:" in said.text) == (0, False), said.text


@pytest.mark.parametrize("syntax", PACKERS)
def test_what_others_compressed_is_fetched_uncompressed_as_the_original(
    site: Site, peer_tool: Tool, tmp_path: Path, syntax: str
) -> None:
    tool, option, names = PACKERS[syntax]
    study = f"{PACKED_STUDY}.{hash_of(syntax)}"
    originals = {name: one for name, one in carried(study).items() if name in names.split()}
    packed = {}
    for name, one in originals.items():
        target = tmp_path / f"{name}.packed"
        said = run(
            peer_tool(tool[0]), *tool[1:], str(file_of(tmp_path, instance(one))), str(target)
        )
        assert said.code == 0, said.text
        assert dcmread(target).file_meta.TransferSyntaxUID == syntax
        packed[name] = target
    storescu(site, peer_tool, option, *map(str, packed.values()))
    fetched = by_uid(getscu(site, peer_tool, tmp_path / "got", study, "+xe"))
    assert len(fetched) == len(originals)
    for name, one in originals.items():
        back = dcmread(fetched[str(one.SOPInstanceUID)])
        assert back.file_meta.TransferSyntaxUID == EXPLICIT
        assert np.array_equal(samples_of(back), samples_of(Dataset(one))), name
        assert "LossyImageCompression" not in back
    # One context with several syntaxes: chosen before it is known what is stored, by the entry alone.
    option = next(one for one, named in GETTING.items() if named == syntax)
    stranger = by_uid(getscu(site, peer_tool, tmp_path / "stranger", study, option))
    assert {dcmread(one).file_meta.TransferSyntaxUID for one in stranger.values()} == {EXPLICIT}
    less = by_uid(getscu(site, peer_tool, tmp_path / "c", study, "-aet", "WANTSLESS", option))
    for name, one in originals.items():
        assert data_set_of(less[str(one.SOPInstanceUID)]) == data_set_of(packed[name]), name
    lies = site.moved("EVERYTHING", study, len(originals))
    for name, one in originals.items():
        as_sent, as_taken = data_set_of(packed[name]), data_set_of(lies[str(one.SOPInstanceUID)])
        assert as_taken == as_sent, name


LOSSY: dict[str, tuple[tuple[str, ...], str, str]] = {
    ARC + "50": (("dcmcjpeg", "+eb", "+un"), "-xy", "gray pixels"),
    ARC + "51": (("dcmcjpeg", "+ee", "+un"), "-xx", "mr gray"),
    ARC + "81": (("dcmcjpls", "+en", "+un"), "-xu", "mr frames pixels"),
    ARC + "91": ((), "-xw", "mr frames gray"),
}
TOLERANCE = {ARC + "50": 3, ARC + "51": 2}
"""Inverse cosines are rounded freely, and colours made of them once more; all else is exact."""


def lossy_file(peer_tool: Tool, folder: Path, syntax: str, one: Dataset) -> Path:
    """Compress with loss, by a stranger."""
    source, target = file_of(folder, instance(one)), folder / f"{one.SOPInstanceUID}.lossy"
    if LOSSY[syntax][0]:
        name, *options = LOSSY[syntax][0]
        said = run(peer_tool(name), *options, str(source), str(target))
        assert said.code == 0, said.text
        return target
    ds = dcmread(source)
    streams = [imagecodecs.jpeg2k_encode(frame, level=40, codecformat="j2k",
                                         bitspersample=ds.BitsStored) for frame in samples_of(ds)]  # fmt: skip
    ds.PixelData, ds.LossyImageCompression = encapsulate(streams), "01"
    ds["PixelData"].VR, ds["PixelData"].is_undefined_length = "OB", True
    ds.file_meta.TransferSyntaxUID = UID(syntax)
    ds.save_as(target)
    return target


def decoded_otherwise(peer_tool: Tool, path: Path) -> np.ndarray:
    """Decode a lossy file with what the archive does not use for it; colours as the archive leaves them."""
    ds = dcmread(path)
    syntax = str(ds.file_meta.TransferSyntaxUID)
    if syntax == ARC + "81":
        plain = path.with_suffix(".plain")
        assert run(peer_tool("dcmdjpls"), str(path), str(plain)).code == 0
        return samples_of(dcmread(plain))
    frames = generate_frames(ds.PixelData, number_of_frames=int(ds.get("NumberOfFrames", 1)))
    decode = imagecodecs.jpeg2k_decode if syntax == ARC + "91" else imagecodecs.jpeg8_decode
    return np.stack([decode(one) for one in frames])


@pytest.mark.parametrize("syntax", LOSSY)
def test_what_was_lossy_stays_what_it_was(
    site: Site, peer_tool: Tool, tmp_path: Path, syntax: str
) -> None:
    _, option, names = LOSSY[syntax]
    study = f"{LOSSY_STUDY}.{hash_of(syntax)}"
    gray = made("gray", study, "7", MONOCHROME["gray"])
    images = {n: one for n, one in (carried(study) | {"gray": gray}).items() if n in names.split()}
    packed = [lossy_file(peer_tool, tmp_path, syntax, one) for one in images.values()]
    sent = by_uid(packed)
    storescu(site, peer_tool, option, *map(str, packed))

    plain = site.moved("PLAIN", study, len(sent))
    for uid, path in plain.items():
        theirs, ours = dcmread(sent[uid]), dcmread(path)
        assert theirs.file_meta.TransferSyntaxUID == syntax
        assert ours.file_meta.TransferSyntaxUID == EXPLICIT
        assert ours.LossyImageCompression == theirs.LossyImageCompression == "01"
        found, wanted = samples_of(ours), decoded_otherwise(peer_tool, sent[uid])
        difference = np.abs(found.astype(np.int64) - wanted.reshape(found.shape))
        assert difference.max() <= TOLERANCE.get(syntax, 0), names
        assert difference.mean() < (0.5 if wanted.ndim > 3 else 0.1)

    for destination in ("EVERYTHING", "ASITLIES"):
        lies = site.moved(destination, study, len(sent))
        for uid, path in lies.items():
            assert dcmread(path).file_meta.TransferSyntaxUID == syntax
            assert data_set_of(path) == data_set_of(sent[uid])

    taken = Taken()
    with taking_only(ARC + "80", taken, site.ports["ONLY80"]):
        last = site.move("ONLY80", study)
    assert (last.Status, last.NumberOfFailedSuboperations) == (0xA702, len(sent))
    assert taken.instances == []


# --- hostile streams ------------------------------------------------------------------------


def test_hostile_streams_cost_their_sub_operation_and_nothing_else(
    site: Site, peer_tool: Tool
) -> None:
    assert set(raw_peer.send(site.archive.port, HOSTILE.values())) == {0}
    kept = {path: path.read_bytes() for path in site.archive.kept()}
    for destination in ("PLAIN", "IMPLICIT"):
        last = site.move(destination, HOSTILE_STUDY)
        assert last.Status == 0xB000
        assert (last.NumberOfCompletedSuboperations, last.NumberOfFailedSuboperations) == (1, 4)
        (arrived,) = site.receivers[destination].taken()
        whole = dcmread(arrived)
        assert whole.SOPInstanceUID == HOSTILE["whole"].sop_instance_uid
        assert np.array_equal(whole.pixel_array, MONOCHROME["gray"][0])
    assert site.archive.process.poll() is None
    assert run(peer_tool("echoscu"), "127.0.0.1", str(site.archive.port)).code == 0
    assert {path: path.read_bytes() for path in site.archive.kept()} == kept
    lies = site.moved("ASITLIES", HOSTILE_STUDY, len(HOSTILE))
    for one in HOSTILE.values():
        assert data_set_of(lies[one.sop_instance_uid]) == one.data_set
    assert until(lambda: list((site.archive.home / "work").rglob("transcode-*")) == [])
    site.archive.pacs("verify")

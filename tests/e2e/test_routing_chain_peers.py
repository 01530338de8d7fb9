"""What routes ask of destinations: Storage Commitment of Orthanc, encodings of storescp, a C-MOVE to it likewise."""

import os
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import (
    UID,
    ExplicitVRLittleEndian,
    JPEGBaseline8Bit,
    JPEGLSLossless,
    RLELossless,
)

from tests import forked
from tests.archive import Archive, Tool, data_set_of, run, serving
from tests.crash import write
from tests.e2e.test_outbox_orthanc import orthanc, rest
from tests.forwarding import Writer, until, writer
from tests.routing import Here, image, send

WORKING = {
    "serve.listeners": "1",
    "jobs.workers": "1",
    "jobs.poll_s": "0.1",
    "arrival.series_quiet_s": "1.5",  # a pause between two images of a study is to be shorter
    "arrival.study_quiet_s": "1.5",
    "forward.retry_s": "0.2",
    "commitment.wait_on_association_s": "0",
}
ROOT = "1.2.826.0.1.3680043.10.994"
SIDE = 64


@pytest.fixture
def here(tmp_path: Path) -> Here:
    shell = Here(tmp_path / "home")
    shell("init")
    return shell


def written(folder: Path, study: int, count: int) -> dict[str, Path]:
    """SOP Instance UID → its file, in this order."""
    folder.mkdir(exist_ok=True)
    made = [image(f"{ROOT}.{study}.1.{number}") for number in range(count)]
    return {one.SOPInstanceUID: write(one, folder) for one in made}


# --- commitment ----------------------------------------------------------------------------


@contextmanager
def worker(archive: Archive, *queues: str) -> Iterator[None]:
    """Run ``pacs worker`` on some queues, all unless told."""
    some = ("--queues", ",".join(queues)) if queues else ()
    with Path(os.devnull).open("wb") as nowhere:
        process = forked.Forked(
            ["worker", "--processes", "1", *some],
            archive.environment,
            archive.home,
            stdout=nowhere.fileno(),
            stderr=nowhere.fileno(),
        )
    try:
        yield
    finally:
        process.terminate()
        assert process.wait(60) == 0


def test_orthanc_answers_for_what_it_got_and_gets_again_what_it_lost(
    here: Here, tmp_path: Path, peer_tool: Tool
) -> None:
    here.peer("ORTHANC", 104)
    here("route", "add", "safe", "--to", "ORTHANC", "--commitment", "required")
    kept, lost = written(tmp_path / "in", 1, 3), written(tmp_path / "in", 2, 3)
    with (
        serving(tmp_path / "home", settings={**WORKING, "jobs.workers": "0"}) as archive,
        orthanc(peer_tool("Orthanc"), tmp_path / "orthanc", archive.port) as (port, rest_port),
    ):
        here.peer("ORTHANC", port)
        with worker(archive, "quiet", "route", "forward"):
            send(peer_tool, archive.port, [*kept.values(), *lost.values()])
            until(lambda: len(here.jobs("commitment.request")) == 2)
        held = {rest(rest_port, f"/instances/{one}")["MainDicomTags"]["SOPInstanceUID"]: one
                for one in rest(rest_port, "/instances")}  # fmt: skip
        assert held.keys() == {*kept, *lost}
        assert {one["state"] for one in here.jobs()} == {"blocked"}
        gone = list(lost)[1]
        _delete(rest_port, f"/instances/{held[gone]}")
        with worker(archive):
            until(here.all_over)
        assert len(rest(rest_port, "/instances")) == 6
    jobs = {one["payload"]["study_instance_uid"]: one for one in here.jobs()}
    assert {one["state"] for one in jobs.values()} == {"done"}
    for one in jobs.values():
        assert {**one["result"], "bytes": 0} == {
            "sent": 3, "already": 0, "refused": 0, "unknown": 0, "bytes": 0, "committed": 3
        }  # fmt: skip
    (shown,) = here.json("job", "show", str(jobs[f"{ROOT}.2"]["id"]))
    said = [one["line"] for one in shown["log"]]
    assert any(f"1 of 3 instances were not committed: {gone} (reason 0112)" in one for one in said)
    asked = here.jobs("commitment.request")
    assert sorted(len(one["payload"]["references"]) for one in asked) == [1, 3, 3]


def _delete(port: int, path: str) -> None:
    asked = urllib.request.Request(f"http://127.0.0.1:{port}{path}", method="DELETE")
    with urllib.request.urlopen(asked, timeout=60) as answer:
        assert answer.status == 200


def test_storescp_does_not_offer_commitment(here: Here, tmp_path: Path, peer_tool: Tool) -> None:
    with (
        writer(peer_tool, tmp_path / "EASY") as easy,
        writer(peer_tool, tmp_path / "STRICT") as strict,
    ):
        here.peer("EASY", easy.port)
        here.peer("STRICT", strict.port)
        here("route", "add", "asks", "--to", "EASY", "--commitment", "offered")
        here("route", "add", "insists", "--to", "STRICT", "--commitment", "required")
        files = written(tmp_path / "in", 3, 2)
        with serving(tmp_path / "home", settings=WORKING) as archive:
            send(peer_tool, archive.port, files.values())
            until(lambda: len(here.jobs()) == 2)
            until(here.all_over)
        assert easy.in_order() == strict.in_order() == list(files)
    ((done,), (dead,)) = here.jobs_to("EASY"), here.jobs_to("STRICT")
    assert (done["state"], done["result"]["sent"], done["result"]["committed"]) == ("done", 2, 0)
    assert dead["state"] == "failed"
    assert "does not offer Storage Commitment" in dead["last_error"]


def test_what_a_poll_fetches_is_routed_and_never_to_where_it_was_fetched(
    here: Here, tmp_path: Path, peer_tool: Tool
) -> None:
    """Received by a worker and not by a listener: the same rules hold."""
    today = {"StudyDate": datetime.now(UTC).strftime("%Y%m%d"), "PatientID": "POLLED"}
    made = [image(f"{ROOT}.4.1.{number}", **today) for number in range(3)]
    (tmp_path / "in").mkdir()
    files = {one.SOPInstanceUID: write(one, tmp_path / "in") for one in made}
    with (
        writer(peer_tool, tmp_path / "DEST") as dest,
        orthanc(peer_tool("Orthanc"), tmp_path / "orthanc", 104) as (port, rest_port),
        serving(tmp_path / "home", settings=WORKING),
    ):
        send(peer_tool, port, files.values())
        here.peer("ORTHANC", port)
        here.peer("DEST", dest.port)
        here("route", "add", "polled", "--to", "DEST", "--to", "ORTHANC", "--calling", "ORTHANC")
        here("poll", "add", "ORTHANC", "--cron", "", "--by", "get")
        here("poll", "run", "ORTHANC")
        until(lambda: set(dest.received()) == set(files))
        until(here.all_over)
        assert dest.received() == dict.fromkeys(files, 1)
        assert here.jobs_to("ORTHANC") == []
        assert len(rest(rest_port, "/instances")) == 3


# --- encodings -----------------------------------------------------------------------------


def sources(folder: Path, tool: Tool) -> dict[str, Path]:
    """A CT as it comes, one in RLE, and an image that a lossy codec made: name → file."""
    folder.mkdir()
    made = {name: _slope(number) for number, name in enumerate(("plain", "packed", "lossy"))}
    made["packed"].compress(RLELossless, generate_instance_uid=False)
    files = {name: write(one, folder) for name, one in made.items()}
    said = run(tool("dcmcjpeg"), "+eb", "+un", str(files["lossy"]), str(files["lossy"]))
    assert said.code == 0, said.text
    return files


def _slope(number: int) -> Dataset:
    """A CT whose pixels a codec can make smaller; the third is of 8 bits."""
    made, bits = image(f"{ROOT}.9.1.{number}"), (12, 12, 8)[number]
    rows, columns = np.mgrid[0:SIDE, 0:SIDE]
    pixels = (rows * 3 + columns * number) % (1 << bits)
    made.Rows = made.Columns = SIDE
    made.BitsAllocated, made.BitsStored, made.HighBit = 8 * -(-bits // 8), bits, bits - 1
    made.PixelData = pixels.astype("<u2" if bits > 8 else "u1").tobytes()
    return made


def arrived(receiver: Writer, files: Mapping[str, Path]) -> dict[str, tuple[UID, Path]]:
    """Name → the transfer syntax and the file of what came, and forget it."""
    names = {str(dcmread(file).SOPInstanceUID): name for name, file in files.items()}
    found = {}
    for file in receiver.folder.iterdir():
        one = dcmread(file, stop_before_pixels=True)
        place = file.rename(receiver.folder.parent / f"{one.SOPInstanceUID}.came")
        found[names[str(one.SOPInstanceUID)]] = (one.file_meta.TransferSyntaxUID, place)
    return found


def is_as_it_lay(came: tuple[UID, Path], file: Path) -> bool:
    return data_set_of(came[1]) == data_set_of(file)


def pixels_by(tool: str, came: tuple[UID, Path]) -> bytes:
    """What DCMTK decodes."""
    plain = came[1].with_suffix(".plain")
    said = run(tool, str(came[1]), str(plain))
    assert said.code == 0, said.text
    decoded = dcmread(plain)
    assert decoded.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
    return bytes(decoded.PixelData)


def test_a_peers_encoding_holds_for_routes_and_for_c_move(
    here: Here, tmp_path: Path, peer_tool: Tool
) -> None:
    files = sources(tmp_path / "in", peer_tool)
    packed_pixels = dcmread(files["packed"]).pixel_array.astype("<u2").tobytes()
    with (
        writer(peer_tool, tmp_path / "a" / "SMALL") as small,
        writer(peer_tool, tmp_path / "b" / "FLAT") as flat,
        serving(tmp_path / "home", settings=WORKING) as archive,
    ):
        here.peer("SMALL", small.port, "--encoding", "compressed")
        here.peer("FLAT", flat.port, "--encoding", "uncompressed")
        for name, option in (("plain", "-xe"), ("packed", "-xr"), ("lossy", "-xy")):
            send(peer_tool, archive.port, [files[name]], option)
        assert sorted(map(data_set_of, archive.kept())) == sorted(map(data_set_of, files.values()))

        def moved(title: str) -> None:
            said = run(peer_tool("movescu"), "-S", "-aec", "PACS", "-aem", title, "-k",
                       "QueryRetrieveLevel=STUDY", "-k", f"StudyInstanceUID={ROOT}.9",
                       "127.0.0.1", str(archive.port))  # fmt: skip
            assert said.code == 0, said.text

        def routed(title: str) -> None:
            here("forward", "--to", title, "--study", f"{ROOT}.9")
            until(lambda: [one["state"] for one in here.jobs_to(title)] == ["done"])

        for bring in (routed, moved):
            bring("SMALL")
            came = arrived(small, files)
            assert came.keys() == files.keys()
            assert came["plain"][0] == JPEGLSLossless
            assert pixels_by(peer_tool("dcmdjpls"), came["plain"]) == bytes(
                dcmread(files["plain"]).PixelData
            )
            assert (came["packed"][0], came["lossy"][0]) == (RLELossless, JPEGBaseline8Bit)
            assert is_as_it_lay(came["packed"], files["packed"])
            assert is_as_it_lay(came["lossy"], files["lossy"])

            bring("FLAT")
            came = arrived(flat, files)
            assert {syntax for syntax, _ in came.values()} == {ExplicitVRLittleEndian}
            assert came.keys() == files.keys()
            assert is_as_it_lay(came["plain"], files["plain"])
            assert bytes(dcmread(came["packed"][1]).PixelData) == packed_pixels
            flat_lossy = dcmread(came["lossy"][1])
            assert flat_lossy.LossyImageCompression == "01"


def test_what_a_route_changes_is_encoded_as_the_peer_gets_it(
    here: Here, tmp_path: Path, peer_tool: Tool
) -> None:
    files = sources(tmp_path / "in", peer_tool)
    pixels = {
        name: dcmread(files[name]).pixel_array.astype("<u2").tobytes()
        for name in ("plain", "packed")
    }
    with (
        writer(peer_tool, tmp_path / "a" / "SMALL") as small,
        writer(peer_tool, tmp_path / "b" / "FLAT") as flat,
    ):
        here.peer("SMALL", small.port, "--encoding", "compressed")
        here.peer("FLAT", flat.port, "--encoding", "uncompressed")
        here("route", "add", "change", "--to", "SMALL", "--to", "FLAT", "--prefix", "PatientID=X-",
             "--when", "series")  # fmt: skip
        with serving(tmp_path / "home", settings=WORKING) as archive:
            for name, option in (("plain", "-xe"), ("packed", "-xr"), ("lossy", "-xy")):
                send(peer_tool, archive.port, [files[name]], option)
            until(lambda: len(small.received()) == len(flat.received()) == 3)
            until(here.all_over)
        compact, plain = arrived(small, files), arrived(flat, files)
    assert [one["state"] for one in here.jobs()] == ["done"] * len(here.jobs())
    assert {name: syntax for name, (syntax, _) in compact.items()} == {
        "plain": JPEGLSLossless, "packed": RLELossless, "lossy": JPEGBaseline8Bit
    }  # fmt: skip
    assert {syntax for syntax, _ in plain.values()} == {ExplicitVRLittleEndian}
    assert pixels_by(peer_tool("dcmdjpls"), compact["plain"]) == pixels["plain"]
    assert bytes(dcmread(compact["lossy"][1]).PixelData) == bytes(dcmread(files["lossy"]).PixelData)
    for name, seen in pixels.items():
        assert bytes(dcmread(plain[name][1]).PixelData) == seen
    for _, file in (*compact.values(), *plain.values()):
        one = dcmread(file)
        assert one.PatientID == "X-CRASH"
        (original,) = one.OriginalAttributesSequence
        assert original.ModifiedAttributesSequence[0].PatientID == "CRASH"

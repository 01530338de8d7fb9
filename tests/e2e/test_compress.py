"""Compression at rest as peers and administrators see it: by jobs after arrival, and by ``pacs compress``."""

import json
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

from tests import forked
from tests.archive import environment, run, serving, storescp
from tests.association_fakes import until as until_within
from tests.crash import ct, data_set_of, write

until = partial(until_within, timeout_s=180)
COUNT = 40
COMPRESSING = {
    "jobs.workers": "1",
    "storage.compress": "jpeg-ls",
    "storage.compress_delay_s": "0",
    "storage.keep_original_s": "15",
    "storage.compress_tidy_cron": "* * * * * *",
}


def smooth(study: str, series: str, number: int, side: int = 128) -> Dataset:
    """Make a CT that can be compressed."""
    one = ct(study=study, series=series, size_bytes=2 * side * side)
    x, y = np.meshgrid(np.arange(side), np.arange(side))
    noise = np.random.default_rng(number).integers(0, 4, (side, side))
    one.PixelData = ((x * y // 16 + number * 3 + noise) % 4096).astype("<u2").tobytes()
    return one


def written(folder: Path, study: str, count: int) -> dict[str, bytes]:
    """Write a study to send; gives its Data Sets by SOP Instance UID."""
    folder.mkdir()
    series = [generate_uid(), generate_uid()]
    made = [smooth(study, series[number % 2], number) for number in range(count)]
    return {str(one.SOPInstanceUID): data_set_of(write(one, folder)) for one in made}


def fetched(tool: str, port: int, study: str, folder: Path, *syntax: str) -> dict[str, bytes]:
    """Fetch a study with DCMTK's getscu, bit-preserving."""
    folder.mkdir()
    said = run(
        tool, "-aec", "PACS", "-S", *syntax, "-B", "-od", str(folder),
        "-k", "QueryRetrieveLevel=STUDY", "-k", f"StudyInstanceUID={study}",
        "127.0.0.1", str(port),
    )  # fmt: skip
    assert said.code == 0, said.text
    return {
        str(pydicom.dcmread(one, stop_before_pixels=True).SOPInstanceUID): data_set_of(one)
        for one in folder.iterdir()
    }


def stats(home: Path, settings: dict[str, str]) -> dict[str, int]:
    said = command(home, settings, "stats", "--json")
    assert said.returncode == 0, said.stderr
    found: dict[str, int] = json.loads(said.stdout)
    return found


def command(
    home: Path, settings: dict[str, str], *arguments: str
) -> subprocess.CompletedProcess[str]:
    """Run one ``pacs`` command to its end."""
    return forked.run_first_fresh(arguments, environment(home, settings), timeout_s=300)


def test_what_arrives_is_compressed_by_jobs_and_always_fetched_as_it_was_sent(
    tmp_path: Path, peer_tool: Callable[[str], str]
) -> None:
    storescu, getscu = peer_tool("storescu"), peer_tool("getscu")
    home, study = tmp_path / "home", generate_uid()
    sent = written(tmp_path / "sent", study, COUNT)
    with serving(home, settings=COMPRESSING) as archive:
        port = str(archive.port)
        said = run(storescu, "+sd", "127.0.0.1", port, str(tmp_path / "sent"))
        assert said.code == 0, said.text
        rounds = 0

        def all_compressed() -> bool:
            nonlocal rounds
            rounds += 1
            got = fetched(getscu, archive.port, study, tmp_path / f"got-{rounds}")
            assert got == sent, "whatever form it is held in, or is just changing to"
            return stats(home, COMPRESSING)["compressed_instances"] == COUNT

        assert until(all_compressed)
        assert until(lambda: len(archive.kept()) == COUNT), "the originals are removed"
        assert fetched(getscu, archive.port, study, tmp_path / "got-last") == sent

        again = run(storescu, "+sd", "127.0.0.1", port, str(tmp_path / "sent"))
        assert again.code == 0, again.text
        found = stats(home, COMPRESSING)
        assert found["instances"] == COUNT and found["versions_not_delivered"] == 0
        assert found["compressed_bytes"] < found["compressed_from_bytes"]

        with storescp(peer_tool, tmp_path / "moved") as receiver:
            archive.add_peer("DEST", receiver.port)
            moved = run(
                peer_tool("movescu"), "-aec", "PACS", "-aem", "DEST", "-S",
                "-k", "QueryRetrieveLevel=STUDY", "-k", f"StudyInstanceUID={study}",
                "127.0.0.1", port,
            )  # fmt: skip
            assert moved.code == 0, moved.text
            taken = [data_set_of(one) for one in receiver.taken()]
        assert len(taken) == COUNT
        assert sum(map(len, taken)) < sum(map(len, sent.values())), (
            "who takes it gets it as it lies"
        )
    assert command(home, COMPRESSING, "verify", "--restore").returncode == 0


READERS = {
    "jpeg-lossless": ("dcmdjpeg", ()),
    "jpeg-ls": ("dcmdjpls", ()),
    "jpeg-2000": ("gdcmconv", ("--raw",)),
}


@pytest.mark.parametrize("target", sorted(READERS))
def test_foreign_readers_decode_the_file_of_a_form(
    target: str, tmp_path: Path, peer_tool: Callable[[str], str]
) -> None:
    tool, options = READERS[target]
    settings = {"storage.keep_original_s": "0", "jobs.workers": "0"}
    home, study = tmp_path / "home", generate_uid()
    sent = written(tmp_path / "sent", study, 3)
    with serving(home, settings=settings) as archive:
        peers_tool = peer_tool("storescu")
        assert (
            run(peers_tool, "+sd", "127.0.0.1", str(archive.port), str(tmp_path / "sent")).code == 0
        )
    said = command(home, settings, "compress", "--study", study, "--to", target)
    assert said.returncode == 0, said.stderr
    assert said.stdout.startswith("3 instances compressed")
    decoded = tmp_path / "decoded.dcm"
    read = 0
    for path in sorted((home / "store").rglob("*.dcm")):
        held = pydicom.dcmread(path)
        if not held.file_meta.TransferSyntaxUID.is_compressed:
            continue
        said_by_tool = run(peer_tool(tool), *options, str(path), str(decoded))
        assert said_by_tool.code == 0, said_by_tool.text
        original = sent[str(held.SOPInstanceUID)]
        assert original.endswith(pydicom.dcmread(decoded).PixelData)
        read += 1
    assert read == 3


@pytest.mark.parametrize(
    "arguments", [(), ("--all", "--study", "1.2"), ("--all", "--back", "--to", "htj2k"), ("--all",)]
)
def test_wrong_usage_is_told(arguments: tuple[str, ...], tmp_path: Path) -> None:
    assert command(tmp_path, {}, "compress", *arguments).returncode == 2


def test_nothing_happens_without_the_setting(
    tmp_path: Path, peer_tool: Callable[[str], str]
) -> None:
    home, study = tmp_path / "home", generate_uid()
    written(tmp_path / "sent", study, 2)
    with serving(home) as archive:
        said = run(
            peer_tool("storescu"), "+sd", "127.0.0.1", str(archive.port), str(tmp_path / "sent")
        )
        assert said.code == 0, said.text
        assert not [
            one for one in archive.listed("job", "list") if one["kind"] == "compress.series"
        ]

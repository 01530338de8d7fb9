"""Real files of many makers: stored, found at four levels, fetched by C-GET and C-MOVE, equal.

DCMTK sends and fetches whatever it knows; what went on the wire is learnt by
sending the same file with the same options to DCMTK's own bit-preserving
storescp first. pynetdicom sends and fetches the rest as bytes. Which file went
by which peer is printed (``pytest -s``, or ``-rP``).
"""

import re
import subprocess
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import pydicom.uid
import pytest
from pydicom import dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.filewriter import write_file_meta_info
from pynetdicom.association import Association

from tests import raw_peer
from tests.archive import (
    Archive,
    Receiver,
    Tool,
    data_set_of,
    data_set_offset,
    run,
    serving,
    storescp,
)
from tests.raw_peer import PATIENT_ROOT, STUDY_ROOT, Instance, Taken, identifier

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::UserWarning")]

SEND_OPTIONS = {  # storescu 3.6.7
    "1.2.840.10008.1.2": "-xi",
    "1.2.840.10008.1.2.1": "-xe",
    "1.2.840.10008.1.2.2": "-xb",
    "1.2.840.10008.1.2.1.99": "-xd",
    "1.2.840.10008.1.2.4.50": "-xy",
    "1.2.840.10008.1.2.4.51": "-xx",
    "1.2.840.10008.1.2.4.70": "-xs",
    "1.2.840.10008.1.2.4.80": "-xt",
    "1.2.840.10008.1.2.4.81": "-xu",
    "1.2.840.10008.1.2.4.90": "-xv",
    "1.2.840.10008.1.2.4.91": "-xw",
    "1.2.840.10008.1.2.5": "-xr",
}
GET_OPTIONS = {  # getscu puts its syntax and the uncompressed ones into one context, where we choose
    syntax: option.replace("-", "+")
    for syntax, option in SEND_OPTIONS.items()
    if syntax not in ("1.2.840.10008.1.2", "1.2.840.10008.1.2.2")
}
COMPRESSED_FIRST = {
    "dicom.transfer_syntax_order": "lossy,lossless,deflated,explicit-little,implicit,big-endian"
}
UIDS = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")
WITHOUT_PATIENT = ("1.2.840.10008.5.1.4.38.1", "1.2.840.10008.5.1.4.39.1")
LAST_DELIMITER = b"\xfe\xff\xdd\xe0\0\0\0\0"
INCOMPLETE = 0xC003  # lacks a usable UID
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
UID = re.compile(r"[0-9]+(\.[0-9]+)*")


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One sample file, and what pydicom says of it."""

    path: Path
    name: str
    instance: Instance
    uids: tuple[str, ...]

    @property
    def usable(self) -> bool:
        """An independent rule: four UIDs of 1 to 64 digits and dots, two where no patient is."""
        needed = self.uids[:2] if self._without_patient() else self.uids
        return all(len(one) <= 64 and UID.fullmatch(one) for one in needed)

    def _without_patient(self) -> bool:
        return self.uids[0] in WITHOUT_PATIENT and not any(self.uids[2:])


@dataclass(frozen=True, kw_only=True)
class Sent:
    """What a peer puts on the wire for a sample."""

    sample: Sample
    option: str | None
    data_set: bytes
    as_sent: Path

    @property
    def peer(self) -> str:
        return "DCMTK" if self.option else "pynetdicom"


def read(folder: Path) -> Iterator[Sample]:
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if not path.is_file() or name.startswith("malformed") or path.suffix == ".csv":
            continue
        one = dcmread(path, force=True, stop_before_pixels=True)
        if not len(one):  # pydicom finds nothing where only the last delimiter is missing
            mended = BytesIO(path.read_bytes() + LAST_DELIMITER)
            one = dcmread(mended, force=True, stop_before_pixels=True)
        offset = data_set_offset(path)
        uids = tuple(str(one.get(keyword, "") or "") for keyword in UIDS)
        syntax = one.file_meta.get("TransferSyntaxUID", raw_peer.EXPLICIT_LITTLE)
        instance = Instance(
            sop_class_uid=uids[0],
            sop_instance_uid=uids[1],
            transfer_syntax_uid=str(syntax),
            data_set=path.read_bytes()[offset:],
        )
        yield Sample(path=path, name=name, instance=instance, uids=uids)


@pytest.fixture(scope="module")
def every(samples: Path) -> list[Sample]:
    return list(read(samples))


@pytest.fixture(scope="module")
def on_the_wire(
    every: list[Sample], peer_tool: Tool, tmp_path_factory: pytest.TempPathFactory
) -> list[Sent]:
    """Learn from DCMTK itself which samples it knows, and what it makes of them."""
    with storescp(peer_tool, tmp_path_factory.mktemp("reference")) as reference:
        return [learnt(one, peer_tool, reference) for one in every if one.usable]


def learnt(sample: Sample, tool: Tool, reference: Receiver) -> Sent:
    option = SEND_OPTIONS.get(sample.instance.transfer_syntax_uid)
    if option is not None:
        store(tool, option, reference.port, sample.path)
        for path in reference.taken():
            if syntax_of(path) == sample.instance.transfer_syntax_uid:
                return Sent(sample=sample, option=option, data_set=data_set_of(path), as_sent=path)
    clean = as_file(sample.instance, reference.folder.parent, f"{uuid.uuid4().hex}.dcm")
    return Sent(sample=sample, option=None, data_set=sample.instance.data_set, as_sent=clean)


def store(tool: Tool, option: str, port: int, path: Path) -> str:
    command = (tool("storescu"), "-v", "-R", option, "127.0.0.1", str(port), str(path))
    return run(*command).text


def syntax_of(path: Path) -> str:
    return str(dcmread(path, stop_before_pixels=True, specific_tags=[]).file_meta.TransferSyntaxUID)


def rounds(sent: list[Sent]) -> list[list[Sent]]:
    """Share the samples out so that no SOP Instance UID comes twice to the same archive."""
    shared: list[dict[str, Sent]] = []
    for one in sent:
        uid = one.sample.instance.sop_instance_uid
        place = next((each for each in shared if uid not in each), None)
        if place is None:
            place = {}
            shared.append(place)
        place[uid] = one
    return [list(each.values()) for each in shared]


def test_every_readable_sample_comes_back_as_it_was_sent(
    on_the_wire: list[Sent],
    new_database: Callable[[], str],
    peer_tool: Tool,
    tmp_path: Path,
) -> None:
    faults: list[str] = []
    for number, some in enumerate(rounds(on_the_wire)):
        home = tmp_path / f"home{number}"
        folder = tmp_path / f"moved{number}"
        with (
            serving(home, new_database(), COMPRESSED_FIRST) as archive,
            storescp(peer_tool, folder) as destination,
        ):
            archive.add_peer("DCMTK", destination.port)
            faults += Passage(archive, destination, peer_tool, tmp_path / f"got{number}").of(some)
            assert archive.arriving() == []
            kept = len(archive.kept())
            if kept != len(some):
                faults.append(f"{len(some)} sent, {kept} files kept")
    by_peer = [f"{one.peer:10} {one.sample.name}" for one in on_the_wire]
    print("\n".join([*sorted(by_peer), *faults]))
    assert len(by_peer) > 0
    assert faults == []


class Passage:
    """One round through one archive: in, found, out both ways."""

    def __init__(self, archive: Archive, destination: Receiver, tool: Tool, folder: Path) -> None:
        self.archive = archive
        self.destination = destination
        self.tool = tool
        self.folder = folder
        folder.mkdir()

    def of(self, some: list[Sent]) -> Iterator[str]:
        """Yield what is wrong."""
        for one in some:
            yield from (f"{one.sample.name}: {fault}" for fault in self._stored(one))
        keys = {}
        relational = [(root + raw_peer.FIND, b"\x01") for root in (PATIENT_ROOT, STUDY_ROOT)]
        models = [
            (root + raw_peer.FIND, [raw_peer.EXPLICIT_LITTLE])
            for root in (PATIENT_ROOT, STUDY_ROOT)
        ]
        port = self.archive.port
        with (
            raw_peer.associated(port, models, extended=relational) as free,
            raw_peer.associated(port, models) as strict,
        ):
            for one in some:
                found, faults = self._found(one, free, strict)
                keys[one.sample.name] = found
                yield from (f"{one.sample.name}: {fault}" for fault in faults)
        for one in some:
            found = keys[one.sample.name]
            if found:
                yield from (f"{one.sample.name}: {fault}" for fault in self._got(one, found))
        yield from self._moved(some, keys)

    def _stored(self, one: Sent) -> Iterator[str]:
        if one.option is None:
            (status,) = raw_peer.send(self.archive.port, [one.sample.instance])
            if status != 0x0000:
                yield f"stored with {status}"
            return
        said = store(self.tool, one.option, self.archive.port, one.sample.path)
        if "Received Store Response (Success)" not in said:
            yield f"storescu said {said[-300:]}"

    def _found(
        self, one: Sent, free: Association, strict: Association
    ) -> tuple[dict[str, str], list[str]]:
        """Find it by SOP Instance UID alone, then level by level in both models."""
        uid = one.sample.instance.sop_instance_uid
        wish = dict.fromkeys(("PatientID", "StudyInstanceUID", "SeriesInstanceUID"), "")
        answers = raw_peer.matches(
            free, PATIENT_ROOT, identifier("IMAGE", SOPInstanceUID=uid, **wish)
        )
        if len(answers) != 1:
            return {}, [f"found {len(answers)} times by its SOP Instance UID"]
        keys = {name: str(answers[0].get(name, "") or "") for name in (*wish, "SOPInstanceUID")}
        faults = []
        if any(one.sample.uids[2:]) and one.sample.uids[2:] != (
            keys["StudyInstanceUID"],
            keys["SeriesInstanceUID"],
        ):
            faults.append("found under other UIDs than its own")
        names = tuple(keys)
        for root, levels in ((PATIENT_ROOT, names), (STUDY_ROOT, names[1:])):
            wanted: dict[str, str] = {}
            association = strict if keys["PatientID"] or root == STUDY_ROOT else free
            for name, level in zip(names, ("PATIENT", "STUDY", "SERIES", "IMAGE"), strict=True):
                if name not in levels:
                    continue
                wanted[name] = keys[name]
                matches = raw_peer.matches(association, root, identifier(level, **wanted))
                if not any(str(each.get(name, "") or "") == keys[name] for each in matches):
                    faults.append(f"not found at {level} in {root}")
        return keys, faults

    def _got(self, one: Sent, keys: dict[str, str]) -> Iterator[str]:
        option = GET_OPTIONS.get(one.sample.instance.transfer_syntax_uid)
        wanted = {name: keys[name] for name in tuple(keys)[1:]}
        if one.option is None or option is None:
            yield from self._got_raw(one, wanted)
            return
        for stale in self.folder.iterdir():
            stale.unlink()
        queried = [f"{name}={value}" for name, value in wanted.items()]
        arguments = [
            part for each in ("QueryRetrieveLevel=IMAGE", *queried) for part in ("-k", each)
        ]
        said = run(
            self.tool("getscu"), "-v", "-S", "+B", option, "-od", str(self.folder), *arguments,
            "127.0.0.1", str(self.archive.port),
        )  # fmt: skip
        files = list(self.folder.iterdir())
        if not files and "Failed Suboperations    : 1" in said.text:
            yield from self._got_raw(one, wanted)  # getscu does not know the SOP Class
        elif len(files) != 1:
            yield f"getscu {option} brought {len(files)} files: {said.text[-300:]}"
        elif (syntax_of(files[0]), data_set_of(files[0])) != (
            one.sample.instance.transfer_syntax_uid,
            one.data_set,
        ):
            yield f"getscu {option} brought something else, in {syntax_of(files[0])}"

    def _got_raw(self, one: Sent, wanted: dict[str, str]) -> Iterator[str]:
        responses, arrived = raw_peer.get(
            self.archive.port,
            STUDY_ROOT,
            identifier("IMAGE", **wanted),
            [one.sample.instance.context],
        )
        if responses[-1][0].Status != 0x0000 or len(arrived) != 1:
            yield f"C-GET: {responses[-1][0].Status:04X}, {len(arrived)} instances"
        elif arrived[0].data_set != one.data_set:
            yield "C-GET brought other bytes"

    def _moved(self, some: list[Sent], keys: dict[str, dict[str, str]]) -> Iterator[str]:
        """By study to DCMTK, one by one to pynetdicom what DCMTK does not know."""
        known = [one for one in some if one.option is not None and keys[one.sample.name]]
        studies = dict.fromkeys(keys[one.sample.name]["StudyInstanceUID"] for one in known)
        for uid in studies:
            run(
                self.tool("movescu"), "-S", "-aem", "DCMTK", "-k", "QueryRetrieveLevel=STUDY",
                "-k", f"StudyInstanceUID={uid}", "127.0.0.1", str(self.archive.port),
            )  # fmt: skip
        arrived = {
            str(dcmread(one, stop_before_pixels=True).SOPInstanceUID): one
            for one in self.destination.taken()
        }
        for one in known:
            path = arrived.get(one.sample.instance.sop_instance_uid)
            if path is None:
                yield f"{one.sample.name}: did not arrive by C-MOVE"
            elif data_set_of(path) != one.data_set:
                yield f"{one.sample.name}: C-MOVE brought other bytes in {syntax_of(path)}"
            elif dciodvfy(self.tool, path) != dciodvfy(self.tool, one.as_sent):
                yield f"{one.sample.name}: dciodvfy says something else"
        yield from self._moved_raw([one for one in some if one not in known], keys)

    def _moved_raw(self, rest: list[Sent], keys: dict[str, dict[str, str]]) -> Iterator[str]:
        if not rest:
            return
        taken = Taken()
        contexts = dict.fromkeys(one.sample.instance.context for one in rest)
        with raw_peer.receiving([(one, [syntax]) for one, syntax in contexts], taken) as port:
            self.archive.add_peer("RAWDEST", port)
            model = [(STUDY_ROOT + raw_peer.MOVE, [raw_peer.IMPLICIT_LITTLE])]
            with raw_peer.associated(self.archive.port, model) as association:
                for one in rest:
                    wanted = {
                        name: keys[one.sample.name][name]
                        for name in tuple(keys[one.sample.name])[1:]
                    }
                    raw_peer.move(association, STUDY_ROOT, identifier("IMAGE", **wanted), "RAWDEST")
        arrived = {one.sop_instance_uid: one for one in taken.instances}
        for one in rest:
            instance = arrived.get(one.sample.instance.sop_instance_uid)
            if instance is None or instance.data_set != one.data_set:
                yield f"{one.sample.name}: C-MOVE brought {'nothing' if instance is None else 'other bytes'}"
            elif dciodvfy(self.tool, as_file(instance, self.folder, "arrived.dcm")) != dciodvfy(
                self.tool, one.as_sent
            ):
                yield f"{one.sample.name}: dciodvfy says something else"


def as_file(instance: Instance, folder: Path, name: str) -> Path:
    """Put file meta information before a Data Set that arrived as bytes."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = pydicom.uid.UID(instance.sop_class_uid)
    meta.MediaStorageSOPInstanceUID = pydicom.uid.UID(instance.sop_instance_uid)
    meta.TransferSyntaxUID = pydicom.uid.UID(instance.transfer_syntax_uid)
    path = folder / name
    with path.open("wb") as file:
        file.write(bytes(128) + b"DICM")
        write_file_meta_info(file, meta)  # type: ignore[arg-type]
        file.write(instance.data_set)
    return path


_SAID: dict[Path, list[str]] = {}


def dciodvfy(tool: Tool, path: Path) -> list[str]:
    """What dciodvfy says about the Data Set: file names out, file meta information left aside.

    It is asked about what was sent: storescu mends odd lengths on the way, and
    odd lengths in a file's meta information keep dciodvfy from the Data Set.
    """
    if path not in _SAID or path.name == "arrived.dcm":
        done = subprocess.run(
            [tool("dciodvfy"), str(path)], capture_output=True, timeout=60, check=False
        )
        text = (done.stdout + done.stderr).decode(errors="replace").replace(str(path), "FILE")
        lines = text.splitlines() if done.returncode >= 0 else ["crashed"]
        _SAID[path] = [one for one in lines if "(0x0002," not in one and "Meta" not in one]
    return _SAID[path]


def test_samples_without_usable_uids_are_refused_by_cause(
    every: list[Sample], new_database: Callable[[], str], tmp_path: Path
) -> None:
    refused = [one for one in every if not one.usable]
    assert refused, "no sample without usable UIDs"
    with serving(tmp_path / "home", new_database()) as archive:
        statuses = {}
        for one in refused:
            announced = Instance(
                sop_class_uid=one.uids[0] or SECONDARY_CAPTURE,
                sop_instance_uid=one.uids[1] if 0 < len(one.uids[1]) <= 64 else "2.25.1",
                transfer_syntax_uid=one.instance.transfer_syntax_uid,
                data_set=one.instance.data_set,
            )
            (statuses[one.name],) = raw_peer.send(archive.port, [announced])
        print("\n".join(f"{status:04X} {name}" for name, status in statuses.items() if status))
        assert archive.kept() == []
        assert archive.arriving() == []
    causes = {one.name: INCOMPLETE for one in refused}
    assert statuses == causes

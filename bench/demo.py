"""The demonstration: made-up studies are stored, found and fetched over DICOM, and compared byte for byte.

Runs a whole archive in a folder that is gone afterwards. Our own client does
the work; where DCMTK is installed it stores and finds as well.
"""

import hashlib
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from pydicom.dataset import Dataset

from bench.servers import LOOPBACK, archive
from bench.synthetic import PEOPLE, write_study
from config.settings import Association
from pacs.core.identifiers import AETitle
from pacs.core.records import Peer
from scu import files, find, get, store
from tests.peers import find as find_tool

INSTANCES = 12
ROWS = 256
OUR_AE_TITLE = "DEMO"
PENDING = (0xFF00, 0xFF01)
BOUNDS = Association()


def main() -> int:
    """Run it; 0 when every byte came back."""
    with tempfile.TemporaryDirectory(prefix="pacs-demo-") as name:
        folder = Path(name)
        say(f"{len(PEOPLE)} made-up CT studies of {INSTANCES} slices")
        studies = [
            write_study(folder / "sent" / one.patient_id, one, instances=INSTANCES, rows=ROWS)
            for one in PEOPLE
        ]
        with archive(folder / "home") as port:
            say(f"The archive listens on {LOOPBACK}:{port}")
            peer = Peer(ae_title=AETitle("PACS"), host=LOOPBACK, port=port)
            send(peer, folder / "sent")
            query(peer)
            for study in studies:
                fetch(peer, study, folder / "back")
        return compare(folder / "sent", folder / "back")


def say(text: str) -> None:
    """Begin a step."""
    print(f"\n== {text}", flush=True)


def send(peer: Peer, folder: Path) -> None:
    """Store every study: the first with DCMTK where it is installed, the others with our client."""
    studies = sorted(folder.iterdir())
    if storescu := find_tool("storescu"):
        first = studies.pop(0)
        say(f"C-STORE of {first.name} with DCMTK's storescu")
        at = [peer.host, str(peer.port)]
        command = [storescu, "-aec", peer.ae_title, "+sd", *at, str(first)]
        subprocess.run(command, check=True)
        print(f"{len(list(first.iterdir()))} instances: accepted")
    say(f"C-STORE of {', '.join(one.name for one in studies)} with our client")
    payloads = [one for one in files.read(studies) if not isinstance(one, files.Unsendable)]
    outcomes = store.send_files(peer, payloads, ae_title=OUR_AE_TITLE, bounds=BOUNDS)
    counts: dict[str, int] = {}
    for one in outcomes:
        counts[one.sent_as.value] = counts.get(one.sent_as.value, 0) + 1
    print(", ".join(f"{count} instances: {word}" for word, count in counts.items()))


def query(peer: Peer) -> None:
    """Find all studies, then one by a name in other letters than it was written in."""
    say("C-FIND of all studies")
    for match in matches(peer, PatientName=""):
        print(f"{match.PatientID:8} {match.StudyDate}  {match.PatientName}")
        print(f"         {match.StudyDescription}, instances: "
              f"{match.NumberOfStudyRelatedInstances}")  # fmt: skip
    for name in ("muller*", "*太郎*"):
        say(f"C-FIND of the name {name}")
        for match in matches(peer, PatientName=name):
            print(f"{match.PatientID:8} {match.PatientName}")


def matches(peer: Peer, **keys: str) -> Iterator[Dataset]:
    """Ask for studies; yield each answer."""
    question = Dataset()
    question.SpecificCharacterSet = "ISO_IR 192"
    question.QueryRetrieveLevel = "STUDY"
    for keyword in (
        "PatientID",
        "StudyDate",
        "StudyDescription",
        "StudyInstanceUID",
        "NumberOfStudyRelatedInstances",
    ):
        setattr(question, keyword, None)
    for keyword, value in keys.items():
        setattr(question, keyword, value)
    for status, match in find.find(peer, question, ae_title=OUR_AE_TITLE, bounds=BOUNDS):
        if status in PENDING and match is not None:
            yield match
        elif status:
            raise SystemExit(f"C-FIND failed with status {status:04X}")


def fetch(peer: Peer, study: str, folder: Path) -> None:
    """Retrieve one study into a folder."""
    folder.mkdir(exist_ok=True)
    say(f"C-GET of study {study}")
    question = Dataset()
    question.QueryRetrieveLevel = "STUDY"
    question.StudyInstanceUID = study
    count = 0

    def received(_: object) -> None:
        nonlocal count
        count += 1

    arrivals = get.Arrivals(folder=folder, received=received, max_instance_bytes=1 << 30)
    for _ in get.get(peer, question, arrivals, ae_title=OUR_AE_TITLE, bounds=BOUNDS):
        pass
    print(f"{count} instances: received")


def compare(sent: Path, back: Path) -> int:
    """Compare the Data Sets, without the File Meta Information that each writer makes its own."""
    before, after = digests(sent), digests(back)
    say("What was sent against what came back")
    same = len(before & after)
    print(f"{same} of {len(before)} Data Sets are equal, byte for byte")
    return 0 if before == after else 1


def digests(folder: Path) -> set[str]:
    """Hash the Data Set of every file. The group's length says where it begins (PS3.10 7.1)."""
    found = set()
    for path in folder.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            start = 144 + int.from_bytes(content[140:144], "little")
            found.add(hashlib.sha256(content[start:]).hexdigest())
    return found


if __name__ == "__main__":
    sys.exit(main())

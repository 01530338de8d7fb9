"""The clients of a run: DCMTK's storescu and getscu, and the counts and comparisons that prove their work.

A timing includes the start of the client's process, for every server alike.
"""

import os
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from bench.dimse import STUDY_ROOT_FIND, STUDY_ROOT_MOVE, Client, identifier
from bench.peers import MAX_PDU, Server
from bench.servers import LOOPBACK, WITHOUT_NAGLE, pacs
from bench.studies import Study, digests
from tests.peers import find as find_tool

TIMEOUT_S = 300.0
STOCK = {key: value for key, value in os.environ.items() if key != "TCP_NODELAY"}
"""DCMTK as Debian ships it: Nagle on."""
FIRST_STATUS_BYTE = 0xA7
RELATED_INSTANCES = (0x0020, 0x1208)


class Wrong(Exception):
    """A server did not do what was measured; the figure does not count."""


def store_s(server: Server, studies: Sequence[Study], *, stock: bool) -> float:
    """Send each study on an association of its own, all at once; give the seconds taken."""
    options = [] if stock else ["--max-pdu", MAX_PDU, "--max-send-pdu", MAX_PDU]
    command = [_path("storescu"), *options, "-aet", "BENCH", "-aec", server.ae_title]
    command += [LOOPBACK, str(server.port)]
    started = time.perf_counter()
    senders = [
        subprocess.Popen(
            [*command, *map(str, one.files)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=STOCK if stock else WITHOUT_NAGLE,
        )
        for one in studies
    ]
    said = [one.communicate(timeout=TIMEOUT_S)[1] for one in senders]
    taken_s = time.perf_counter() - started
    for sender, text in zip(senders, said, strict=True):
        if sender.returncode or b"E: " in text:
            raise Wrong(f"storescu {ended(sender.returncode)}: {last_line(text)}")
    return taken_s


def get_s(server: Server, study: Study, folder: Path) -> float:
    """Retrieve a study with C-GET into a new folder; give the seconds taken."""
    folder.mkdir(parents=True)
    command = [_path("getscu"), "-S", "+B", "--max-pdu", MAX_PDU, "-od", str(folder)]
    command += ["-aet", "BENCH", "-aec", server.ae_title, LOOPBACK, str(server.port)]
    command += ["-k", "QueryRetrieveLevel=STUDY"]
    command += ["-k", f"StudyInstanceUID={study.study_instance_uid}"]
    started = time.perf_counter()
    done = subprocess.run(
        command, check=False, capture_output=True, timeout=TIMEOUT_S, env=WITHOUT_NAGLE
    )
    taken_s = time.perf_counter() - started
    if done.returncode:
        raise Wrong(f"getscu {done.returncode}: {last_line(done.stderr)}")
    return taken_s


def move_s(server: Server, study: Study, destination: str) -> float:
    """Have a study sent to a third party with C-MOVE; give the seconds taken."""
    question = identifier(StudyInstanceUID=study.study_instance_uid)
    started = time.perf_counter()
    with Client(server.port, server.ae_title, STUDY_ROOT_MOVE) as client:
        completed = client.move(question, destination)
    taken_s = time.perf_counter() - started
    if completed != len(study.files):
        raise Wrong(f"C-MOVE completed {completed} of {len(study.files)} sub-operations")
    return taken_s


def check_count(server: Server, study: Study) -> None:
    """Have the server count a study's instances with C-FIND."""
    count = instances(server, study)
    if count != len(study.files):
        raise Wrong(f"C-FIND counts {count} of {len(study.files)} instances")


def instances(server: Server, study: Study) -> int:
    """Ask for Number of Study Related Instances; where that is not answered, for every instance."""
    by_study = identifier(
        StudyInstanceUID=study.study_instance_uid, NumberOfStudyRelatedInstances=""
    )
    with Client(server.port, server.ae_title, STUDY_ROOT_FIND) as client:
        answers = list(client.matches(by_study))
        count = sum(related_instances(one) for one in answers)
        if count or not answers:
            return count
        return client.find(
            identifier(
                QueryRetrieveLevel="IMAGE",
                StudyInstanceUID=study.study_instance_uid,
                SeriesInstanceUID=study.series_instance_uid,
                SOPInstanceUID="",
            )
        )


def related_instances(answer: bytes) -> int:
    """Read Number of Study Related Instances from an Implicit VR identifier; 0 without a value."""
    at = 0
    while at + 8 <= len(answer):
        tag = tuple(int.from_bytes(answer[at + n : at + n + 2], "little") for n in (0, 2))
        length = int.from_bytes(answer[at + 4 : at + 8], "little")
        if tag == RELATED_INSTANCES:
            return int(answer[at + 8 : at + 8 + length].strip(b" \0") or b"0")
        at += 8 + length
    return 0


def check_same(study: Study, folder: Path) -> None:
    """Compare the Data Set of every file with the source."""
    sent, back = digests(study.files), digests(list(folder.iterdir()))
    if sent != back:
        same = len(set(sent) & set(back))
        raise Wrong(f"{same} of {len(sent)} Data Sets came back equal, {len(back)} came back")


def check_verified(home: Path) -> None:
    """Have our archive read every file again and compare it with its index."""
    done = subprocess.run(pacs("--home", home, "verify"), check=False, capture_output=True)
    if done.returncode:
        raise Wrong(f"pacs verify {done.returncode}: {last_line(done.stdout + done.stderr)}")


def ended(code: int) -> str:
    """Say how storescu ended: above 0xA6 it is the first byte of the C-STORE status it was given.

    Examples
    --------
    >>> ended(0xA7)
    'was given status A7xx'
    """
    return f"was given status {code:02X}xx" if code >= FIRST_STATUS_BYTE else f"ended with {code}"


def last_line(text: bytes) -> str:
    """Give the last line of what a tool said."""
    lines = text.decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it said nothing"


def _path(tool: str) -> str:
    found = find_tool(tool)
    if found is None:
        raise FileNotFoundError(tool)
    return found

"""Design law 1 seen from outside: what the server asks of the system before each answer 0000.

The real server runs under strace. A sync counts when it has returned, an
answer when it is begun.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from pydicom.uid import generate_uid

from tests.crash import associated, ct, initialize, serving

TRACED = (
    "openat,fsync,fdatasync,sync_file_range,link,linkat,rename,renameat,renameat2,"
    "mkdir,mkdirat,write,writev,pwrite64,pwritev,sendto,sendmsg"
)
SYNCS = ("fsync", "fdatasync")
STORE_RSP = bytes.fromhex("00000001 02000000 0180")  # (0000,0100) Command Field 0x8001
SUCCESS = bytes.fromhex("00000009 02000000 0000")  # (0000,0900) Status 0x0000

_LINE = re.compile(r"(?P<pid>\d+) +(?P<rest>.*)")
_CALL = re.compile(r"(?P<name>\w+)\((?P<arguments>.*)\) += (?P<result>-?\d+).*")
_RESUMED = re.compile(r"<\.\.\. (?P<name>\w+) resumed>(?P<rest>.*)")
_TEXT = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')
_PATH = re.compile(r"<((?:\\x[0-9a-f]{2})+|[^<>]*)>")


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One system call; ``begun`` and ``ended`` are positions in the trace."""

    name: str
    paths: tuple[str, ...]
    data: bytes
    result: int
    begun: int
    ended: int


def _plain(text: str) -> str:
    return bytes.fromhex(text.replace("\\x", "")).decode("utf-8", "replace")


def _call(name: str, arguments: str, result: int, begun: int, ended: int) -> Call:
    texts = _TEXT.findall(arguments)
    of_descriptors = [_plain(one) if "\\x" in one else one for one in _PATH.findall(arguments)]
    named = [_plain(one) for one in texts] if name not in _WRITES else []
    data = bytes.fromhex("".join(texts).replace("\\x", "")) if name in _WRITES else b""
    return Call(
        name=name,
        paths=(*of_descriptors, *named),
        data=data,
        result=result,
        begun=begun,
        ended=ended,
    )


_WRITES = ("write", "writev", "pwrite64", "pwritev", "sendto", "sendmsg")


def parse(lines: Sequence[str]) -> list[Call]:
    """Make calls of a trace; those that another thread cut in two are put together."""
    waiting: dict[str, tuple[str, int]] = {}
    calls = []
    for number, line in enumerate(lines):
        matched = _LINE.match(line)
        if matched is None:
            continue
        pid, rest = matched["pid"], matched["rest"]
        begun = number
        if rest.endswith("<unfinished ...>"):
            waiting[pid] = (rest.removesuffix("<unfinished ...>"), number)
            continue
        if resumed := _RESUMED.match(rest):
            start, begun = waiting.pop(pid)
            rest = start + resumed["rest"]
        if call := _CALL.match(rest):
            result = int(call["result"])
            calls.append(_call(call["name"], call["arguments"], result, begun, number))
    return sorted(calls, key=lambda one: one.begun)


def answers(calls: Sequence[Call]) -> list[Call]:
    """Those that carry a C-STORE-RSP with status 0000."""
    return [one for one in calls if STORE_RSP in one.data and SUCCESS in one.data]


def synced(calls: Sequence[Call], path: str, *, after: int, before: int) -> int | None:
    """When a sync of ``path`` that began after ``after`` had returned, if before ``before``."""
    for one in calls:
        if one.name in SYNCS and path in one.paths[:1] and one.result == 0:
            if one.begun > after and one.ended < before:
                return one.ended
    return None


def assert_durable_before(calls: Sequence[Call], answer: Call, store: Path, made: set[str]) -> None:
    """File, name, directories, write-ahead log: each in its order, all before the answer."""
    links = [
        one
        for one in calls
        if one.name in ("link", "linkat") and one.ended < answer.begun and one.result == 0
    ]
    link = links[-1]
    arrival, final = (path for path in link.paths if path.startswith(str(store)))
    writes = [one for one in calls if one.name in _WRITES and arrival in one.paths[:1]]
    assert writes, "the instance was not written to its arrival file"
    content = synced(calls, arrival, after=max(one.ended for one in writes), before=link.begun)
    assert content is not None, "content is not synced between its last write and its name"
    folder = Path(final).parent
    new = [str(folder)]
    if str(folder) not in made:
        new += [str(one) for one in folder.parents if one == store or store in one.parents]
    times = [synced(calls, one, after=link.ended, before=answer.begun) for one in new]
    assert None not in times, f"not synced after the name was made: {new} {times}"
    made.add(str(folder))
    log = str(store.parent / "index.sqlite-wal")
    rows = [
        one
        for one in calls
        if one.name in _WRITES and log in one.paths[:1] and one.begun < answer.begun
    ]
    assert rows and rows[-1].begun > max(filter(None, times)), "rows before the file is durable"
    assert synced(calls, log, after=rows[-1].ended, before=answer.begun) is not None


@pytest.fixture
def trace(tmp_path: Path, peer_tool: Callable[[str], str]) -> list[Call]:
    """Store four instances, three of one study, on a fresh home; give the server's system calls."""
    home, log = tmp_path / "home", tmp_path / "trace"
    initialize(home)
    study = generate_uid()
    around = [peer_tool("strace"), "-f", "-y", "-xx", "-s", "512", "-o", str(log)]
    around += ["-e", f"trace={TRACED}", "-e", "signal=none"]
    with serving(home, around=around) as child:
        with associated(child.port) as association:
            for one in (ct(study=study), ct(study=study), ct(), ct(study=study)):
                assert association.send_c_store(one).Status == 0x0000
        assert child.terminate() == 0
    return parse(log.read_text(errors="replace").splitlines())


def test_everything_is_durable_before_each_success(trace: list[Call], tmp_path: Path) -> None:
    sent = answers(trace)
    assert len(sent) == 4
    made: set[str] = set()
    for answer in sent:
        assert_durable_before(trace, answer, tmp_path / "home" / "store", made)
    assert len(made) == 2

"""Routing as an administrator uses it: storescu to ``pacs serve`` with its worker, by routes, to storescp."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import MRImageStorage, RLELossless

from tests.archive import Archive, Tool, data_set_of, free_port, run, serving
from tests.crash import write
from tests.forwarding import Writer, until, writer
from tests.routing import Here, image, send

WORKING = {
    "serve.listeners": "1",
    "jobs.workers": "1",
    "jobs.poll_s": "0.1",
    "jobs.hold_first_s": "0.5",
    "jobs.hold_max_s": "1",
    "arrival.series_quiet_s": "0.8",
    "arrival.study_quiet_s": "1.5",  # a pause between two images of a study is to be shorter
}
ROOT = "1.2.826.0.1.3680043.10.995"
Receivers = Callable[[str], Writer]


@pytest.fixture
def here(tmp_path: Path) -> Here:
    shell = Here(tmp_path / "home")
    shell("init")
    return shell


@pytest.fixture
def receivers(tmp_path: Path, peer_tool: Tool, here: Here) -> Iterator[Receivers]:
    with receiving(here, tmp_path, peer_tool) as start:
        yield start


@contextmanager
def receiving(here: Here, tmp_path: Path, peer_tool: Tool) -> Iterator[Receivers]:
    """Start a storescp and name it as a peer."""
    with ExitStack() as stack:

        def start(ae_title: str) -> Writer:
            made = stack.enter_context(writer(peer_tool, tmp_path / ae_title))
            here.peer(ae_title, made.port)
            return made

        yield start


@contextmanager
def working(tmp_path: Path, url: str = "") -> Iterator[Archive]:
    with serving(tmp_path / "home", url, WORKING) as archive:
        yield archive


def written(folder: Path, made: Iterable[Dataset]) -> dict[str, Path]:
    """SOP Instance UID → its file, in this order."""
    folder.mkdir(exist_ok=True)
    return {one.SOPInstanceUID: write(one, folder) for one in made}


def once(uids: Iterable[str]) -> dict[str, int]:
    return dict.fromkeys(uids, 1)


def has(writer: Writer, uids: Iterable[str]) -> bool:
    """Tell whether each of these has come once, and nothing else."""
    return writer.received() == once(uids)


def quiet(here: Here, expected: Mapping[Writer, Iterable[str]]) -> None:
    """Wait until everybody has what is expected and nothing is left to do; then nobody has more."""
    wanted = {who: set(uids) for who, uids in expected.items()}
    until(lambda: all(uids <= who.received().keys() for who, uids in wanted.items()))
    until(here.all_over)
    assert {who.folder.name: who.received() for who in wanted} == {
        who.folder.name: once(uids) for who, uids in wanted.items()
    }


def test_each_object_goes_once_to_whom_it_concerns(
    new_database: Callable[[], str], tmp_path: Path, peer_tool: Tool
) -> None:
    url = new_database()
    here = Here(tmp_path / "home", url)
    here("init")
    with receiving(here, tmp_path, peer_tool) as receivers:
        _goes_once(here, receivers, tmp_path, peer_tool, url)


def _goes_once(here: Here, receivers: Receivers, tmp_path: Path, peer_tool: Tool, url: str) -> None:
    each, series, study = (receivers(one) for one in ("EACH", "SERIES", "STUDY"))
    here("route", "add", "each", "--to", "EACH", "--when", "instance", "--match", "Modality=CT",
         "--unless", "PatientName=TEST*")  # fmt: skip
    here("route", "add", "series", "--to", "SERIES", "--when", "series", "--calling", "CT*")
    here("route", "add", "study", "--to", "STUDY", "--match", "Modality=CT")
    first, tried, plain = f"{ROOT}.1.1", f"{ROOT}.1.2", f"{ROOT}.1.3"
    scout = {"Modality": "MR", "SOPClassUID": MRImageStorage}
    ct = written(tmp_path / "ct", [image(f"{first}.1.{number}") for number in range(3)])
    mr = written(tmp_path / "mr", [image(f"{first}.2.{number}", **scout) for number in range(2)])
    test = written(
        tmp_path / "test",
        [
            image(f"{tried}.1.{number}", PatientName="Test^One", PatientID="T")
            for number in range(2)
        ],
    )
    other = written(tmp_path / "other", [image(f"{plain}.1.1", PatientID="O", **scout)])
    back = written(tmp_path / "back", [image(f"{ROOT}.1.4.1.1", PatientID="B")])
    late = written(tmp_path / "late", [image(f"{first}.1.9")])

    with working(tmp_path, url) as archive:
        send(peer_tool, archive.port, [*ct.values(), *mr.values()], source="CT1")
        send(peer_tool, archive.port, [*test.values(), *other.values()], source="MR1")
        send(peer_tool, archive.port, back.values(), source="STUDY")
        first_round = [*ct, *mr, *test]
        quiet(here, {each: [*ct, *back], series: [*ct, *mr], study: first_round})
        send(peer_tool, archive.port, late.values(), source="CT2")
        quiet(
            here,
            {
                each: [*ct, *back, *late],
                series: [*ct, *mr, *late],
                study: [*first_round, *late],  # nothing that came from there
            },
        )
        held = {one.name: data_set_of(one) for one in archive.kept()}
    assert sorted(held.values()) == sorted({**study.files(), **_of(other), **_of(back)}.values())
    assert {one["state"] for one in here.jobs()} == {"done"}


def _of(files: Mapping[str, Path]) -> dict[str, bytes]:
    return {uid: data_set_of(file) for uid, file in files.items()}


def test_changes_are_made_on_the_way_out_and_said(
    here: Here, receivers: Receivers, tmp_path: Path, peer_tool: Tool
) -> None:
    dest = receivers("DEST")
    here("route", "add", "change", "--to", "DEST", "--set", "InstitutionName=Routed",
         "--map", "BodyPartExamined:HEAD=SKULL", "--prefix", "PatientID=X-", "--delete",
         "ReferringPhysicianName")  # fmt: skip
    here("route", "add", "second", "--to", "DEST")
    before = {
        "BodyPartExamined": "HEAD",
        "PatientID": "4711",
        "ReferringPhysicianName": "House^G",
        "InstitutionName": "Origin",
    }
    plain, packed = image(f"{ROOT}.2.1.1.1", **before), image(f"{ROOT}.2.1.1.2", **before)
    packed.compress(RLELossless, generate_instance_uid=False)
    files = written(tmp_path / "in", [plain, packed])
    with working(tmp_path) as archive:
        send(peer_tool, archive.port, [files[plain.SOPInstanceUID]])
        send(peer_tool, archive.port, [files[packed.SOPInstanceUID]], "-xr")
        quiet(here, {dest: files})
        assert sorted(map(data_set_of, archive.kept())) == sorted(_of(files).values())
        archive.pacs("verify")
    for file in dest.folder.iterdir():
        said = run(peer_tool("dcmdump"), "+L", str(file)).text
        top = "\n".join(line for line in said.splitlines() if not line.startswith(" "))
        for line in ("(0008,0080) LO [Routed]", "(0018,0015) CS [SKULL]", "(0010,0020) LO [X-4711]",
                     "(0400,0561) SQ"):  # fmt: skip
            assert line in top
        assert "(0008,0090)" not in top
        changed, held = dcmread(file), dcmread(files[str(dcmread(file).SOPInstanceUID)])
        assert changed.file_meta.TransferSyntaxUID == held.file_meta.TransferSyntaxUID
        assert changed.PixelData == held.PixelData
        (item,) = changed.OriginalAttributesSequence
        (values,) = item.ModifiedAttributesSequence
        assert {keyword: values[keyword].value for keyword in before} == before


def test_priors_of_the_same_modality_go_along(
    here: Here, receivers: Receivers, tmp_path: Path, peer_tool: Tool
) -> None:
    dest = receivers("DEST")
    here(
        "route", "add", "r", "--to", "DEST", "--calling", "NOW", "--priors", "2", "--same-modality"
    )
    mr = {"Modality": "MR", "SOPClassUID": MRImageStorage}
    patient = {"PatientID": "P7"}
    old = [
        image(f"{ROOT}.3.{year}.1.1", StudyDate=f"{year}0101", **patient)
        for year in (2019, 2020, 2021)
    ]
    others = [
        image(f"{ROOT}.3.2022.1.1", StudyDate="20220101", **patient, **mr),
        image(f"{ROOT}.3.2023.1.1", StudyDate="20230101", PatientID="P8"),
    ]
    now = [image(f"{ROOT}.3.2024.1.{number}", StudyDate="20240101", **patient) for number in (1, 2)]
    before = written(tmp_path / "old", [*old, *others])
    with working(tmp_path) as archive:
        send(peer_tool, archive.port, before.values(), source="ARCHIVE")
        until(here.all_over)
        assert here.jobs() == []
        files = written(tmp_path / "now", now)
        send(peer_tool, archive.port, files.values(), source="NOW")
        latest = [old[2].SOPInstanceUID, old[1].SOPInstanceUID]
        quiet(here, {dest: [*files, *latest]})
    assert dest.in_order()[:2] == list(files), "after the study itself"


def studies(folder: Path, number: int) -> dict[str, Path]:
    """Three studies of three instances each."""
    return written(
        folder,
        [
            image(f"{ROOT}.{number}.{study}.1.{one}", PatientID=f"S{study}")
            for study in range(3)
            for one in range(3)
        ],
    )


def held(here: Here, ae_title: str) -> list[dict[str, Any]]:
    """What the summary says of the queue to a destination, while it is held."""
    return [
        one
        for one in here.json("job", "list", "--summary")
        if one["queue"] == f"forward:{ae_title}" and one["held_until_utc"]
    ]


@pytest.mark.parametrize("level", ["instance", "study"])
def test_who_is_away_gets_everything_in_order_later_and_nobody_waits_for_it(
    here: Here,
    receivers: Receivers,
    tmp_path: Path,
    peer_tool: Tool,
    level: str,
) -> None:
    up, port = receivers("UP"), free_port()
    here.peer("DOWN", port)
    here("route", "add", "both", "--to", "DOWN", "--to", "UP", "--when", level, "--in-order")
    files = studies(tmp_path / "in", 4)
    with working(tmp_path) as archive:
        for end in (3, 6, 9):  # study by study: which becomes quiet first is not to be chance
            uids = list(files)[:end]
            send(peer_tool, archive.port, [files[one] for one in uids[-3:]])
            until(partial(has, up, uids))
        # Between two tries it is held, and while it is tried it is not: seen again and again.
        until(lambda: sum(one["jobs"] for one in held(here, "DOWN")) == len(here.jobs_to("DOWN")))
        until(lambda: ["no connection" in one["held_why"] for one in held(here, "DOWN")] == [True])
        until(lambda: {one["attempts"] for one in here.jobs_to("DOWN")} == {0})
        with writer(peer_tool, tmp_path / "DOWN", port) as down:
            quiet(here, {up: files, down: files})
            assert down.in_order() == list(files)
            assert down.files() == up.files() == _of(files)
        assert held(here, "DOWN") == []
        sent = [one["result"]["sent"] for one in here.jobs_to("DOWN")]
        # An instance that comes while its study's job is being tried waits in one of its own.
        assert sum(sent) == 9 if level == "instance" else sent == [3, 3, 3]


def test_a_route_or_peer_that_is_removed_leaves_dead_letters_that_say_so(
    here: Here, tmp_path: Path, peer_tool: Tool
) -> None:
    ports = {one: free_port() for one in ("NOROUTE", "NOPEER", "SWITCHED")}
    for title, port in ports.items():
        here.peer(title, port)
        here("route", "add", f"to-{title}", "--to", title)
    files = studies(tmp_path / "in", 8)
    with working(tmp_path) as archive:
        send(peer_tool, archive.port, files.values())
        until(lambda: len(here.jobs()) == 9 and all(held(here, one) for one in ports))
        waiting = {one["name"]: one["waiting"] for one in here.json("route", "list")}
        assert waiting == {f"to-{one}": 3 for one in ports}
        here("route", "remove", "to-NOROUTE")
        assert "NOPEER removed" in here("peer", "remove", "NOPEER")
        here("route", "disable", "to-SWITCHED")
        with writer(peer_tool, tmp_path / "SWITCHED", ports["SWITCHED"]) as asked_already:
            quiet(here, {asked_already: files})
        assert json.loads(here("stats", "--json"))["failed_jobs"] == 6
        dead = here.json("job", "list", "--state", "failed")
        assert sorted((one["queue"], one["last_error"]) for one in dead) == [
            *[("forward:NOPEER", "Permanent: no peer is named NOPEER")] * 3,
            *[("forward:NOROUTE", "Permanent: route to-NOROUTE was removed")] * 3,
        ]
        with writer(peer_tool, tmp_path / "NOPEER", ports["NOPEER"]) as back:
            here.peer("NOPEER", back.port)
            peerless = [str(one["id"]) for one in here.jobs_to("NOPEER")]
            here("job", "retry", *peerless)
            quiet(here, {back: files})


ROUTES = {
    "NAME": ("--match", "PatientName=dó*", "--match", "StudyDate=20240101-"),
    "FILE": ("--match", "KVP=120", "--unless", "RequestAttributesSequence.RequestedProcedureID=R2"),
    "CALL": ("--calling", "CT?", "--unless", "BodyPartExamined=HEAD"),
    "NEVER": ("--called", "OTHER"),
}


def various() -> Iterator[Dataset]:
    """Instances that differ in what the routes ask for."""
    for number, (name, kvp, part, procedure) in enumerate(
        [
            ("Doe^Jane", "120", "HEAD", "R1"),
            ("Roe^Jane", "120", "CHEST", "R2"),
            ("DOE^John", "80", "", ""),
            ("", "", "HEAD", "R2"),
        ]
    ):
        made = image(f"{ROOT}.7.{number}.1.1", PatientName=name, PatientID=f"V{number}")
        made.StudyDate = "20240101"
        if kvp:
            made.KVP = kvp
        if part:
            made.BodyPartExamined = part
        if procedure:
            item = Dataset()
            item.RequestedProcedureID = procedure
            made.RequestAttributesSequence = [item]
        yield made


def test_what_a_trial_says_of_imported_routes_is_what_happens(
    here: Here, receivers: Receivers, tmp_path: Path, peer_tool: Tool
) -> None:
    first = Here(tmp_path / "first")
    first("init")
    for title, conditions in ROUTES.items():
        first.peer(title, 104)
        first("route", "add", f"r-{title}", "--to", title, "--when", "instance", *conditions)
    exported = tmp_path / "routes.json"
    exported.write_text(first("route", "export"))
    assert "pacs peer add" in here("route", "import", str(exported), code=1)
    assert here.json("route", "list") == []
    there = {title: receivers(title) for title in ROUTES}
    here("route", "import", str(exported))
    assert json.loads(here("route", "export")) == json.loads(exported.read_text())

    files = written(tmp_path / "in", various())
    said: dict[str, set[str]] = {title: set() for title in ROUTES}
    with working(tmp_path) as archive:
        for number, (uid, file) in enumerate(files.items()):
            source = ("CT1", "MR1")[number % 2]
            for one in here.json("route", "test", str(file), "--calling", source):
                if one["fires"] == "yes":
                    said[one["route"].removeprefix("r-")].add(uid)
            send(peer_tool, archive.port, [file], source=source)
        uids = list(files)
        assert said == {
            "NAME": {uids[0], uids[2]},
            "FILE": {uids[0]},
            "CALL": {uids[2]},
            "NEVER": set(),
        }
        quiet(here, {there[title]: uids for title, uids in said.items()})

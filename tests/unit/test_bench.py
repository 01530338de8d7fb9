"""The benchmark computes, reads and judges rightly: its pure parts, and its smallest run against one peer."""

import os
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pydicom import dcmread

from bench import (
    codecs,
    compressing,
    dimse,
    extremes,
    forward,
    gate,
    machine,
    report,
    rows,
    sink,
    studies,
    targets,
)
from bench.clients import Wrong, check_same, ended, last_line, related_instances
from bench.measure import KIB, Watch, cpu_s, kib_of, status_bytes, ticks_of, tree
from bench.peers import OURS, PEERS
from bench.results import MIB, Results, Spread, Unit, turns
from bench.servers import LOOPBACK
from tests.archive import data_set_of
from tests.peers import find as find_tool

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture
def results() -> Results:
    """Three rounds after one to warm up, of one rate and one time."""
    made = Results()
    made.declare("rate", "A rate", Unit.INSTANCES_PER_S)
    made.declare("time", "A time", Unit.MILLISECONDS)
    for number, (mine, theirs) in enumerate([(1.0, 1000.0), (100, 50), (300, 100), (90, 90)]):
        made.begin(number)
        made.add("rate", OURS, mine)
        made.add("rate", "Orthanc", theirs)
        made.add("time", OURS, mine)
        made.add("time", "Orthanc", theirs)
    return made


# --- figures and ratios --------------------------------------------------------------


def test_a_summary_is_the_median_and_the_extremes() -> None:
    assert Spread.of([5, 1, 9, 2]) == Spread(median=3.5, least=1, most=9)


def test_the_warm_up_round_is_discarded(results: Results) -> None:
    assert results.figures("rate", OURS) == Spread(median=100, least=90, most=300)


def test_a_ratio_is_taken_round_by_round(results: Results) -> None:
    assert results.ratio(("rate", OURS), ("rate", "Orthanc")) == Spread(median=2, least=1, most=3)


def test_less_time_is_a_ratio_above_one(results: Results) -> None:
    ratio = results.ratio(("time", OURS), ("time", "Orthanc"))
    assert ratio == Spread(median=0.5, least=100 / 300, most=1)


def test_rounds_that_only_one_has_are_not_compared(results: Results) -> None:
    results.begin(4)
    results.add("rate", OURS, 1_000_000)
    assert results.ratio(("rate", OURS), ("rate", "Orthanc")) == Spread(median=2, least=1, most=3)
    assert results.ratio(("rate", OURS), ("rate", "qrscp")) is None


def test_a_peak_keeps_the_largest_of_its_round() -> None:
    made = Results()
    made.begin(1)
    for figure in (5.0, 9.0, 7.0):
        made.peak("memory", OURS, figure)
    made.begin(2)
    made.peak("memory", OURS, 3.0)
    assert made.figures("memory", OURS) == Spread(median=6, least=3, most=9)


@pytest.mark.parametrize(
    ("unit", "figure", "text"),
    [
        (Unit.INSTANCES_PER_S, 1234.5, "1234"),
        (Unit.MILLISECONDS, 2.7182, "2.72"),
        (Unit.BYTES, 56.44 * MIB, "56.4"),
        (Unit.PERCENT, 0.04, "0.04"),
    ],
)
def test_a_figure_is_written_with_digits_that_mean_something(
    unit: Unit, figure: float, text: str
) -> None:
    assert unit.text(figure) == text


# --- targets -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ratio", "at_least", "reach_for", "said"),
    [
        (2.0, 1.8, 3.0, "met"),
        (1.8, 1.8, 3.0, "met"),
        (1.79, 1.8, 3.0, "MISSED"),
        (3.0, 1.8, 3.0, "reached"),
        (0.7, None, 0.8, "not reached"),
        (0.8, None, 0.8, "reached"),
        (4.0, 4.0, None, "met"),
        (None, 4.0, 5.0, "not measured"),
    ],
)
def test_a_target_is_judged(
    ratio: float | None, at_least: float | None, reach_for: float | None, said: str
) -> None:
    assert targets.word(targets.meets(ratio, at_least), targets.meets(ratio, reach_for)) == said


@pytest.mark.parametrize(
    ("peak_mib", "said"), [(99, "reached"), (100, "met"), (149, "met"), (150, "MISSED")]
)
def test_a_bound_is_judged(peak_mib: int, said: str) -> None:
    made = Results()
    extremes.declare_multi_frame(made, 1 << 30)
    made.begin(1)
    made.add(extremes.MULTI_FRAME_MEMORY, OURS, peak_mib * MIB)
    (verdict,) = targets.verdicts(made)
    assert (verdict.measured, verdict.met) == (f"{peak_mib} MiB", said)


def test_everybody_is_first_once_and_nobody_is_left_out() -> None:
    orders = [turns("abc", number) for number in range(3)]
    assert [one[0] for one in orders] == ["a", "b", "c"]
    assert all(sorted(one) == ["a", "b", "c"] for one in orders)
    assert turns("abc", 4) == orders[1]


def test_what_is_retrieved_is_stored_before() -> None:
    assert [one.key for one in rows.chosen(["move-ct", "get-ct"])] == [
        "store-ct-1",
        "get-ct",
        "move-ct",
    ]
    assert [one.key for one in rows.chosen(["store-mr-1", "find"])] == ["store-mr-1"]
    assert rows.chosen(["find"]) == []


def test_every_target_is_about_a_row_and_a_peer_there_is() -> None:
    names = {one.name for one in PEERS}
    keys = {one.key for one in rows.ROWS} | {"find-id", "find-date", "find-name", forward.FORWARD}
    keys |= set(map(compressing.move_key, compressing.SYNTAXES)) | {gate.CONTRACT, gate.ASKED}
    assert {one.row for one in targets.TARGETS} <= keys
    assert {one.against for one in targets.TARGETS} <= names


def test_a_target_without_bounds_informs() -> None:
    made = Results()
    name = "JPEG-LS"
    compressing.declare(made)
    target = targets.Target(
        row=compressing.move_key(name), against=OURS, against_row=compressing.encode_key(name)
    )
    assert targets.judged(made, target).met == "not measured"
    made.begin(1)
    made.add(compressing.move_key(name), OURS, 3.0)
    made.add(compressing.encode_key(name), OURS, 6.0)
    found = targets.judged(made, target)
    assert (found.measured, found.met) == ("0.50×", "for information")


# --- what a server costs -------------------------------------------------------------


def test_processor_time_counts_collected_children_too() -> None:
    assert ticks_of("12 (a b) c) S 1 1 1 0 -1 0 9 9 9 9 1 2 30 40 20 0 1 0 5 0 0") == 73


def test_a_memory_line_that_is_absent_is_nothing() -> None:
    assert kib_of("Name:\tx\nVmHWM:\t   5120 kB\n", "VmHWM") == 5120
    assert kib_of("Name:\tx\n", "VmHWM") == 0
    assert status_bytes(2**22 + 1, "VmHWM") == 0


def test_a_watch_sees_what_children_use_after_they_ended() -> None:
    """A forking server's children are gone when the work is done."""
    child = "import time; x = bytearray(64 << 20); e = time.process_time() + 0.3\n"
    child += "while time.process_time() < e: pass"
    parent = "import subprocess, sys; sys.stdin.readline()\n"
    parent += f"subprocess.run([sys.executable, '-c', {child!r}]); print(flush=True)\n"
    parent += "sys.stdin.readline()"
    with subprocess.Popen(
        [sys.executable, "-c", parent], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        with Watch(process.pid) as watch:
            process.stdin.write(b"\n")
            process.stdin.flush()
            process.stdout.readline()
        assert list(tree(process.pid)) == [process.pid]
        process.stdin.write(b"\n")
        process.stdin.flush()
    assert watch.cost.cpu_s >= 0.29
    assert watch.cost.peak_process_bytes > 64 * MIB
    assert watch.cost.peak_bytes > watch.cost.peak_process_bytes


def test_our_own_process_has_memory_and_processor_time() -> None:
    assert status_bytes(os.getpid(), "VmHWM") > 1000 * KIB
    assert cpu_s(os.getpid()) > 0


# --- the small DIMSE client ----------------------------------------------------------


def test_a_command_set_comes_back_as_it_was() -> None:
    command = {dimse.STATUS: b"\x00\xff", dimse.MOVE_DESTINATION: b"SINK"}
    encoded = dimse.encode_command(command)
    assert struct.unpack_from("<HHII", encoded) == (0, 0, 4, len(encoded) - 12)
    decoded = dimse.decode_command(encoded)
    assert {key: decoded[key] for key in command} == command
    assert dimse.number(decoded, dimse.STATUS) == 0xFF00
    assert dimse.number(decoded, dimse.COMPLETED_SUB_OPERATIONS) == 0


def test_an_identifier_is_implicit_vr_and_its_count_can_be_read() -> None:
    answer = dimse.identifier(PatientID="A", NumberOfStudyRelatedInstances="200")
    assert struct.unpack_from("<HHI", answer)[:2] == (0x0008, 0x0005)
    assert related_instances(answer) == 200
    assert related_instances(dimse.identifier(NumberOfStudyRelatedInstances="")) == 0
    assert related_instances(dimse.identifier(PatientID="A")) == 0


@pytest.mark.parametrize(("result", "accepted"), [(0, True), (3, False), (4, False)])
def test_an_accepted_context_is_told_from_a_refused_one(result: int, accepted: bool) -> None:
    context = dimse.item(0x21, bytes([1, 0, result, 0]) + dimse.item(0x40, b"1.2.840.10008.1.2"))
    application = dimse.item(0x10, b"1.2.840.10008.3.1.1.1")
    assert dimse.accepted(bytes(68) + application + context) is accepted
    assert dimse.accepted(bytes(68) + application) is False


@pytest.fixture
def answering() -> Iterator[Callable[[bytes], int]]:
    """Give a server that accepts the association, answers one request as told, and hangs up."""
    with socket.create_server((LOOPBACK, 0)) as listening:
        threads: list[threading.Thread] = []

        def serve(answer: bytes) -> int:
            def talk() -> None:
                peer, _ = listening.accept()
                with peer:
                    peer.recv(65_536)
                    context = dimse.item(0x21, bytes(4))
                    peer.sendall(dimse.pdu(dimse.ASSOCIATE_AC, bytes(68) + context))
                    peer.recv(65_536)
                    peer.sendall(answer)

            threads.append(threading.Thread(target=talk))
            threads[-1].start()
            port: int = listening.getsockname()[1]
            return port

        yield serve
        for one in threads:
            one.join(10)


def response(status: int, *, data_set: bool = False, completed: int | None = None) -> bytes:
    """Make a response's command set, in two fragments."""
    kind = 1 if data_set else dimse.NO_DATA_SET
    command = {
        dimse.DATA_SET_TYPE: struct.pack("<H", kind),
        dimse.STATUS: struct.pack("<H", status),
    }
    if completed is not None:
        command[dimse.COMPLETED_SUB_OPERATIONS] = struct.pack("<H", completed)
    encoded = dimse.encode_command(command)
    return dimse.pdu(dimse.P_DATA, dimse.pdv(dimse.COMMAND, encoded[:9])) + dimse.pdu(
        dimse.P_DATA, dimse.pdv(dimse.COMMAND | dimse.LAST, encoded[9:])
    )


def match(content: bytes) -> bytes:
    return dimse.pdu(dimse.P_DATA, dimse.pdv(dimse.LAST, content))


def test_matches_are_counted_until_the_last_answer(answering: Callable[[bytes], int]) -> None:
    pending = response(0xFF00, data_set=True) + match(b"12345678")
    port = answering(pending + pending + response(0))
    client = dimse.Client(port, "ANY", dimse.STUDY_ROOT_FIND)
    assert client.find(b"") == 2
    client.close()


def test_a_failed_query_has_no_count(answering: Callable[[bytes], int]) -> None:
    client = dimse.Client(answering(response(0xA700)), "ANY", dimse.STUDY_ROOT_FIND)
    with pytest.raises(dimse.Refused, match="A700"):
        client.find(b"")
    client.close()


def test_a_move_gives_what_the_last_answer_counts(answering: Callable[[bytes], int]) -> None:
    port = answering(response(0xFF00, completed=1) + response(0, completed=7))
    client = dimse.Client(port, "ANY", dimse.STUDY_ROOT_MOVE)
    assert client.move(b"", "SINK") == 7
    client.close()


def test_a_peer_that_hangs_up_is_an_error(answering: Callable[[bytes], int]) -> None:
    client = dimse.Client(answering(b""), "ANY", dimse.STUDY_ROOT_FIND)
    with pytest.raises(dimse.Refused, match="closed"):
        client.find(b"")
    client.close()


# --- studies and their comparison ----------------------------------------------------


def test_a_study_has_one_uid_and_every_instance_its_own(tmp_path: Path) -> None:
    (study,) = studies.image_studies(tmp_path, modality="MR", studies=1, instances=6)
    read = [dcmread(one) for one in study.files]
    assert {one.StudyInstanceUID for one in read} == {study.study_instance_uid}
    assert {one.SeriesInstanceUID for one in read} == {study.series_instance_uid}
    assert len({one.SOPInstanceUID for one in read}) == 6
    assert all(one.file_meta.MediaStorageSOPInstanceUID == one.SOPInstanceUID for one in read)
    assert {(one.Rows, one.BitsAllocated, one.Modality) for one in read} == {(256, 16, "MR")}
    assert study.first(2).files == study.files[:2]


def test_a_multi_frame_object_is_as_large_as_it_says(tmp_path: Path) -> None:
    study = studies.multi_frame(tmp_path, 3 * studies.FRAME_BYTES)
    (image,) = map(dcmread, study.files)
    assert int(image.NumberOfFrames) == 3
    assert len(image.PixelData) == 3 * studies.FRAME_BYTES


def test_a_changed_or_missing_data_set_is_noticed(tmp_path: Path) -> None:
    (study,) = studies.image_studies(tmp_path / "sent", modality="MR", studies=1, instances=2)
    back = tmp_path / "back"
    back.mkdir()
    for one in study.files:
        image = dcmread(one)
        image.file_meta.SourceApplicationEntityTitle = "ELSEWHERE"  # not part of the Data Set
        image.save_as(back / one.name)
    check_same(study, back)
    changed = back / study.files[0].name
    changed.write_bytes(changed.read_bytes()[:-1] + b"\x7f")
    with pytest.raises(Wrong, match="1 of 2"):
        check_same(study, back)
    changed.unlink()
    with pytest.raises(Wrong, match="1 came back"):
        check_same(study, back)


# --- the machine and the page --------------------------------------------------------


def test_the_longest_mount_point_names_the_file_system() -> None:
    mounts = "/dev/a / ext4 rw 0 0\ntmpfs /var tmpfs rw 0 0\n/dev/b /var/tmp xfs rw 0 0"
    assert machine.file_system(Path("/var/tmp/x"), mounts) == "xfs"
    assert machine.file_system(Path("/var/lib"), mounts) == "tmpfs"
    assert machine.file_system(Path("/variety"), mounts) == "ext4"


def test_a_version_is_found_in_what_a_tool_says() -> None:
    assert machine.version_in("Orthanc 1.10.1\nCopyright (C) 2012-2016") == "1.10.1"
    assert machine.version_in("no idea") == "of unknown version"


def test_the_last_line_of_a_tool_is_its_reason() -> None:
    assert last_line(b"I: trying\nE: refused\n") == "E: refused"
    assert last_line(b"") == "it said nothing"


def test_a_status_is_told_from_another_end_of_storescu() -> None:
    assert ended(0xA9) == "was given status A9xx"
    assert ended(1) == "ended with 1"


def test_the_tables_hold_figures_ratios_targets_and_failures(results: Results) -> None:
    results.failed("time", "Orthanc", "3 matches instead of 4")
    peers = [one for one in PEERS if one.name in (OURS, "Orthanc")]
    text = report.markdown(results, peers, ["2 cores"])
    lines = [" ".join(one.split()) for one in text.splitlines()]
    assert "- 2 cores" in lines
    assert "| A rate | instances/s | 100 (90 to 300) | 90 (50 to 100) |" in lines
    assert "| A rate | 2.00 (1.00 to 3.00) |" in lines
    assert "others failed" in text
    assert "Orthanc, A time: failed 1 times. 3 matches instead of 4" in lines


def test_a_run_replaces_only_what_is_between_its_marks() -> None:
    page = f"before\n{report.BEGIN}\nold \\1\n{report.END}\nafter\n"
    kept = report.replaced(page, r"new \1")
    assert kept == f"before\n{report.BEGIN}\nnew \\1\n{report.END}\nafter\n"
    assert report.replaced(kept, r"new \1") == kept
    with pytest.raises(ValueError, match="once"):
        report.replaced("no marks", "new")
    both = f"{kept}{codecs.BEGIN}\n{report.END}\n"
    assert report.replaced(both, "x", codecs.BEGIN) == f"{kept}{codecs.BEGIN}\nx\n{report.END}\n"


def test_the_page_has_the_marks() -> None:
    page = (REPOSITORY / "docs" / "performance.md").read_text(encoding="utf-8")
    assert report.replaced(page, "new") != page
    assert report.replaced(page, "new", codecs.BEGIN) != page


def test_a_codecs_cost_leaves_the_start_and_the_warm_up_out(tmp_path: Path) -> None:
    made = codecs.Objects(one=tmp_path / "one", many=tmp_path / "many", folder=tmp_path)
    cost_s = {made.one: 0.5, made.many: 2.75}
    assert codecs.per_image(cost_s.__getitem__, made, 10) == 0.25
    assert codecs.ratio([99.0, 2.0, 4.0, 9.0], [1.0, 1.0, 1.0, 3.0]) == 3.0
    assert codecs.ms([99.0, 0.002, 0.004, 0.003]) == "3.0"


def test_codecs_are_measured_and_compress_the_ct_of_the_benchmark(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"{codecs.BEGIN}\n{report.END}\n")
    assert codecs.main(["--rounds", "1", "--frames", "2", "--markdown", str(page)]) == 0
    assert capsys.readouterr().out.strip() in page.read_text()
    ratios = page.read_text().partition("synthetic CT")[2].splitlines()[2:]
    by_name = {
        line.split("|")[1].strip(): float(line.split("|")[2]) for line in ratios if "|" in line
    }
    assert set(by_name) == set(codecs.NAMES.values())
    assert all(ratio >= 2.2 for name, ratio in by_name.items() if name != "RLE")


# --- compressing on the way ------------------------------------------------------------


def test_what_arrived_compressed_is_compared(tmp_path: Path) -> None:
    (study,) = studies.image_studies(tmp_path, modality="MR", studies=1, instances=3)
    arrived = [data_set_of(one) for one in study.files]
    taken = sink.Sink(port=0, transfer_syntax_uid="1.2.840.10008.1.2.1", taken=arrived)
    compressing.check(study, taken)
    whole = arrived[1]
    arrived[1] = whole[:-1] + bytes([whole[-1] ^ 1])
    with pytest.raises(Wrong, match="other samples"):
        compressing.check(study, taken)
    arrived[1] = arrived[0]
    with pytest.raises(Wrong, match="arrived twice"):
        compressing.check(study, taken)
    del arrived[1]
    with pytest.raises(Wrong, match="2 of 3"):
        compressing.check(study, taken)


@pytest.mark.slow
def test_a_study_is_compressed_for_every_destination(tmp_path: Path) -> None:
    if find_tool("storescu") is None:
        pytest.skip("dcmtk is missing")
    made = Results()
    compressing.declare(made)
    compressing.run(tmp_path, made, instances=4, rounds=1)
    assert made.failures == {}
    for name in compressing.SYNTAXES:
        for key in (compressing.move_key, compressing.alone_key, compressing.encode_key):
            found = made.figures(key(name), OURS)
            assert found is not None and found.least > 0


# --- the smallest run ----------------------------------------------------------------


@pytest.mark.slow
def test_a_small_run_compares_with_a_peer(tmp_path: Path) -> None:
    if find_tool("storescu") is None or find_tool("storescp") is None:
        pytest.skip("dcmtk is missing")
    started = time.monotonic()
    command = [sys.executable, "-m", "bench", "--quick", "--rounds", "1", "--folder", str(tmp_path)]
    done = subprocess.run(
        [*command, "--peers", "storescp +B", "--rows", "store-ct-stock"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert done.returncode == 0, f"{time.monotonic() - started:.0f} s: {done.stderr}{done.stdout}"
    lines = [one.split("|") for one in done.stdout.splitlines() if "stock client (Nagle" in one]
    figures, ratios, *_ = lines
    assert float(figures[3]) > 0 and float(figures[4]) > 0
    assert float(ratios[2]) > 0
    assert list(tmp_path.iterdir()) == []

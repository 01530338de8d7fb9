"""Work shared out: parts of a volume, sources one by one, and the same bytes when it is done again."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from processing.operations.operation import Kind
from processing.operations.registry import OPERATIONS
from tests.phantoms import ct_series, saved
from tests.unit.test_derived import asked, made

VOLUMES = {
    "slab": {"plane": "stack", "thickness_mm": 6, "step_mm": 2, "method": "mean"},
    "rotating-mip": {"images": 5, "spacing_mm": 4},
    "mpr": {"plane": "coronal", "step_mm": 7},
}


@pytest.fixture(scope="module")
def slices(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return saved(ct_series(count=12, rows=40, columns=48), tmp_path_factory.mktemp("ct"))


def results(
    operation: str,
    files: Sequence[Path],
    out: Path,
    *,
    share: tuple[int, int] = (0, 1),
    root: str = "piece",
) -> dict[str, bytes]:
    """The Data Sets of the results by their SOP Instance UIDs."""
    settings = VOLUMES.get(operation, {})
    answer = asked(operation, files, out, share=share, uid_root=root, **settings)
    assert "refused" not in answer, answer
    found = {uid: (out / name).read_bytes() for name, _, uid in answer["made"]}
    assert len(found) == len(answer["made"])
    return found


def test_all_that_can_be_divided_is_tested() -> None:
    assert {one.name for one in OPERATIONS.values() if one.divisible} == set(VOLUMES)
    assert all(OPERATIONS[one].kind is Kind.VOLUME for one in VOLUMES)


@pytest.mark.parametrize("operation", VOLUMES)
@pytest.mark.parametrize("parts", [3, 11])
def test_the_parts_of_a_volume_are_together_the_whole_to_the_byte(
    operation: str, parts: int, slices: list[Path], tmp_path: Path
) -> None:
    whole = results(operation, slices, tmp_path / "whole")
    shares = [
        results(operation, slices, tmp_path / f"{part}", share=(part, parts))
        for part in range(parts)
    ]
    assert sum(map(len, shares)) == len(whole) > 3
    assert {uid: one for share in shares for uid, one in share.items()} == whole
    if parts == 3:
        assert max(map(len, shares)) < len(whole) / 2


def test_a_part_of_a_stack_reads_only_the_slices_it_needs(
    slices: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from processing.datasets.images import Source

    read = []
    samples = Source.samples

    def noted(source: Source, frame: int) -> object:
        read.append(source)
        return samples(source, frame)

    monkeypatch.setattr(Source, "samples", noted)
    results("slab", slices, tmp_path, share=(0, 4))
    assert 0 < len(set(map(id, read))) < len(slices)


def test_images_have_the_same_results_however_they_are_shared_out(
    slices: list[Path], tmp_path: Path
) -> None:
    whole = results("gaussian", slices, tmp_path / "whole")
    assert len(whole) == len(slices)
    one_by_one: dict[str, bytes] = {}
    for number, one in enumerate(slices):
        one_by_one |= results("gaussian", [one], tmp_path / f"{number}")
    assert one_by_one == whole


def test_done_again_it_is_the_same_and_from_another_root_it_is_not(
    slices: list[Path], tmp_path: Path
) -> None:
    first = results("mip", slices, tmp_path / "first")
    assert results("mip", slices, tmp_path / "again") == first
    other = results("mip", slices, tmp_path / "other", root="another")
    assert other.keys().isdisjoint(first)
    assert all(uid.startswith("2.25.") and len(uid) <= 64 for uid in first | other)
    free = [results("mip", slices, tmp_path / f"free-{n}", root="") for n in range(2)]
    assert free[0].keys().isdisjoint(free[1])


def test_all_results_of_a_volume_have_one_series_description_and_number(
    slices: list[Path], tmp_path: Path
) -> None:
    found = made("slab", slices, tmp_path, thickness_mm=4, step_mm=2)
    assert {(one.SeriesDescription, one.SeriesNumber) for one in found} == {("slab Thin", 9003)}
    assert [one.InstanceNumber for one in found] == list(range(1, len(found) + 1))


def test_two_operations_never_share_a_uid(slices: list[Path], tmp_path: Path) -> None:
    one = asked("gaussian", slices[:1], tmp_path / "one", uid_root="piece", sigma=1)
    other = asked("gaussian", slices[:1], tmp_path / "other", uid_root="piece", sigma=2)
    assert one["made"][0][2] != other["made"][0][2]

"""The benchmark of processing: it compares like with like, and counts the worker's time."""

from pathlib import Path

from bench.processing import Cost, Figures, projection, projection_table, series


def test_a_projection_is_timed_in_turns_and_compared_with_the_reference(tmp_path: Path) -> None:
    figures = projection(series(tmp_path / "series", 3), tmp_path, 1)
    assert len(figures.ours) == len(figures.reference) == 1
    assert all(one.cpu_s >= 0 and one.wall_s > 0 for one in (*figures.ours, *figures.reference))


def test_the_ratio_is_that_of_the_same_round() -> None:
    figures = Figures(
        ours=[Cost(cpu_s=one, wall_s=1) for one in (1, 9, 3)],
        reference=[Cost(cpu_s=one, wall_s=2) for one in (2, 3, 3)],
    )
    assert (figures.ratio("cpu_s"), figures.ratio("wall_s")) == (1, 0.5)
    asked = Figures(ours=[Cost(cpu_s=0, wall_s=3)], reference=[Cost(cpu_s=0, wall_s=2)])
    rows = projection_table(figures, asked, 4)
    assert rows[2] == "| processor time | 3000 | 3000 | 1.00 |"
    assert rows[4].endswith("| 3000 | 2000 | 1.50 |")

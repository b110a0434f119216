"""The simulation of a study on a cluster."""

from __future__ import annotations

from pathlib import Path

import pytest

from sambench.config import read_registries, read_study, read_study_file
from sambench.schedule import ALL, START, Task, read_seconds, report, simulate, tasks


def test_equal_jobs_fill_the_nodes() -> None:
    work = [Task(f"{n}", "segany", 100.0) for n in range(8)]
    one = simulate(work, 1, overhead=5, polling=1)
    four = simulate(work, 4, overhead=5, polling=1)
    # Eight jobs of 105 s: one after the other, and two a node; the end is seen at the next look.
    assert 0 <= one.wall - START - 840 <= 12
    assert 0 <= four.wall - START - 210 <= 12
    assert four.work == 800 and four.efficiency == pytest.approx(800 / (4 * four.wall))
    assert one.overhead_share == pytest.approx(0.05)


def test_the_longest_job_starts_first() -> None:
    work = [Task("a", "segany", 10.0), Task("b", "segany", 10.0), Task("long", "segany", 20.0)]
    done = simulate(work, 2, overhead=0, polling=0.1)
    assert done.wall - START == pytest.approx(20, abs=11)
    assert done.wall < START + 10 + 20, "started last, it would end after 30 s"


def test_what_waits_starts_when_snakemake_has_looked() -> None:
    work = [Task("first", "prompts", 1.0), Task("second", "segany", 1.0, after=("first",))]
    assert simulate(work, 1, overhead=0, polling=20).wall == pytest.approx(START + 20 + 20)


def test_looks_become_rarer_while_nothing_ends() -> None:
    # Looks 20, 20+30, 20+30+40 s after the start.
    assert simulate([Task("a", "segany", 60.0)], 1, overhead=0, polling=20).wall == pytest.approx(START + 90)


def test_a_job_with_a_clock_has_its_node_to_itself() -> None:
    work = [Task("clock", "latency", 50.0, ALL), *(Task(f"{n}", "segany", 10.0) for n in range(4))]
    shared = simulate(work, 1, slots=4, overhead=0, polling=0.1)
    assert shared.wall - START >= 60, "four beside one another, then the clock"
    assert shared.work == 4 * 50 + 4 * 10


def test_local_rules_take_no_node() -> None:
    work = [Task("head", "scenes", 5.0, 0), Task("a", "index_dataset", 10.0, after=("head",))]
    done = simulate(work, 1, overhead=0, polling=1)
    assert done.jobs == 1 and done.work == 10


def test_jobs_that_wait_for_ever_are_named() -> None:
    with pytest.raises(ValueError, match="wait for ever: b"):
        simulate([Task("a", "x", 1.0), Task("b", "x", 1.0, after=("c",))], 1)


def test_the_graph_is_that_of_the_rules_and_durations_are_measured_where_they_can_be(tmp_path: Path) -> None:
    config = read_registries()
    study = read_study(config | {"shards": 2})
    name = "segany/scenes/grabcut/eager/ground_truth/1-of-2"
    file = tmp_path / "benchmarks" / f"{name}.tsv"
    file.parent.mkdir(parents=True)
    file.write_text("s\th:m:s\tmax_rss\n41.5\t0:00:41\t500.1\n")
    work = {task.name: task for task in tasks(study, tmp_path)}
    assert work[name].seconds == 41.5 and work[name].measured
    assert not work["segany/scenes/grabcut/eager/ground_truth/0-of-2"].measured
    # What a dry run of the embedded default shows: 3 variants x 2 shards, and the rest once.
    counts: dict[str, int] = {}
    for task in work.values():
        counts[task.stage] = counts.get(task.stage, 0) + 1
    assert counts == {
        "scenes": 1, "index_dataset": 1, "prompts": 1, "segany": 6, "efficiency": 3, "tables": 1, "results": 1,
    }  # fmt: skip
    assert work["tables"].after == tuple(task for task in work if task.startswith("segany/"))


@pytest.mark.parametrize("text", ["", "s\n", "s\tmax\nnan?\t1\n"])
def test_a_broken_benchmark_file_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.tsv").write_text(text)
    assert read_seconds(tmp_path / "a.tsv") is None


def test_the_survey_keeps_eight_nodes_busy(root: Path) -> None:
    work = tasks(read_study(read_study_file(root / "config" / "survey.yaml")))
    eight = simulate(work, 8)
    assert eight.efficiency >= 0.9
    assert eight.overhead_share < 0.05
    assert "average_precision" in report(work, [8], 1, 5.0)

"""The simulation of a study on a cluster."""

from __future__ import annotations

from pathlib import Path

import pytest

from sambench import graph
from sambench.config import Study, read_study, read_study_file
from sambench.errors import InputError
from sambench.graph import PlannedJob, read_jobs
from sambench.resources import CACHED_SECONDS, COMPILING_SECONDS
from sambench.results.table import selected_tables
from sambench.schedule import ALL, START, Task, as_submitted, by_stage, gpu_hours, read_seconds, report, simulate, tasks


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
    work = [Task("head", "scenes", 5.0, 0), Task("a", "index", 10.0, after=("head",))]
    done = simulate(work, 1, overhead=0, polling=1)
    assert done.jobs == 1 and done.work == 10


def test_the_report_lists_stages_and_what_does_not_end_within_a_day() -> None:
    work = [
        Task("clock", "latency", 90_000.0, ALL),
        Task("a", "segany", 3600.0, measured=True),
        Task("end", "all", 0.0, 0),
    ]
    lines = report(work, [1, 2], 1, 36.0).splitlines()
    assert [line.split() for line in lines[2:4]] == [
        ["latency", "1", "25.0", "90000", "0.0", "0"],
        ["segany", "1", "1.0", "3600", "1.0", "100"],
    ]
    assert [line.split()[0] for line in lines[7:9]] == ["1", "2"]
    assert lines[-2] == "GPU hours: 0.0 computed, 0.0 billed on nodes of one GPU"
    assert lines[-1] == "longest job: clock, 25.0 h; 1 jobs would not end within a day: split or drop them"


def test_a_job_that_runs_alone_is_billed_for_its_node() -> None:
    work = [Task("clock", "latency", 3600.0, ALL, gpu=True), Task("a", "segany", 7200.0, gpu=True), Task("b", "x", 9e9)]
    assert gpu_hours(work, 8) == (3.0, 10.0) and gpu_hours(work, 1) == (3.0, 3.0)


def test_jobs_that_wait_for_ever_are_named() -> None:
    with pytest.raises(ValueError, match="wait for ever: b"):
        simulate([Task("a", "x", 1.0), Task("b", "x", 1.0, after=("c",))], 1)


@pytest.fixture(scope="module")
def planned(root: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Study, list[PlannedJob]]:
    """A tiny study and its jobs, planned in a folder of its own."""
    folder = tmp_path_factory.mktemp("run")
    for name in ("workflow", "config"):  # some inputs of the rules
        (folder / name).symlink_to(root / name)
    file = folder / "study.yaml"
    file.write_text(
        """
        results: out
        shards: 2
        study: {variants: [box_fill], prompt_groups: [ground_truth], samplers: [grid_16], measures: [latency]}
        """
    )
    before = set(folder.iterdir())
    jobs = read_jobs(file, folder)
    assert {path.name for path in set(folder.iterdir()) - before} == {".snakemake"}
    assert not any((folder / ".snakemake" / name).exists() for name in ("log", "locks/0.input.lock"))
    return read_study(read_study_file(file)), jobs


def test_the_graph_is_that_of_the_rules(planned: tuple[Study, list[PlannedJob]], tmp_path: Path) -> None:
    study, jobs = planned
    work = {task.name: task for task in tasks(study, jobs, tmp_path)}
    on_cluster = {name: task for name, task in work.items() if task.width}
    one = "scenes/box_fill/eager"
    segany = {f"segany/{one}/ground_truth/{shard}-of-2" for shard in (0, 1)}
    clocks = {f"latency/{one}", f"segevery/{one}/grid_16/time"}
    quality = f"segevery/{one}/grid_16/quality"
    tables = {f"tables/{study.name}/{table.name}" for table in selected_tables(study) if table.large}
    parts = {f"parts/{one}/ground_truth"}
    index, prompts = (next(name for name in on_cluster if name.startswith(stage)) for stage in ("index", "prompts"))
    pick, masks = f"gallery/{study.name}/scenes", f"gallery/{study.name}/{one}"
    assert set(on_cluster) == {index, prompts, *segany, *clocks, quality, *parts, *tables, pick, masks}
    assert {name for name, task in on_cluster.items() if task.width == ALL} == clocks

    def needs(name: str) -> set[str]:
        return {other for other in work[name].after if work[other].width}

    assert needs(prompts) == needs(quality) == {index}
    assert all(needs(clock) == {index} for clock in clocks)
    assert all(needs(shard) == {index, prompts} for shard in segany)
    assert all(needs(part) == {index, prompts, *segany} for part in parts)
    assert tables and all(needs(table) >= segany for table in tables)
    assert needs(pick) == {index, prompts, *segany} and needs(masks) == {index, pick}
    # Generated scenes come from a local rule; at the end local rules wait for all that was measured.
    (generator,) = work[index].after
    assert work[generator].width == 0 and generator.startswith("out/datasets/scenes/")
    ancestors, queue = set(), ["all"]
    while queue:
        new = set(work[queue.pop()].after) - ancestors
        ancestors |= new
        queue += new
    assert ancestors == set(work) - {"all"}
    assert simulate(list(work.values()), 2).jobs == len(on_cluster)


def test_the_clocks_of_a_variant_are_one_job(planned: tuple[Study, list[PlannedJob]], tmp_path: Path) -> None:
    work = tasks(*planned, tmp_path)
    one = "scenes/box_fill/eager"
    clocks = [task for task in work if task.name in (f"latency/{one}", f"segevery/{one}/grid_16/time")]
    together = as_submitted(work, longest=1440)
    assert len(together) == len(work) - 1
    (joined,) = [task for task in together if task.stage == "clocks"]
    assert joined.seconds == sum(task.seconds for task in clocks) and joined.width == ALL and joined.starts == 2
    assert simulate(together, 2).jobs == simulate(work, 2).jobs, "Snakemake starts as often"
    assert {name for task in together for name in task.after} <= {task.name for task in together}
    # A site's limit keeps them apart.
    assert as_submitted(work, longest=30) == work


def test_in_a_bundle_a_network_is_compiled_once(tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text("study: {variants: [sam_vit_h], runtimes: [fast]}\nresults: out\n")
    study = read_study(read_study_file(tmp_path / "study.yaml"))
    where = {"dataset": "scenes", "variant": "sam_vit_h", "runtime": "fast"}

    def clock(measure: str, bundle: str) -> PlannedJob:
        wanted = {"slurm_extra": "--exclusive", "bundle": bundle}
        return PlannedJob("measure", where, [], [measure], f"out/benchmarks/{measure}/scenes/sam_vit_h.tsv", wanted)

    def seconds(bundle: str) -> float:
        return sum(task.seconds for task in tasks(study, [clock("latency", bundle), clock("throughput", bundle)]))

    assert seconds("") - seconds("scenes/sam_vit_h/gpu") == COMPILING_SECONDS - CACHED_SECONDS


def test_durations_are_measured_where_they_can_be(planned: tuple[Study, list[PlannedJob]], tmp_path: Path) -> None:
    name = "segany/scenes/box_fill/eager/ground_truth/1-of-2"
    file = tmp_path / "benchmarks" / f"{name}.tsv"
    file.parent.mkdir(parents=True)
    file.write_text("s\th:m:s\tmax_rss\n41.5\t0:00:41\t500.1\n")
    work = {task.name: task for task in tasks(*planned, tmp_path)}
    assert work[name].seconds == 41.5 and work[name].measured
    other = work["segany/scenes/box_fill/eager/ground_truth/0-of-2"]
    # 30 s of loading, and a few milliseconds for each prompt of 12 images.
    assert not other.measured and 30 < other.seconds < 40
    assert by_stage(work.values())["segany"] == (2, 41.5 + other.seconds, 41.5 / (41.5 + other.seconds), 2)


def test_a_study_that_cannot_be_planned_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(graph, "CONFIG_FOLDER", tmp_path / "config")
    with pytest.raises(InputError, match=r"Snakefile: expected the rules.*found none; install sambench"):
        read_jobs(tmp_path / "study.yaml")


@pytest.mark.parametrize("text", ["", "s\n", "s\tmax\nnan?\t1\n"])
def test_a_broken_benchmark_file_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.tsv").write_text(text)
    assert read_seconds(tmp_path / "a.tsv") is None

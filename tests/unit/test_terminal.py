"""What a study says on the terminal: a line per finished job, the time left, an interruption, and nothing else."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
from snakemake_interface_logger_plugins.common import LogEvent

from sambench import terminal
from sambench.config import read_registries, read_study
from sambench.terminal import Expected, Progress, finding
from snakemake_logger_plugin_terminal import INTERRUPTED, LogHandler


def handler(**changes: object) -> LogHandler:
    facts: dict[str, Any] = {"nocolor": True, "stdout": True, "quiet": None, "debug_dag": False, "verbose": False}
    facts |= {"dryrun": False, "printshellcmds": False, "show_failed_logs": False}
    return LogHandler(SimpleNamespace(**{**facts, **changes}), None)  # type: ignore[arg-type]


def record(message: str = "", level: int = logging.INFO, **extra: object) -> logging.LogRecord:
    made = logging.LogRecord("snakemake", level, "", 0, message, None, None)
    vars(made).update(extra)
    return made


def begin(number: int, rule: str, outputs: list[str], **wildcards: str) -> logging.LogRecord:
    facts = {"jobid": number, "rule_name": rule, "output": outputs, "wildcards": wildcards}
    return record(f"rule {rule}", event=LogEvent.JOB_INFO, **facts)


@pytest.fixture(autouse=True)
def progress(monkeypatch: pytest.MonkeyPatch) -> Progress:
    made = Progress()
    monkeypatch.setattr(terminal, "PROGRESS", made)
    return made


def results(folder: Path, ious: list[float | None], status: str = "ok") -> Path:
    path = folder / "segany" / "d" / "0-of-1.parquet"
    path.parent.mkdir(parents=True)
    rows = {"prompt": ["box", "box", "random_1"], "iou": pd.array(ious, dtype="Float64"), "status": [status] * 3}
    pd.DataFrame(rows).to_parquet(path)
    return path


def test_a_finished_job_is_one_line_with_what_it_found(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], progress: Progress
) -> None:
    file = results(tmp_path, [0.5, 0.75, 0.1])
    progress.expected = {1: Expected("segany_shard", "mobilesam", 5.0), 2: Expected("table", "", 5.0)}
    shown = handler()
    shown.emit(record("host: here"))
    shown.emit(record("Building DAG of jobs..."))
    coordinates = {"dataset": "coco", "variant": "mobilesam", "shard": "0-of-1"}
    shown.emit(begin(1, "segany_shard", [str(file)], **coordinates))
    shown.emit(record("1 of 2 steps", event=LogEvent.PROGRESS, done=1, total=2))
    shown.emit(record("Finished jobid: 1", event=LogEvent.JOB_FINISHED, job_id=1))
    (line,) = capsys.readouterr().out.splitlines()
    assert "1/2  segany coco mobilesam: mIoU 62.5 (box), 0 s; 0:00:0" in line and line.endswith(" left")


def test_rows_without_a_number_say_why(tmp_path: Path) -> None:
    file = results(tmp_path, [None, None, None], "no weights")
    assert finding("segany_shard", {"variant": "sam"}, [str(file)], 2.4) == "segany sam: no weights, 2 s"
    note = tmp_path / "note.txt"
    note.write_text("123.4\nweights/a.pt: here\nweights/b.pt: missing\n")
    assert finding("retrieve_files", {"name": "sam"}, [str(note)], 1.0) == "retrieve sam: no weights/b.pt, 1 s"
    job = {"measure": "efficiency", "variant": "sam"}
    assert finding("measure_efficiency", job, ["gone"], 1.0) == "efficiency sam: 1 s"
    assert finding("figure", {"figure": "latency"}, ["gone.svg"], 7.0) == "figure latency: 7 s"
    assert finding("segany_shard", {"shard": "1-of-4"}, ["segany/gone"], 7.0) == "segany 1-of-4: 7 s"


def test_an_interruption_is_one_line_and_the_last(capsys: pytest.CaptureFixture[str]) -> None:
    shown = handler()
    shown.emit(record("Terminating processes on user request, this might take some time."))
    shown.emit(record("Error in rule segany_shard", logging.ERROR, event=LogEvent.JOB_ERROR))
    shown.emit(record("Complete log(s): x"))
    assert capsys.readouterr().out == f"{INTERRUPTED}\n"


def test_warnings_and_errors_stay_and_quiet_is_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    shown = handler()
    shown.emit(record("something is wrong", logging.ERROR))
    shown.emit(record("Nothing to be done (all requested files are present and up to date)."))
    assert capsys.readouterr().out.splitlines()[0] == "something is wrong"
    shown = handler(quiet={"all"})
    shown.emit(begin(1, "figure", ["a.svg"]))
    shown.emit(record("Finished jobid: 1", event=LogEvent.JOB_FINISHED, job_id=1))
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("option", ["dryrun", "verbose"])
def test_dry_and_verbose_runs_speak_as_snakemake_does(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    shown = handler(**{option: True})
    shown.emit(record("Building DAG of jobs..."))
    assert "Building DAG of jobs..." in capsys.readouterr().out


def run(expected: dict[int, Expected], real: dict[int, float], at_once: int = 1) -> list[tuple[float, float, float]]:
    """A run of jobs in order, `at_once` of them at a time -> (time, what was said to be left, what was left)."""
    progress = Progress(dict(expected))
    clocks, said, ends = [0.0] * at_once, [], []
    for number, seconds in real.items():
        slot = clocks.index(min(clocks))
        ends.append((clocks[slot], clocks[slot] + seconds, number))
        clocks[slot] += seconds
    total = max(clocks)
    events = sorted([(b, 0, n) for b, _, n in ends] + [(e, -1, n) for _, e, n in ends])
    for now, kind, number in events:
        if kind == 0:
            progress.begin(number, now)
        else:
            progress.finish(number, now)
            said.append((now, progress.left(now), total - now))
    return said


@pytest.mark.parametrize("at_once", [1, 2])
def test_the_time_left_is_right_within_a_third_from_the_middle_on(at_once: int) -> None:
    # Two variants, twelve shards each, in turn: estimates that are five times too long and four times too short.
    expected = {n: Expected("segany_shard", "a" if n % 2 else "b", 100.0 if n % 2 else 10.0) for n in range(24)}
    real = {n: (20.0 if n % 2 else 40.0) * (1 + 0.2 * (-1) ** (n // 2)) for n in range(24)}
    expected |= {n: Expected("table", "", 4.0) for n in range(24, 30)}
    real |= dict.fromkeys(range(24, 30), 6.0)
    said = run(expected, real, at_once)
    end = said[-1][0]
    later = [(found, true) for now, found, true in said if 0.5 * end <= now < 0.95 * end]
    assert len(later) > 8
    for found, true in later:
        assert found == pytest.approx(true, rel=0.3, abs=10.0)
    assert said[-1][1] == 0.0


def test_the_plan_knows_what_jobs_cost(progress: Progress) -> None:
    config = read_registries()
    study = read_study(config)

    def job(rule: str, output: list[str], benchmark: str | None = None, **wildcards: str) -> SimpleNamespace:
        return SimpleNamespace(
            rule=SimpleNamespace(name=rule), output=output, benchmark=benchmark, wildcards_dict=wildcards
        )

    where = {"dataset": "scenes", "runtime": "eager", "group": "ground_truth", "shard": "0-of-1"}
    jobs = [
        job("segany_shard", ["a"], "results/benchmarks/segany/x.tsv", variant="mobilesam", **where),
        job("segany_shard", ["b"], "results/benchmarks/segany/y.tsv", variant="box_fill", **where),
        job("table", ["c"], "results/benchmarks/tables/z.tsv"),
        job("all", []),
    ]
    terminal.plan(study, jobs, jobs.index)
    assert set(progress.expected) == {0, 1, 2}, "a target is no work"
    assert progress.expected[0].seconds > progress.expected[1].seconds > progress.expected[2].seconds
    assert progress.expected[0].variant == "mobilesam"

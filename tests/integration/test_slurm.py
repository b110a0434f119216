"""A study on a real SLURM: two nodes on this machine, the same tables as without, and every fault that clusters have.

`make test-slurm` runs it: it needs root, and installs Debian's packages of SLURM where they are absent. Each node has
one CPU and claims more memory than there is. docs/cluster-cost.md has the outcome and the times.
"""

from __future__ import annotations

import collections
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple, TypeVar

import pyarrow.parquet as pq
import pytest
import yaml

from sambench.config import read_study, read_study_file
from sambench.graph import read_jobs
from sambench.schedule import Task, simulate, tasks

pytestmark = [pytest.mark.slurm, pytest.mark.slow, pytest.mark.xdist_group("slurm")]

T = TypeVar("T")
PARTS = ("Snakefile", "rules", "workflow", "config", "profiles", "envs", "src")
SCRIPTS = Path(__file__).parent / "slurm"
POLLING = 5
QUIET_SECONDS = 1.5  # of `snakemake --version`
SITE = {
    "default-resources": {"slurm_account": "ci", "slurm_partition": "main"},
    "cores": 1,
    "max-threads": 1,
    "jobs": 50,
    "latency-wait": 15,
    "slurm-init-seconds-before-status-checks": POLLING,
}
STUDY = {
    "shards": 3,
    "prompt_groups": {"boxes": ["box", "tight_box", "noisy_box"]},
    "study": {"variants": ["box_fill", "grabcut"], "prompt_groups": ["boxes"], "measures": []},
    # A clock that runs 100 s is a job that is over one minute, for sure.
    "latency": {"images": 2, "boxes": 1, "warmup": 1, "min_seconds": 100},
}


class Record(NamedTuple):
    """A job as the accounting has it: its rule and wildcards in `comment`."""

    id: str
    comment: str
    state: str
    node: str
    start: str
    seconds: int


class Cluster:
    """Two nodes in a folder, by the scripts beside this file."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.call("slurm-up.sh")
        self.environment = {"SLURM_CONF": f"{folder}/etc/slurm.conf", "MUNGE_SOCKET": f"{folder}/run/munge.sock"}

    def call(self, script: str, *arguments: str) -> None:
        settings = {**os.environ, "SLURM_UP_NODES": "2", "SLURM_UP_CPUS": "1"}
        command = [SCRIPTS / script, self.folder, *arguments]
        done = subprocess.run(command, env=settings, capture_output=True, text=True, timeout=300 * slowness())
        assert done.returncode == 0, done.stdout + done.stderr

    def ask(self, *command: str) -> list[list[str]]:
        """The rows of a command of SLURM's, split at the bars."""
        done = subprocess.run(
            command, env={**os.environ, **self.environment}, capture_output=True, text=True, timeout=60
        )
        return [line.split("|") for line in done.stdout.splitlines()]

    def running(self, rule: str) -> list[tuple[str, str]]:
        """(id, node) of the running jobs of a rule."""
        rows = self.ask("squeue", "--noheader", "--states=RUNNING", "--format=%i|%k|%N")
        return [(row[0], row[2]) for row in rows if row[1].startswith(f"rule_{rule}")]

    def records(self) -> list[Record]:
        columns = "JobID,Comment,State,NodeList,Start,ElapsedRaw"
        rows = self.ask("sacct", "-nPDX", "-S", "now-1days", "-o", columns)
        return [Record(row[0], row[1], row[2].split()[0], row[3], row[4], int(row[5])) for row in rows]

    def node_states(self) -> dict[str, str]:
        return {row[0]: row[1] for row in self.ask("sinfo", "--noheader", "-N", "-o", "%N|%T")}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    if os.getuid() != 0 or not (shutil.which("slurmctld") or shutil.which("apt-get")):
        pytest.skip("a cluster on this machine needs root, and SLURM or Debian's packages of it")
    folder = Path(tempfile.mkdtemp(prefix="slurm-", dir="/tmp"))  # SLURM's sockets allow 70 characters
    try:
        yield Cluster(folder)
    finally:
        subprocess.run([SCRIPTS / "slurm-down.sh", folder, "--purge"], check=False)
        shutil.rmtree(folder, ignore_errors=True)


def copy_project(root: Path, folder: Path) -> Path:
    project = folder / "project"
    project.mkdir(parents=True)
    for part in PARTS:
        if (root / part).is_dir():
            shutil.copytree(root / part, project / part, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(root / part, project / part)
    (project / "study.yaml").write_text(yaml.safe_dump(STUDY))
    (project / "site.yaml").write_text(yaml.safe_dump(SITE))
    return project


def environment(project: Path, cluster: Cluster | None = None) -> dict[str, str]:
    own = {"PYTHONPATH": str(project / "src"), "XDG_CACHE_HOME": str(project / ".cache"), "OMP_NUM_THREADS": "1"}
    return {**os.environ, **own, **(cluster.environment if cluster else {})}


def command(*arguments: str) -> list[str]:
    return [
        sys.executable,
        "-m",
        "snakemake",
        *arguments,
        "--profile",
        "profiles/slurm",
        "--workflow-profile",
        "site.yaml",
    ]


@cache
def slowness() -> float:
    """How many times longer than on a quiet machine things take here: all limits are multiplied by it."""
    start = time.monotonic()
    subprocess.run([sys.executable, "-m", "snakemake", "--version"], check=True, capture_output=True)
    return max(1.0, (time.monotonic() - start) / QUIET_SECONDS)


def run(project: Path, words: Sequence[str], cluster: Cluster | None = None, timeout: int = 900) -> str:
    # Snakemake's own children see SIGINT too, and end their jobs.
    limited = ["timeout", "-s", "INT", "-k", "30", str(round(timeout * slowness())), *words]
    done = subprocess.run(limited, cwd=project, env=environment(project, cluster), capture_output=True, text=True)
    output = done.stdout + done.stderr
    assert done.returncode == 0, output[-6000:]
    return output


def wait_for(what: str, look: Callable[[], T | None], seconds: float, alive: subprocess.Popen[str] | None = None) -> T:
    """The first answer that is something; fails after the time, or when the process ends first."""
    seconds *= slowness()
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        answer = look()
        if answer:
            return answer
        assert alive is None or alive.poll() is None, f"Snakemake ended before: {what}"
        time.sleep(0.5)
    raise AssertionError(f"waited {seconds} s for: {what}")


def of_tables(file: Path, project: Path) -> list[Task]:
    """The jobs that the target `tables` of a study needs."""
    study = read_study(read_study_file(file))
    work = {task.name: task for task in tasks(study, read_jobs(file, project), project / "results")}
    needed, queue = set(), [name for name in work if "tables/" in name]
    while queue:
        name = queue.pop()
        if name not in needed:
            needed.add(name)
            queue += work[name].after
    return [task for name, task in work.items() if name in needed]


def assert_same_tables(ours: Path, reference: Path) -> None:
    for file in sorted(reference.glob("tables/accuracy_boxes.*")) + sorted(reference.glob("tables/accuracy_points.*")):
        mine = ours / file.relative_to(reference)
        if file.suffix == ".parquet":
            assert pq.read_table(mine).equals(pq.read_table(file)), mine.name
        else:
            assert mine.read_bytes() == file.read_bytes(), mine.name


def test_the_embedded_default_gives_the_tables_of_a_local_run(
    root: Path, cluster: Cluster, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    local, project = copy_project(root, tmp_path / "local"), copy_project(root, tmp_path / "slurm")
    run(local, [sys.executable, "-m", "snakemake", "tables", "--cores", "2"])
    start = time.monotonic()
    run(project, command("tables"), cluster)
    wall = time.monotonic() - start
    assert_same_tables(project / "results" / "config", local / "results" / "config")

    records = [record for record in cluster.records() if record.comment]
    assert {record.state for record in records} == {"COMPLETED"}
    assert {record.node for record in records} == {"n1", "n2"}
    # What Snakemake adds to a job, and what the simulation says of this run.
    work = of_tables(project / "config" / "config.yaml", project)
    on_cluster = [task for task in work if task.width]
    assert all(task.measured for task in on_cluster)
    overhead = (sum(record.seconds for record in records) - sum(task.seconds for task in on_cluster)) / len(records)
    predicted = simulate(work, 2, overhead=overhead, polling=POLLING)
    print(f"\n{len(records)} jobs, Snakemake {overhead:.1f} s per job; {wall:.0f} s, predicted {predicted.wall:.0f} s")
    assert predicted.wall == pytest.approx(wall, rel=0.2)


def test_a_study_survives_what_clusters_do(root: Path, cluster: Cluster, tmp_path: Path) -> None:
    local, project = copy_project(root, tmp_path / "local"), copy_project(root, tmp_path / "slurm")
    run(local, [sys.executable, "-m", "snakemake", "tables", "--cores", "2", "--configfile", "study.yaml"])
    before = {record.id for record in cluster.records()}
    clock = "results/latency/scenes/box_fill/eager.parquet"
    plain = command("tables", clock, "--configfile", "study.yaml")
    faults = [
        *plain,
        "--set-resources",
        # Snakemake's two processes take 190 of it, and pandas more than the rest.
        "prompts_group:mem_mb=200 if attempt == 1 else 4000",
        "measure:runtime=1 if attempt == 1 else 10",
    ]
    log = (tmp_path / "snakemake.log").open("w")
    snakemake = subprocess.Popen(
        faults,
        cwd=project,
        env=environment(project, cluster),
        stdout=log,
        stderr=log,
        text=True,
        start_new_session=True,
    )

    def new() -> list[Record]:
        return [record for record in cluster.records() if record.comment and record.id not in before]

    def seen(rule: str, state: str) -> Record | None:
        return next((r for r in new() if r.comment.startswith(f"rule_{rule}") and r.state == state), None)

    try:
        # A job cancelled.
        victim, _ = wait_for("a segany job runs", lambda: cluster.running("segany"), 300, snakemake)[0]
        cluster.ask("scancel", victim)
        # slurmctld ends in the middle of a job, is away for a while and comes back.
        wait_for("a segany job runs", lambda: cluster.running("segany"), 120, snakemake)
        pid = int((cluster.folder / "run" / "slurmctld.pid").read_text().split()[0])
        os.kill(pid, signal.SIGTERM)
        time.sleep(8)
        cluster.call("slurm-up.sh")
        # slurmd killed in the middle of a job, on the node where no clock runs.

        def doomed() -> tuple[str, str] | None:
            clocks = {node for _, node in cluster.running("measure")}
            return next(((job, node) for job, node in cluster.running("segany") if node not in clocks), None)

        victim, node = wait_for("a segany job runs beside the clock", doomed, 200, snakemake)
        cluster.call("slurm-node.sh", "crash", node)
        wait_for("NODE_FAIL", lambda: seen("segany", "NODE_FAIL"), 120, snakemake)
        # The node comes back.
        cluster.call("slurm-node.sh", "start", node)
        returned = time.strftime("%Y-%m-%dT%H:%M:%S")
        assert cluster.node_states()[node] in ("idle", "mixed", "allocated")
        wait_for("TIMEOUT", lambda: seen("measure", "TIMEOUT"), 200, snakemake)
        # Snakemake is killed while its jobs run.
        orphans = wait_for("jobs run", lambda: cluster.running("measure") or cluster.running("segany"), 200, snakemake)
        snakemake.kill()
        snakemake.wait()
        assert cluster.running("measure") + cluster.running("segany"), "its jobs run on"
    finally:
        if snakemake.poll() is None:
            snakemake.kill()
            snakemake.wait()
        log.close()
        sys.stdout.write(
            re.sub(r"(?m)^(?!.*(SLURM-job|Error|submitted|Finished)).*\n", "", (tmp_path / "snakemake.log").read_text())
        )

    again = ["-m", "sambench.cli", "resume", "--", *plain[3:]]
    output = run(project, [sys.executable, *again], cluster)
    print(re.sub(r"(?m)^(?!resume|.*(SLURM-job|steps)).*\n", "", output))
    assert "resume: waiting for" in output
    assert_same_tables(project / "results" / "study", local / "results" / "study")
    assert (project / clock).is_file()

    records = new()
    states = collections.defaultdict(collections.Counter)
    for record in records:
        states[record.comment][record.state] += 1
    for comment, count in states.items():
        print(comment, dict(count))
    work = of_tables(project / "study.yaml", project)
    assert len(states) == 1 + sum(task.width != 0 for task in work), "all jobs of the tables, and the clock"
    assert {count["COMPLETED"] for count in states.values()} == {1}, "nothing was lost and nothing ran twice"
    by_rule = collections.defaultdict(collections.Counter)
    for comment, count in states.items():
        by_rule[comment.split("_wildcards")[0]].update(count)
    assert by_rule["rule_segany_shard"]["CANCELLED"] >= 1 and by_rule["rule_segany_shard"]["NODE_FAIL"] >= 1
    assert by_rule["rule_measure"]["TIMEOUT"] >= 1
    killed = by_rule["rule_prompts_group"]
    assert killed["FAILED"] + killed["OUT_OF_MEMORY"] == 1
    steps = [row[1] for row in cluster.ask("sacct", "-nPD", "-S", "now-1days", "-o", "JobID,State") if "." in row[0]]
    assert any(step.startswith("OUT_OF_ME") for step in steps)
    assert next(record.state for record in records if record.id == orphans[0][0]) == "COMPLETED"
    assert any(record.node == node and record.start > returned for record in records), "the node that returned works"
    assert not cluster.ask("squeue", "--noheader")


def test_a_preempted_job_goes_back_into_the_queue(root: Path, cluster: Cluster, tmp_path: Path) -> None:
    """A job of another user's partition takes the node of ours, which ends it for good (`--no-requeue`)."""
    project = copy_project(root, tmp_path / "slurm")
    study = STUDY | {"shards": 1, "study": STUDY["study"] | {"variants": ["grabcut"]}}
    (project / "study.yaml").write_text(yaml.safe_dump(study))
    before = {record.id for record in cluster.records()}
    table = "results/study/tables/accuracy_boxes.csv"
    log = (tmp_path / "snakemake.log").open("w")
    snakemake = subprocess.Popen(
        [*command("--retries", "0", "--configfile", "study.yaml"), "--", table],
        cwd=project,
        env=environment(project, cluster),
        stdout=log,
        stderr=log,
        text=True,
        start_new_session=True,
    )

    def states() -> list[str]:
        mine = [record for record in cluster.records() if record.id not in before]
        return [record.state for record in mine if record.comment.startswith("rule_segany")]

    try:
        _, node = wait_for("a segany job runs", lambda: cluster.running("segany"), 300, snakemake)[0]
        cluster.ask(
            "sbatch", "--partition=high", f"--nodelist={node}", "--mem=100", "--output=/dev/null", "--wrap=sleep 5"
        )
        wait_for("PREEMPTED", lambda: "PREEMPTED" in states(), 120, snakemake)
        wait_for("the study ends", lambda: snakemake.poll() is not None, 600)
    finally:
        if snakemake.poll() is None:
            snakemake.kill()
            snakemake.wait()
        log.close()
    said = (tmp_path / "snakemake.log").read_text()
    assert snakemake.returncode == 0, said[-4000:]
    assert states() == ["PREEMPTED", "COMPLETED"] and "PREEMPTED; it goes back into the queue" in said
    assert (project / table).is_file()


def test_clocks_of_a_variant_are_one_job_and_fail_alone(root: Path, cluster: Cluster, tmp_path: Path) -> None:
    """Two variants, two measures with a clock each: two jobs. What one of them cannot write stops no other."""
    project = copy_project(root, tmp_path / "slurm")
    clocks = ["latency", "throughput"]
    short = {"images": 2, "min_seconds": 1}
    study = STUDY | {"shards": 1, "study": STUDY["study"] | {"measures": clocks}}
    study |= {"latency": STUDY["latency"] | short, "throughput": {**short, "batches": [1]}}
    (project / "study.yaml").write_text(yaml.safe_dump(study))
    before = {record.id for record in cluster.records()}
    files = {
        (measure, variant): f"results/{measure}/scenes/{variant}/eager.parquet"
        for measure in clocks
        for variant in STUDY["study"]["variants"]
    }
    log = project / "results" / "logs" / "throughput" / "scenes" / "grabcut" / "eager.json"
    log.mkdir(parents=True)  # in the place of the job's record
    with pytest.raises(AssertionError, match="throughput"):
        run(project, command(*files.values(), "--configfile", "study.yaml", "--retries", "0"), cluster)
    assert [key for key, file in files.items() if not (project / file).is_file()] == [("throughput", "grabcut")]
    first = [record for record in cluster.records() if record.comment and record.id not in before]
    bundles = sorted((record.comment, record.state) for record in first if "_bundle_" in record.comment)
    expected = [("box_fill", "COMPLETED"), ("grabcut", "FAILED")]
    assert bundles == [(f"rule_bundle_wildcards_scenes_{variant}_cpu", state) for variant, state in expected]
    assert not any("_measure_" in record.comment for record in first)

    log.rmdir()
    run(project, command("latency", "throughput", "--configfile", "study.yaml"), cluster)
    known = before | {record.id for record in first}
    new = [record.comment for record in cluster.records() if record.comment and record.id not in known]
    assert new == ["rule_measure_wildcards_throughput_scenes_grabcut_eager"], "the rest was kept"
    for measure in clocks:
        table = pq.read_table(project / f"results/study/tables/{measure}.parquet").to_pandas()
        assert sorted(table["variant"]) == ["box_fill", "grabcut"] and (table["status"] == "ok").all()

"""Runs that are ended, starved or disturbed at random moments: after the next run the tables are those of a calm one.

    python tests/campaigns/crash.py                    30 kills, a full disk at every stage, the rest once (make crash)
    python tests/campaigns/crash.py --kills 4 --minutes 10 --scenario kill --scenario disk

What decides when a run is ended is what it does: a job's values beside its log tell that the stage has started. Every
stage has its turn, SIGKILL of the process group, SIGTERM and SIGINT take turns, and a random part of a second passes in
between. After each end every Parquet file that has its name must be whole. Needs nothing but a checkout; a full disk
needs root (a small tmpfs). The exit status is 1 when something differs, and the folder is kept.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import yaml
from PIL import Image

from sambench.errors import InputError
from sambench.parquet import read_provenance

ROOT = Path(__file__).parents[2]
# Where a stage logs, and its results; they and those of all later stages are removed so that it has something to do.
STAGES = {
    "index": ("datasets",),
    "prompts": ("prompts",),
    "boxes": ("boxes",),
    "segany": ("segany", "masks"),
    "average_precision": ("average_precision",),
    "latency": ("latency",),
    "tables": ("crash/tables",),
    "figures": ("crash/figures",),
    "report": ("crash/report",),
    "tracking": ("crash/mlflow.json",),
}
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
COMPARED = ("accuracy_boxes", "accuracy_points", "average_precision", "boxes", "comparison")  # tables without a clock


class Failed(Exception):
    """Something is not as after a calm run."""


class Folder:
    """A working directory with a small study in it."""

    def __init__(self, path: Path, results: str = "results", height: int = 4) -> None:
        self.path, self.results = path, Path(results) if Path(results).is_absolute() else path / results
        (path / "data").mkdir(parents=True)
        self.annotate(height)
        study = {
            "results": results,
            "shards": 2,
            "download": False,
            "datasets": {"mine": {"annotations": "data/instances.json", "images": "data"}},
            "detectors": {"theirs": {"family": "theirs", "published": {"mine": "data/boxes.json"}}},
            "prompt_groups": {"boxes": ["box", "theirs"], "points": ["mask_center"]},
            "latency": {"images": 2, "boxes": 2, "warmup": 1, "min_seconds": 0},
            "study": {
                "name": "crash", "datasets": ["mine"], "variants": ["box_fill", "ground_truth"], "runtimes": ["eager"],
                "prompt_groups": ["boxes", "points"], "selections": ["argmax"], "measures": ["latency"], "samplers": [],
            },
        }  # fmt: skip
        (path / "crash.yaml").write_text(yaml.safe_dump(study))

    def annotate(self, height: int) -> None:
        """Four images with one rectangle of this height in each, and the boxes that a detector found."""
        images, annotations, boxes = [], [], []
        for number in range(1, 5):
            Image.fromarray(np.full((40, 60, 3), 50 * number, dtype=np.uint8)).save(self.path / f"data/{number}.png")
            images.append({"id": number, "file_name": f"{number}.png", "width": 60, "height": 40})
            end = 5 + height + number
            row = {
                "id": number,
                "image_id": number,
                "category_id": 1,
                "bbox": [5, 5, 20, height + number],
                "iscrowd": 0,
            }
            annotations.append(
                {**row, "segmentation": [[5, 5, 25, 5, 25, end, 5, end]], "area": 20 * (height + number)}
            )
            boxes.append({"image_id": number, "category_id": 1, "bbox": [5, 5, 20, height], "score": 1 - number / 10})
        document = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "thing"}]}
        (self.path / "data/instances.json").write_text(json.dumps(document))
        (self.path / "data/boxes.json").write_text(json.dumps(boxes))

    def command(self, *options: str) -> list[str]:
        files = [str(ROOT / "config" / f"{n}.yaml") for n in ("variants", "datasets", "detectors", "config")]
        return [
            sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"), "--directory", str(self.path),
            "--profile", "none", "--workflow-profile", "none", "--cores", "2", "--rerun-incomplete", "--keep-going",
            "--rerun-triggers", "input", "mtime", "params", *options, "--configfile", *files,
            str(self.path / "crash.yaml"),
        ]  # fmt: skip

    def start(self) -> subprocess.Popen[bytes]:
        log = (self.path / "run.log").open("wb")
        return subprocess.Popen(
            self.command(), stdout=log, stderr=log, start_new_session=True, env=environment(), cwd=self.path
        )

    def finish(self, timeout: float = 900) -> None:
        """Run to the end, after a lock that a kill left behind is gone."""
        quiet = {"capture_output": True, "env": environment(), "cwd": self.path, "timeout": timeout}
        subprocess.run(self.command("--unlock"), check=False, **quiet)  # type: ignore[call-overload]
        done = subprocess.run(self.command(), check=False, **quiet)  # type: ignore[call-overload]
        if done.returncode:
            raise Failed(f"the next run fails: {done.stderr.decode()[-1500:]}")

    def tables(self) -> dict[str, bytes]:
        return {name: (self.results / f"crash/tables/{name}.csv").read_bytes() for name in COMPARED}

    def check_whole(self) -> None:
        """No file that has its name is half of one."""
        for file in self.results.rglob("*.parquet"):
            if not file.name.startswith("."):
                try:
                    read_provenance(file)
                except InputError as error:
                    raise Failed(str(error)) from None

    def remove(self, stage: str) -> None:
        for later in list(STAGES)[list(STAGES).index(stage) :]:
            for name in STAGES[later]:
                target = self.results / name
                shutil.rmtree(target, ignore_errors=True) if target.is_dir() else target.unlink(missing_ok=True)

    def started(self, stage: str, since: float) -> bool:
        """Whether a job of a stage has written its values since a time."""
        logs = self.results / "logs"
        files = [*(logs / stage).rglob("*.json"), *logs.glob(f"{stage}*.json")]
        return any(file.stat().st_mtime >= since for file in files if file.exists())


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "SAMBENCH_OFFLINE": "1", "PYTHONPATH": str(ROOT / "src")}


def end(process: subprocess.Popen[bytes], how: signal.Signals) -> None:
    """End a run: all of its processes, or as Ctrl-C and a batch system do, and then wait."""
    with contextlib.suppress(ProcessLookupError):  # it was just over
        os.killpg(process.pid, how) if how == signal.SIGKILL else process.send_signal(how)
    try:
        process.wait(120)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        raise Failed(f"{how.name} does not end a run within two minutes") from None
    with contextlib.suppress(ProcessLookupError):  # children that outlive it would write into the next run
        os.killpg(process.pid, signal.SIGKILL)


def kill(folder: Folder, stage: str, how: signal.Signals, dice: random.Random) -> str:
    """End a run while a stage is at work."""
    folder.remove(stage)
    since, process = time.time() - 0.01, folder.start()
    while process.poll() is None and not folder.started(stage, since):
        time.sleep(0.02)
    time.sleep(dice.random() * 1.5)
    hit = process.poll() is None
    end(process, how)
    folder.check_whole()
    folder.finish()
    return f"{how.name}" if hit else "over before"


def removed(folder: Folder, dice: random.Random) -> str:
    """Results vanish while a run is at work."""
    folder.remove("segany")
    since, process = time.time() - 0.01, folder.start()
    while process.poll() is None and not folder.started("segany", since):
        time.sleep(0.02)
    shutil.rmtree(folder.results / dice.choice(("prompts", "datasets", "segany")), ignore_errors=True)
    process.wait(600)
    folder.check_whole()
    folder.finish()
    return "removed"


def twice(folder: Folder, dice: random.Random) -> str:
    """A second run in the same folder: it is refused, and the first goes on."""
    folder.remove("segany")
    process = folder.start()
    while process.poll() is None and not any((folder.path / ".snakemake/locks").glob("*")):
        time.sleep(0.05)
    done = subprocess.run(folder.command(), capture_output=True, env=environment(), cwd=folder.path, check=False)
    if done.returncode == 0 or b"lock" not in done.stderr.lower():
        raise Failed(f"a second run in the folder ends with {done.returncode}: {done.stderr.decode()[-300:]}")
    if process.wait(900):
        raise Failed("the first run fails because of a second one")
    return "refused"


def together(folder: Folder, dice: random.Random) -> str:
    """Two studies from two folders into one folder of results, at the same time."""
    shared = folder.path / "shared"
    pair = [Folder(folder.path / name, str(shared)) for name in ("one", "two")]
    for process in [each.start() for each in pair]:
        process.wait(900)
    for each in pair:
        each.check_whole()
        each.finish()
        if each.tables() != folder.tables():
            raise Failed("two studies in one folder of results give other tables")
    return "same"


def changed(folder: Folder, dice: random.Random) -> str:
    """Annotations change between two runs: the tables are those of the new ones, and back."""
    before = folder.tables()
    folder.annotate(height=9)
    folder.finish()
    other = Folder(Path(tempfile.mkdtemp(prefix="fresh-", dir=folder.path)) / "study", height=9)
    other.finish()
    if folder.tables() != other.tables() or folder.tables() == before:
        raise Failed("changed annotations do not give the tables of a fresh run")
    folder.annotate(height=4)
    folder.finish()
    return "followed"


def clock(folder: Folder, dice: random.Random) -> str:
    """The clock goes backwards: results are a day younger than annotations that change after them."""
    for file in folder.results.rglob("*"):
        ahead = file.stat().st_mtime + 86_400
        os.utime(file, (ahead, ahead))
    return changed(folder, dice)


@contextlib.contextmanager
def small_disk(base: Path) -> Iterator[Folder]:
    """A finished study whose results lie on a disk of their own."""
    place = base / "disk"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=100m", "tmpfs", str(place)], check=True)
    try:
        folder = Folder(base / "small", str(place / "results"))
        folder.finish()
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(place)], check=False)


def disk(folder: Folder, stage: str, dice: random.Random) -> str:
    """The disk fills up while a stage is at work: one line says so, and with space again the next run ends well."""
    folder.remove(stage)
    since, process = time.time() - 0.01, folder.start()
    while process.poll() is None and not folder.started(stage, since):
        time.sleep(0.02)
    time.sleep(dice.random() * 0.5)
    filler = folder.results.parent / "filler"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
    process.wait(900)
    log = (folder.path / "run.log").read_text(errors="replace")
    if process.returncode and "no space left on device" not in log.lower() and "disk is full" not in log.lower():
        raise Failed(f"nothing says that the disk is full: {log[-600:]}")
    folder.check_whole()
    filler.unlink()
    folder.finish()
    traced = ", with a traceback" if "Traceback" in log else ""
    return f"full{traced}" if process.returncode else "over before"


SCENARIOS: dict[str, Callable[[Folder, random.Random], str]] = {
    "removed": removed, "twice": twice, "together": together, "changed": changed, "clock": clock,
}  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--minutes", type=float, default=120, help="no further round is begun after these")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scenario", choices=["kill", "disk", *SCENARIOS], action="append")
    options = parser.parse_args()
    dice = random.Random(options.seed)
    wanted = options.scenario or ["kill", "disk", *SCENARIOS]
    base, begin, failures, counts = (
        Path(tempfile.mkdtemp(prefix="sambench-crash-")),
        time.monotonic(),
        0,
        Counter[str](),
    )
    calm = Folder(base / "calm")
    calm.finish()
    expected = calm.tables()
    stages = list(STAGES)
    dice.shuffle(stages)
    disks = contextlib.ExitStack()
    rounds: list[tuple[str, Folder, Callable[[Folder], str]]] = [
        (f"kill {stage}", calm, partial(kill, stage=stage, how=SIGNALS[n % 3], dice=dice))
        for n, stage in enumerate(stages[n % len(stages)] for n in range(options.kills if "kill" in wanted else 0))
    ]
    rounds += [(name, calm, partial(action, dice=dice)) for name, action in SCENARIOS.items() if name in wanted]
    if "disk" in wanted and os.geteuid() == 0:
        small = disks.enter_context(small_disk(base))
        rounds += [(f"disk {stage}", small, partial(disk, stage=stage, dice=dice)) for stage in STAGES]
    for number, (name, folder, action) in enumerate(rounds):
        if time.monotonic() - begin > 60 * options.minutes:
            print(f"{len(rounds) - number} rounds are left out: the time is over")
            break
        start = time.monotonic()
        try:
            outcome = action(folder)
            if folder.tables() != expected:
                raise Failed("the tables are others")
            counts[name.partition(" ")[0]] += 1
        except (Failed, subprocess.TimeoutExpired) as error:
            failures += 1
            outcome = f"FAILED: {error}"
        print(f"{number:>3}  {name:<24} {outcome}  ({time.monotonic() - start:.0f} s)", flush=True)
    disks.close()
    print(", ".join(f"{name}: {count}" for name, count in counts.items()), f"as after a calm run; {failures} failed")
    if failures:
        print(f"kept: {base}")
        return 1
    shutil.rmtree(base, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())

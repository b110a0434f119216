"""MLflow as a view: one run per variant with all its numbers, the same content however often and however cut off."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from sambench.errors import InputError
from sambench.results import runs as building
from sambench.results.runs import Data, JobFacts, Run
from sambench.results.table import all_tables, find_table, typed
from sambench.results.tracking import Server, log_campaign, tracking_uri

LOGGED = [name for name, table in all_tables().items() if table.metrics]
pytestmark = pytest.mark.filterwarnings("ignore")  # MLflow's own imports warn in many ways
DATA = Data("d", "ab" * 32, "d/instances.json", 3, 7)


def rows(name: str, *lines: Mapping[str, Any]) -> pd.DataFrame:
    own = {"dataset": "d", "runtime": "eager", "selection": "argmax", "status": "ok"}
    schema = find_table(name).schema
    return typed([{k: v for k, v in {**own, **line}.items() if k in schema.names} for line in lines], schema)


def tables(**found: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    return {name: (find_table(name), rows(name, *lines)) for name, lines in found.items()}


def facts(job: tuple[str, str, str]) -> JobFacts:
    return JobFacts({"device": "abacus"}, {"version.torch": "9.9"}, 1000.0, 1010.5, (DATA,))


def children(found: dict[str, Any]) -> dict[str, Run]:
    jobs = [tuple(job) for job in found["summary"][1][list(building.KEY)].itertuples(index=False)]
    return {run.params["variant"]: run for run in building.children(found, jobs, {job: facts(job) for job in jobs})}


def study() -> dict[str, Any]:
    boxes = {"prompt": "box", "instances": 7}
    return tables(
        summary=[
            {"variant": "v", "family": "F", "licence_weights": "MIT", "weights_sha256": "0f", "miou_box": 50.0},
            {"variant": "empty", "family": "F", "status": "no weights (box, point)"},
            {"variant": "filler", "family": "F", "status": "unsupported prompt (point)", "miou_box": 60.0},
        ],
        accuracy_boxes=[
            {**boxes, "variant": "v", "miou": 50.0, "miou_low": 49.0},
            {**boxes, "variant": "v", "selection": "single", "miou": 40.0},
            {**boxes, "variant": "empty", "status": "no weights"},
            {**boxes, "variant": "filler", "miou": 60.0, "status": "out of memory: 1 of 7"},
        ],
        accuracy_points=[
            {"variant": "v", "prompt": "mask_center", "miou": 30.0},
            {"variant": "empty", "prompt": "mask_center", "instances": 7, "status": "no weights"},
            {"variant": "filler", "prompt": "mask_center", "instances": 7, "status": "unsupported prompt"},
        ],
        average_precision=[{"variant": "v", "detector": "yolo+v8n", "ap": 20.0}],
        efficiency=[{"variant": name, "params_m": 4.5} for name in ("v", "empty")],
        latency=[
            {"variant": "v", "boxes": 1, "segany_ms": 8.0, "cumulative_ms": 8.0},
            {"variant": "v", "boxes": 10, "segany_ms": 8.0, "cumulative_ms": 17.0},
        ],
        throughput=[
            {"variant": "v", "batch": 1, "best": False, "throughput_img_s": 5.0},
            {"variant": "v", "batch": 2, "best": True, "throughput_img_s": 9.0},
            {"variant": "v", "batch": 4, "best": False, "throughput_img_s": 7.0},
        ],
    )


def test_a_run_has_all_numbers_of_a_variant_under_names_that_can_be_compared() -> None:
    run = children(study())["v"]
    assert run.metrics == {
        ("miou/box", 0): 50.0,
        ("miou_low/box", 0): 49.0,
        ("instances/box", 0): 7.0,
        ("miou_single/box", 0): 40.0,
        ("instances_single/box", 0): 7.0,
        ("miou/mask_center", 0): 30.0,
        ("ap/yolo_v8n", 0): 20.0,
        ("params_m", 0): 4.5,
        ("latency/segany_ms", 0): 8.0,
        ("latency/cumulative_ms_by_boxes", 1): 8.0,
        ("latency/cumulative_ms_by_boxes", 10): 17.0,
        ("throughput/img_s", 0): 9.0,
        ("throughput/img_s_by_batch", 1): 5.0,
        ("throughput/img_s_by_batch", 2): 9.0,
        ("throughput/img_s_by_batch", 4): 7.0,
    }
    known = {"dataset": "d", "variant": "v", "runtime": "eager", "family": "F", "licence_weights": "MIT"}
    assert run.params == known | {"weights_sha256": "0f", "device": "abacus"}
    assert not run.failed and run.tags == {"version.torch": "9.9", "status": "ok"}


def test_a_missing_number_is_a_tag_and_a_variant_without_weights_has_failed() -> None:
    found = children(study())
    empty, filler = found["empty"], found["filler"]
    assert empty.failed and empty.metrics == {("params_m", 0): 4.5}
    assert empty.tags.items() >= {"miou/box": "no weights", "miou/mask_center": "no weights"}.items()
    assert empty.description == "Missing: no weights (box, point)."
    assert not filler.failed and filler.metrics == {("miou/box", 0): 60.0, ("instances/box", 0): 7.0}
    assert filler.tags["miou/mask_center"] == "unsupported prompt"
    assert filler.tags["miou/box"] == "out of memory: 1 of 7", "a number that is made of fewer rows says so"


@pytest.mark.parametrize("name", LOGGED)
def test_every_logged_table_names_its_metrics_by_its_key(name: str) -> None:
    what = find_table(name)
    plain = [field.name for field in what.schema if str(field.type) == "double" and field.name not in what.key]
    column = next(name for name in plain if name not in what.series)
    (line,) = rows(name, dict.fromkeys(what.key, "1") | {column: 7.5, "best": True}).to_dict("records")
    metrics, missing = building.measured(what, pd.DataFrame([line]))
    ((metric, step),) = (key for key, value in metrics.items() if value == 7.5)
    short = column.removeprefix(f"{what.metrics.partition('/')[0]}_")
    wanted = what.metrics.replace("{column}", short)
    for name in what.key:
        wanted = wanted.replace("{" + name + "}", "1")
    assert (metric, step) == (wanted, 0) and not missing
    assert what.series.keys() <= set(what.schema.names) and {*what.series.values()} <= {*what.key}


def campaign(found: dict[str, Any], files: Mapping[str, str]) -> tuple[Run, list[Run]]:
    config = {"study": {"name": "mine", "datasets": ["d"]}, "latency": {"images": 3}}
    made = list(children(found).values())
    return building.parent(config, found["summary"][1], "| variant |\n", made, files), made


def content(database: Path) -> dict[str, Any]:
    """All that is visible, by name of the run, without what is new in each logging: ids and times of writing."""
    import mlflow

    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{database}")
    experiment = client.get_experiment_by_name("mine")
    found = client.search_runs([experiment.experiment_id])
    names = {run.info.run_id: run.info.run_name for run in found}
    return {
        run.info.run_name: {
            "params": run.data.params,
            "metrics": {
                name: sorted((point.step, point.value) for point in client.get_metric_history(run.info.run_id, name))
                for name in run.data.metrics
            },
            "tags": {key: names.get(value, value) for key, value in run.data.tags.items()},
            "info": [run.info.status, run.info.start_time, run.info.end_time],
            "inputs": [(entry.dataset.name, entry.dataset.digest) for entry in run.inputs.dataset_inputs],
        }
        for run in found
    }


@pytest.fixture(scope="module")
def new_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty database: seconds of migrations, once."""
    import mlflow

    file = tmp_path_factory.mktemp("new") / "mlflow.db"
    mlflow.MlflowClient(tracking_uri=f"sqlite:///{file}").search_experiments()
    return file


@pytest.fixture
def book(tmp_path: Path, new_database: Path) -> Callable[..., tuple[int, int]]:
    """Logs a study to a database in `tmp_path` and tells (written, kept)."""
    report = tmp_path / "index.html"
    report.write_text("<p>")

    # MLflow keeps a database open as long as the process lives: one that was deleted is another name here.
    def log(found: dict[str, Any], files: Mapping[str, str] | None = None, name: str = "mlflow.db") -> tuple[int, int]:
        parent, made = campaign(found, files or {"report/index.html": "1"})
        server = Server(f"sqlite:///{tmp_path / name}", tmp_path / "mlartifacts")
        paths = {"report/index.html": report}
        if not (tmp_path / name).exists():
            shutil.copy(new_database, tmp_path / name)
        outcome = log_campaign(server, "mine", parent, made, paths, building.columns(made))
        return outcome.written, outcome.kept

    return log


def test_logging_is_idempotent_and_follows_changes(tmp_path: Path, book: Callable[..., tuple[int, int]]) -> None:
    import mlflow

    database = tmp_path / "mlflow.db"
    assert book(study()) == (4, 0)
    first = content(database)
    (name,) = (name for name in first if name.startswith("mine "))
    parent, child = first[name], first["v eager d"]
    assert child["info"] == ["FINISHED", 1_000_000, 1_010_500] and first["empty eager d"]["info"][0] == "FAILED"
    assert child["inputs"] == [("d", ("ab" * 32)[:36])]
    assert child["tags"]["mlflow.parentRunId"] == name and child["metrics"]["throughput/img_s_by_batch"][1] == (2, 9.0)
    assert parent["tags"]["mlflow.note.content"] == "| variant |\n"
    assert parent["metrics"]["best_miou_box/d"] == [(0, 60.0)] and parent["metrics"]["runs_failed"] == [(0, 1.0)]
    (artifact,) = (tmp_path / "mlartifacts").rglob("index.html")
    assert artifact.parent.name == "report"

    assert book(study()) == (0, 4) and content(database) == first

    changed = study()
    changed["accuracy_boxes"][1].loc[0, "miou"] = 51.0
    assert book(changed, {"report/index.html": "2"}) == (2, 2), "the variant, and the parent with its report"
    assert content(database)["v eager d"]["metrics"]["miou/box"] == [(0, 51.0)]

    fewer = study()
    fewer["summary"] = (fewer["summary"][0], fewer["summary"][1].iloc[[0, 2]])
    book(fewer)
    assert content(database).keys() == {name, "v eager d", "filler eager d"}, "what is gone leaves no run"

    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{database}")
    experiment = client.get_experiment_by_name("mine")
    assert experiment.artifact_location == "mlflow-artifacts:/mine"
    state = json.loads(experiment.tags["mlflow.sharedViewState.sambench"])
    assert "metrics.`miou/box`" in state["selectedColumns"] and name in state["searchFilter"]
    client.delete_experiment(experiment.experiment_id)
    book(study())
    assert content(database) == first, "an experiment that was deleted is restored"

    book(study(), name="again.db")
    assert content(tmp_path / "again.db") == first and len(list((tmp_path / "mlartifacts").rglob("index.html"))) == 1


def test_a_run_that_is_cut_off_is_completed(
    tmp_path: Path, book: Callable[..., tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client dies at one of its writing calls, again and again; in the end all is as without."""
    from mlflow import MlflowClient

    def dying(name: str, left: list[int]) -> Callable[..., Any]:
        original = getattr(MlflowClient, name)

        def call(*arguments: Any, **named: Any) -> Any:
            left[0] -= 1
            if left[0] < 0:
                raise KeyboardInterrupt
            return original(*arguments, **named)

        return call

    died = 0
    for moment in range(0, 14, 3):
        with monkeypatch.context() as patch:
            left = [moment]
            for name in ("create_run", "log_inputs", "log_batch", "set_tag", "set_terminated", "create_experiment"):
                patch.setattr(MlflowClient, name, dying(name, left))
            with contextlib.suppress(KeyboardInterrupt):
                book(study())
            died += left[0] < 0
    assert died >= 3
    book(study())
    book(study(), name="undisturbed.db")
    assert content(tmp_path / "mlflow.db") == content(tmp_path / "undisturbed.db")


def test_a_database_that_cannot_be_used_is_one_line(tmp_path: Path, book: Callable[..., tuple[int, int]]) -> None:
    (tmp_path / "mlflow.db").write_bytes(b"no database at all" * 100)  # MLflow itself tries for 100 s
    with pytest.raises(InputError, match=r"mlflow.db: expected a tracking .* delete the file") as error:
        book(study())
    assert "\n" not in str(error.value)


def test_passwords_stand_in_the_environment_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://there:5000")
    assert tracking_uri("") == "http://there:5000" and tracking_uri("https://here") == "https://here"
    with pytest.raises(InputError, match=r"config: tracking.uri: .* MLFLOW_TRACKING_USERNAME") as error:
        tracking_uri("https://me:secret@here")
    assert "secret" not in str(error.value)


def test_times_are_those_of_the_jobs(tmp_path: Path) -> None:
    for number, times in enumerate(({"started": 5, "ended": 9}, {"started": 7, "ended": 12}, {"started": 1})):
        record = tmp_path / "logs" / "segany" / "d" / f"{number}.json"
        record.parent.mkdir(parents=True, exist_ok=True)
        record.write_text(json.dumps({"stage": "segany", "arguments": {}} | times))
    files = [tmp_path / "segany" / "d" / f"{number}.parquet" for number in range(4)]
    assert list(building.job_times(tmp_path, files)) == [(5, 9), (7, 12)]


def test_the_view_shows_the_headline_prompts_first() -> None:
    names = ["params_m", "miou/tight_box", "miou/box", "miou/random_1", "miou/mask_center", "ap/yolo", "ap_small/yolo"]
    run = building.Run("k", "n", {}, {(name, 0): 1.0 for name in names}, {})
    assert building.columns([run]) == ["miou/box", "miou/mask_center", "ap/yolo", "params_m"]

"""Suites: what they name, their table by hand, and the archive of SGinW from a local server."""

from __future__ import annotations

import io
import json
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from sambench.config import read_registries, read_study
from sambench.datasets import coco
from sambench.downloads.catalogue import read_table, retrievals
from sambench.downloads.store import retrieve
from sambench.errors import InputError
from sambench.results.tables.suites import SCHEMA, TABLE, members, suites
from sambench.status import NO_WEIGHTS, OK


def study_of(*datasets: str, **changes: Any) -> Any:
    config = read_registries() | changes
    return read_study({**config, "study": {**config["study"], "datasets": list(datasets)}})


def test_the_name_of_a_suite_stands_for_its_data_sets() -> None:
    study = study_of("scenes", "sginw")
    assert study["datasets"][0] == "scenes" and len(study["datasets"]) == 26
    assert study["datasets"][1:] == list(study.settings.suites["sginw"])
    assert study_of("sginw", "sginw_cows")["datasets"].count("sginw_cows") == 1
    assert members(study) == {"sginw": study["datasets"][1:]} and TABLE.selected(study)
    assert not TABLE.selected(study_of("scenes", "sginw_cows")), "one data set has no mean"


def test_a_suite_names_data_sets_and_has_a_name_of_its_own() -> None:
    with pytest.raises(InputError, match=r"suites\.mine: expected names of the registry `datasets`, found scene"):
        study_of("scenes", suites={"mine": ["scene"]})
    with pytest.raises(InputError, match=r"suites\.scenes: expected a name that no dataset has"):
        study_of("scenes", suites={"scenes": ["coco_mini"]})
    with pytest.raises(InputError, match=r"study\.datasets: expected a name of the registry"):
        study_of("no_suite")
    with pytest.raises(InputError, match=r"suites\.mine"):
        study_of("mine", suites={"mine": []})


def rows(**values: dict[str, float | str]) -> pd.DataFrame:
    """AP by variant and data set; a text is the status of a missing number."""
    table = [
        {"dataset": dataset, "detector": "dino", "variant": variant, "runtime": "eager", "selection": rule}
        | {"ap": np.nan if isinstance(value, str) else value - (rule == "oracle")}
        | {"status": value if isinstance(value, str) else OK}
        for variant, cells in values.items()
        for dataset, value in cells.items()
        for rule in ("argmax", "oracle")
    ]
    return pd.DataFrame(table)


def test_table_by_hand() -> None:
    table = rows(
        ground_truth={"a": 90.0, "b": 90.0, "c": 90.0},
        one={"a": 40.0, "b": 20.0, "c": 30.0},
        two={"a": 50.0, "b": 20.0, "c": 10.0},
        three={"a": NO_WEIGHTS, "b": NO_WEIGHTS, "c": NO_WEIGHTS},
        four={"a": 99.0, "b": 99.0},
    )
    found = suites({"s": ["a", "b", "c"], "t": ["a", "b"]}, {"average_precision": table})
    assert list(found.columns) == SCHEMA.names
    of_s = found[found["suite"] == "s"].set_index("variant")
    assert of_s.index.tolist() == ["ground_truth", "one", "two", "three", "four"], "best mean first"
    assert (
        of_s["mean"].tolist()[:3] == [90.0, 30.0, pytest.approx(80 / 3)]
        and of_s["mean"].isna().tolist()[3:] == [True] * 2
    )
    # Places of `one`: 2, 1.5 (equal), 1; of `two`: 1, 1.5, 2. The ceiling takes none, nor does who has not all.
    assert of_s["mean_rank"].tolist()[1:3] == [1.5, 1.5] and of_s["mean_rank"].isna().tolist()[0]
    assert of_s.loc["four", "datasets"] == 2 and of_s.loc["four", "of"] == 3
    assert of_s.loc["four", "status"] == "not asked (c)" and of_s.loc["three", "status"] == NO_WEIGHTS
    assert dict(of_s.loc["four", "values"]) == {"a": 99.0, "b": 99.0}
    assert set(of_s["measure"]) == {"AP dino"}
    of_t = found[found["suite"] == "t"].set_index("variant")
    assert of_t["mean_rank"].drop(["ground_truth", "three"]).to_dict() == {"four": 1.0, "two": 2.25, "one": 2.75}


def archive() -> bytes:
    """Two of the 25 sets as the archive of SGinW has them: an image each, with a square as its instance."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as packed:
        for name in ("Airplane-Parts", "Cows"):
            picture = io.BytesIO()
            Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(picture, "JPEG")
            packed.writestr(f"seginw/{name}/valid/1.jpg", picture.getvalue())
            annotation = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [2, 3, 10, 10], "area": 100, "iscrowd": 0}
            annotation["segmentation"] = [[2, 3, 12, 3, 12, 13, 2, 13]]
            content = {
                "images": [{"id": 1, "file_name": "1.jpg", "width": 30, "height": 20}],
                "annotations": [annotation],
                "categories": [{"id": 1, "name": name}],
            }
            packed.writestr(f"seginw/{name}/valid/_annotations_min1cat.coco.json", json.dumps(content))
    return file.getvalue()


class Handler(BaseHTTPRequestHandler):
    content = archive()

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.content)))
        self.end_headers()
        self.wfile.write(self.content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def address(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/seginw.zip"
        server.shutdown()
        thread.join()


def test_the_archive_brings_data_sets_that_can_be_indexed(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    item = read_table()["sginw"]
    assert len(item.urls) == 2 and item.unpack == "seginw" and item.target == Path("data/sginw")
    monkeypatch.setattr("sambench.downloads.store.read_table", lambda: {"sginw": replace(item, urls=[address])})
    study = study_of("sginw_airplane_parts", "sginw_cows")
    for dataset in study["datasets"]:
        retrieval = retrievals(study)[f"datasets/{dataset}"]
        assert retrieve(retrieval, [], str(tmp_path / "cache")) == ["data/sginw: here"]
        entry = study.settings.datasets[dataset]
        found = coco.index([Path(entry.annotation_files[0])], Path(entry.images))
        assert len(found.images) == len(found.instances) == 1
        assert found.instances["area"].tolist() == [100.0]

"""A JSON object read entry by entry is what json reads at once, wherever its text is cut into pieces."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest

from sambench.datasets import json_stream
from sambench.datasets.checks import read_annotations
from sambench.datasets.json_stream import read_object

DOCUMENT = {"a": [1, 2.5, -1e-3, {"x": [1, {"y": None}]}], "b": {}, "c": [], "d": 'é"]', "e": [[], [1]], "f": 12}


@pytest.mark.parametrize("piece", [1, 2, 3, 7, 1000])
def test_pieces_make_the_whole(piece: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_stream, "_PIECE", piece)
    for indent in (None, 1):
        text = json.dumps(DOCUMENT, indent=indent).replace("0.001", "1e-3")
        assert read_object(io.StringIO(text + " \n")) == DOCUMENT
        for cut in range(len(text)):
            with pytest.raises(ValueError):
                read_object(io.StringIO(text[:cut]))


@pytest.mark.parametrize(
    "text", ["[]", "{}x", '{"a":1,}', '{"a" 1}', "{1:2}", '{"a":[1,]}', '{"a":[1 2]}', '{"a":tru}']
)
def test_what_json_refuses_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        read_object(io.StringIO(text))


def test_polygons_in_order_are_arrays_and_others_stay(tmp_path: Path) -> None:
    parts = [[1, 2, 3.5, 4, 5, 6], [1, 2, 3, 4], [1, 2, 3, 4, 5, True], [1, 2, 3, 4, 5, 1e9], "x", [10**400] * 6]
    rows = [{"id": 1, "segmentation": parts}, {"id": 2, "segmentation": {"size": [1, 1], "counts": "1"}}]
    file = tmp_path / "a.json"
    file.write_text(json.dumps({"images": [], "annotations": rows}))
    first, second = read_annotations(file)["annotations"]
    assert isinstance(first["segmentation"][0], np.ndarray) and first["segmentation"][0].tolist() == parts[0]
    assert first["segmentation"][1:] == parts[1:] and second == rows[1]
    bare = read_annotations(file, segmentations=False)["annotations"]
    assert bare == [{"id": 1}, {"id": 2}]
    file.write_bytes(json.dumps({"images": [], "annotations": []}).encode("utf-16"))
    assert read_annotations(file)["categories"] == [], "as json reads it"

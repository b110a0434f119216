"""Results that were tampered with: whatever changes a number, or may, is refused in a line that names the file."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from sambench import parquet
from sambench.config import merge, read_registries, read_study
from sambench.errors import InputError
from sambench.jobs import LAYOUTS, identity
from sambench.parquet import inputs, read_parquet, read_provenance, rows_digest, write_parquet
from sambench.records import BOXES, INSTANCES, MASKS, PROMPTS, SEGANY
from sambench.results import parts
from sambench.results.table import find_table
from sambench.study import Study

SHARD = "segany/tiny/box_fill/eager/boxes/0-of-2.parquet"


def script(root: Path, name: str, **arguments: Any) -> None:
    """Run a stage as a job does."""
    import runpy

    runpy.run_path(str(root / f"workflow/scripts/{name}.py"))["main"](**arguments)


@pytest.fixture(scope="module")
def made(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of two variants on four images with one instance each, in two shards, with boxes of a detector."""
    import json

    folder = tmp_path_factory.mktemp("made")
    images, annotations, boxes = [], [], []
    for number in range(1, 5):
        Image.fromarray(np.full((20, 30, 3), 60 * number, dtype=np.uint8)).save(folder / f"{number}.png")
        images.append({"id": number, "file_name": f"{number}.png", "width": 30, "height": 20})
        polygon = [5, 5, 11, 5, 11, 5 + number, 5, 5 + number]
        box = {"bbox": [5, 5, 6, 8], "area": 6 * number, "iscrowd": 0, "category_id": 1}
        annotations.append({"id": number, "image_id": number, "segmentation": [polygon], **box})
        boxes.append({"image_id": number, "category_id": 1, "bbox": [5, 5, 6, number], "score": 1 - number / 10})
    document = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "thing"}]}
    (folder / "instances.json").write_text(json.dumps(document))
    (folder / "boxes.json").write_text(json.dumps(boxes))
    previous = Path.cwd()
    os.chdir(folder)
    try:
        results, study = folder / "results", read_study(configuration())
        for job in study.jobs():
            for shard, file in enumerate(job.shard_files(results, 2)):
                data = results / "datasets/tiny"
                if not data.exists():
                    paths = {name: data / f"{name}.parquet" for name in ("images", "instances")}
                    script(
                        root, "index", annotations=[folder / "instances.json"], folder=folder, **paths,
                        reading=study.reading("tiny"), notes=data / "notes.parquet", faults=data / "faults.txt",
                    )  # fmt: skip
                    where = results / "boxes/tiny/mine"
                    for number in (0, 1):
                        script(
                            root, "boxes", dataset="tiny", detector="mine", card={"published": {"tiny": "boxes.json"}},
                            settings=study.plain["detection"], folders=[], annotations=[folder / "instances.json"],
                            images=paths["images"], shard=f"{number}-of-2", threads=1,
                            boxes=where / f"{number}-of-2.parquet",
                        )  # fmt: skip
                    shards = [where / f"{number}-of-2.parquet" for number in (0, 1)]
                    script(root, "boxes_merge", shards=shards, boxes=results / "boxes/tiny/mine.parquet")
                prompts = Path(job.prompts_file(results))
                if not prompts.exists():
                    types = study.prompt_types(job.group)
                    script(root, "prompts", dataset="tiny", instances=paths["instances"], types=types, prompts=prompts)
                script(
                    root, "segany", model=study.model(job.variant, job.runtime), threads=1, **paths, prompts=prompts,
                    selections=study["selections"], shard=f"{shard}-of-2", segany=Path(file),
                    keep_unjudged=False, detectors={"mine": results / "boxes/tiny/mine.parquet"},
                    masks=Path(job.mask_files(results, 2)[shard]),
                )  # fmt: skip
    finally:
        os.chdir(previous)
    return folder


def configuration() -> dict[str, Any]:
    own = {
        "shards": 2,
        "datasets": {"tiny": {"annotations": "instances.json", "images": "."}},
        "detectors": {"mine": {"family": "mine", "published": {"tiny": "boxes.json"}}},
        "prompt_groups": {"boxes": ["box", "tight_box", "mine"]},
        "study": {
            "datasets": ["tiny"],
            "variants": ["box_fill", "ground_truth"],
            "runtimes": ["eager"],
            "prompt_groups": ["boxes"],
            "selections": ["argmax", "oracle"],
        },
    }
    return merge(read_registries(), own)


@pytest.fixture
def results(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the results that a test may change."""
    copy = tmp_path / "made"
    shutil.copytree(made, copy)
    monkeypatch.chdir(copy)
    return copy / "results"


@pytest.fixture
def study(results: Path) -> Study:
    return read_study(configuration())


def table(study: Study) -> pd.DataFrame:
    """The table, from parts that are made anew."""
    what, found = find_table("accuracy_boxes"), Path("results")
    for job in study.prompted_jobs():
        instances = found / "datasets/tiny/instances.parquet"
        shards = [Path(file) for file in job.shard_files(found, 2)]
        settings = parts.part_settings(study, job)
        parts.write_parts(job, [what.name], found, shards, Path(job.prompts_file(found)), instances, settings)
    return what.build(Path("results"), what.settings(study))


def raw(path: Path, change: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
    """Change the rows of a file with pyarrow alone, and leave what it says of itself."""
    before = pq.read_table(path)
    after = pa.Table.from_pandas(change(before.to_pandas()), before.schema.remove_metadata(), preserve_index=False)
    pq.write_table(after.replace_schema_metadata(before.schema.metadata), path)


def sealed(path: Path, change: Callable[[pd.DataFrame], pd.DataFrame], **facts: str) -> None:
    """Change the rows of a file and make its digests fit, as a faulty stage would; past the checks when writing."""
    from sambench import parquet

    before = pq.read_table(path)
    schema = before.schema.remove_metadata()
    after = pa.Table.from_pandas(change(before.to_pandas()), schema, preserve_index=False)
    told = {**read_provenance(path), **facts, parquet.ROWS: rows_digest(after)}
    told[parquet.SEAL] = parquet._seal(told)
    metadata = {f"sambench.{key}": value for key, value in told.items()}
    pq.write_table(after.replace_schema_metadata(metadata), path, write_page_checksum=True)


def cell(column: str, value: object, row: int = 0) -> Callable[[pd.DataFrame], pd.DataFrame]:
    def change(rows: pd.DataFrame) -> pd.DataFrame:
        rows = rows.astype({column: object})
        rows.loc[row, column] = value
        return rows

    return change


def same(rows: pd.DataFrame) -> pd.DataFrame:
    return rows


def test_untouched_results_give_a_table(results: Path, study: Study) -> None:
    found = table(study).set_index(["variant", "prompt", "selection"])["miou"]
    assert found["ground_truth"].eq(100).all()
    # Masks of 1 to 4 rows in boxes of 8 rows.
    assert found["box_fill", "box", "argmax"] == pytest.approx(100 * (1 + 2 + 3 + 4) / 4 / 8)


CHANGES: dict[str, tuple[Callable[[pd.DataFrame], pd.DataFrame], str]] = {
    "iou above 1": (cell("iou", 7.3), "iou: expected numbers from 0 to 1, found 7.3"),
    "iou below 0": (cell("iou", -1.0), "iou: expected numbers from 0 to 1, found -1.0"),
    "infinite iou": (cell("iou", float("inf")), "iou: expected numbers from 0 to 1, found inf"),
    "no iou where ok": (cell("iou", None), "iou: expected a value where the status is ok"),
    "an iou where not ok": (cell("status", "out of memory"), "no value where the status is not ok"),
    "an unknown status": (cell("status", "fine"), "status: expected a word"),
    "an oracle below the argmax": (cell("iou_oracle", 0.0), "iou_oracle: expected at least the IoU of any token"),
    "an image id": (cell("image_id", 4), "image_id: expected what the dataset's instances say, found 4"),
    "an area": (cell("area", 5000.0), "area: expected what the dataset's instances say, found 5000.0"),
    "a category": (cell("category_id", 2), "category_id: expected what the dataset's instances say"),
    "a crowd": (cell("iscrowd", True), "iscrowd: expected what the dataset's instances say"),
    "an annotation": (cell("annotation_id", 99), "annotation_id: expected what the dataset's instances say"),
    "a row twice": (lambda rows: pd.concat([rows, rows.iloc[:1]]), "annotation_id, prompt: expected each once"),
    "a row less": (lambda rows: rows.iloc[1:], "1 missing, 0 more than once"),
    "no rows": (lambda rows: rows.iloc[:0], "missing, 0 more than once"),
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGES)
def test_rows_that_cannot_be_are_refused(name: str, results: Path, study: Study) -> None:
    change, message = CHANGES[name]
    sealed(results / SHARD, change)
    with pytest.raises(InputError) as caught:
        table(study)
    text = str(caught.value)
    assert message in text and "results/segany/tiny/box_fill/eager/boxes" in text and "run again" in text
    assert "\n" not in text


@pytest.mark.parametrize("name", CHANGES)
def test_changed_rows_are_refused_whatever_they_say(name: str, results: Path, study: Study) -> None:
    raw(results / SHARD, CHANGES[name][0])
    with pytest.raises(InputError, match=r"0-of-2.parquet: rows: expected those that were written, found others"):
        table(study)


def test_ious_of_other_rows_are_refused(results: Path, study: Study) -> None:
    raw(results / SHARD, lambda rows: rows.assign(iou=rows["iou"].to_numpy()[::-1]))
    with pytest.raises(InputError, match=r"0-of-2.parquet: rows: .*; delete it and run again"):
        table(study)


def test_a_nan_in_the_file_is_no_null(results: Path, study: Study) -> None:
    path = results / SHARD
    before = pq.read_table(path)
    ious = pa.array([float("nan"), *before["iou"].to_pylist()[1:]], pa.float64(), from_pandas=False)
    after = before.set_column(before.schema.get_field_index("iou"), before.schema.field("iou"), ious)
    pq.write_table(after, path)
    with pytest.raises(InputError, match="rows: expected those that were written"):
        table(study)


@pytest.mark.parametrize(
    ("other", "field"),
    [
        ("segany/tiny/ground_truth/eager/boxes/0-of-2.parquet", "variant: expected box_fill, found ground_truth"),
        ("segany/tiny/box_fill/eager/boxes/1-of-2.parquet", "shard: expected 0-of-2, found 1-of-2"),
        ("masks/tiny/box_fill/eager/boxes/0-of-2.parquet", "columns: expected"),
        ("prompts/tiny/boxes.parquet", "columns: expected"),
    ],
)
def test_another_file_in_its_place_is_refused(other: str, field: str, results: Path, study: Study) -> None:
    shutil.copy(results / other, results / SHARD)
    with pytest.raises(InputError, match=field) as caught:
        table(study)
    assert str(results / SHARD).endswith(str(caught.value).partition(":")[0])


def test_another_configuration_is_refused(results: Path, study: Study) -> None:
    sealed(results / SHARD, same, config_digest="0" * 64)
    with pytest.raises(InputError, match=r"config_digest: expected that of this study, .*, found 000000000000"):
        table(study)


def test_changed_metadata_is_refused(results: Path, study: Study) -> None:
    path = results / SHARD
    before = pq.read_table(path)
    metadata = {**before.schema.metadata, b"sambench.device": b"another one"}
    pq.write_table(before.replace_schema_metadata(metadata), path)
    with pytest.raises(InputError, match="metadata: expected what was written, found something else"):
        table(study)


def test_a_file_that_does_not_say_what_it_is_is_refused(results: Path, study: Study) -> None:
    path = results / SHARD
    pd.read_parquet(path).to_parquet(path, schema=SEGANY, index=False)
    with pytest.raises(InputError, match=r"says what it is, found none of it; delete it and run again: .*renames\.md"):
        table(study)


@pytest.mark.parametrize("stage", ["prompts", "instances"])
def test_what_was_made_of_other_prompts_or_instances_is_refused(stage: str, results: Path, study: Study) -> None:
    path = results / ("prompts/tiny/boxes.parquet" if stage == "prompts" else "datasets/tiny/instances.parquet")
    if stage == "prompts":
        sealed(path, lambda rows: rows[::-1])
    else:
        sealed(path, cell("area", 77.0))
    with pytest.raises(InputError, match=f"input.{stage}: expected the {stage} that are here, found others"):
        table(study)


def test_every_flipped_byte_is_refused_or_changes_nothing(results: Path) -> None:
    """One byte after another of every kind of file: refused in one line, or read as exactly what was written."""
    random = np.random.RandomState(5)
    kinds = {SHARD: SEGANY, "prompts/tiny/boxes.parquet": PROMPTS, "datasets/tiny/instances.parquet": INSTANCES}
    kinds |= {"boxes/tiny/mine.parquet": BOXES, SHARD.replace("segany", "masks"): MASKS}
    refused = 0
    for name, schema in kinds.items():
        path = results / name
        whole, truth = path.read_bytes(), read_parquet(path, schema)
        for place in random.choice(len(whole), 120, replace=False):
            broken = bytearray(whole)
            broken[place] ^= 1 << random.randint(8)
            path.write_bytes(broken)
            try:
                assert read_parquet(path, schema).equals(truth)
            except InputError as error:
                refused += 1
                assert str(error).startswith(str(path)) and "\n" not in str(error)
        path.write_bytes(whole[: len(whole) // 2])
        with pytest.raises(InputError, match="delete it and run again"):
            read_parquet(path, schema)
    assert refused > 300


def precision(root: Path, results: Path, study: Study) -> Path:
    """Run the stage average_precision on the masks of box_fill."""
    job = next(job for job in study.jobs() if job.variant == "box_fill")
    output = Path(job.precision_file(results))
    script(
        root, "average_precision", dataset="tiny", annotations=Path("instances.json"),
        images=results / "datasets/tiny/images.parquet", detectors={"mine": results / "boxes/tiny/mine.parquet"},
        class_agnostic=False, precision=output, masks=[Path(file) for file in job.mask_files(results, 2)],
        selections=["argmax"], config_digest=study.segany_digest("box_fill", "eager"),
    )  # fmt: skip
    return output


def test_masks_are_those_of_the_boxes(root: Path, results: Path, study: Study) -> None:
    assert pd.read_parquet(precision(root, results, study))["ap"].tolist() == [pytest.approx(100)]
    path = results / SHARD.replace("segany", "masks")
    whole = path.read_bytes()
    for change, message in (
        (lambda rows: rows.iloc[1:], "image_id: expected the 2 boxes of mine, each once, found 1 rows"),
        (cell("score", 0.1), "score: expected the 2 boxes of mine"),
        (cell("category_id", 3), "category_id: expected the 2 boxes of mine"),
        (cell("rle_counts", None), "rle_counts: expected a value where the status is ok"),
        (cell("rle_size", [30, 20]), "rle_size: expected the height and width of each image"),
        (cell("status", "out of memory"), "no value where the status is not ok"),
    ):
        sealed(path, change)
        with pytest.raises(InputError, match=message):
            precision(root, results, study)
        path.write_bytes(whole)


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("x", -3.0, "x: expected finite numbers of at least 0, found -3.0"),
        ("w", float("inf"), "w: expected finite numbers"),
        ("w", 400.0, "w: expected boxes inside their images"),
        ("score", float("inf"), "score: expected finite numbers"),
        ("image_id", 9, "image_id: expected images of the dataset, found 9"),
    ],
)
def test_impossible_boxes_are_refused(
    column: str, value: object, message: str, root: Path, results: Path, study: Study
) -> None:
    sealed(results / "boxes/tiny/mine.parquet", cell(column, value))
    with pytest.raises(InputError, match=message):
        precision(root, results, study)


def test_every_file_names_what_it_is_and_what_it_was_made_of(results: Path) -> None:
    shard = read_provenance(results / SHARD)
    expected = {"stage": "segany", "dataset": "tiny", "variant": "box_fill", "runtime": "eager", "group": "boxes"}
    assert {**expected, "shard": "0-of-2"}.items() <= shard.items()
    made_of = inputs(
        images=results / "datasets/tiny/images.parquet",
        instances=results / "datasets/tiny/instances.parquet",
        prompts=results / "prompts/tiny/boxes.parquet",
    )
    assert made_of.items() <= shard.items()
    for path in results.rglob("*.parquet"):
        facts = read_provenance(path)
        assert identity(path).items() <= facts.items() and identity(path), path
        assert any(name.startswith("input.") for name in facts), path


def test_the_same_rows_have_the_same_digest_however_they_are_stored(tmp_path: Path) -> None:
    rows = pa.table(
        {
            "a": pa.array([1, None, 3], pa.int32()),
            "b": pa.array(["x", None, "yz"]),
            "c": pa.array([[1.0, None], None, []], pa.list_(pa.float32())),
            "d": pa.array([True, None, False]),
        }
    )
    chunked = pa.concat_tables([rows.slice(0, 1), rows.slice(1, 2)])
    assert rows_digest(chunked) == rows_digest(rows)
    pq.write_table(rows, tmp_path / "t.parquet", row_group_size=1, use_dictionary=False)
    assert rows_digest(pq.read_table(tmp_path / "t.parquet")) == rows_digest(rows)
    for name, value in (("a", 2), ("b", "xy"), ("d", False)):
        others = rows.to_pylist()
        others[0][name] = value
        assert rows_digest(pa.Table.from_pylist(others, rows.schema)) != rows_digest(rows)
    moved = pa.Table.from_pylist(
        [{**row, "c": c} for row, c in zip(rows.to_pylist(), ([1.0], [None], []), strict=True)], rows.schema
    )
    assert rows_digest(moved) != rows_digest(rows)


def test_a_path_says_what_a_file_is() -> None:
    for stage, names in LAYOUTS:
        parts = [f"0-of-{len(names)}" if name == "shard" else f"{name}_1" for name in names]
        path = Path("some/segany/folder", stage, *parts).with_suffix(".parquet")
        assert identity(path) == {"stage": stage, **dict(zip(names, parts, strict=True))}
    assert identity(Path("elsewhere/file.parquet")) == {}


def test_what_is_written_is_checked_too(tmp_path: Path) -> None:
    boxes = pd.DataFrame({"image_id": [1], "category_id": [1], "x": -1.0, "y": 0.0, "w": 1.0, "h": 1.0, "score": 1.0})
    with pytest.raises(ValueError, match=r"boxes.parquet: x: finite numbers of at least 0: -1.0"):
        write_parquet(tmp_path / "boxes.parquet", boxes, BOXES, {})
    assert not list(tmp_path.iterdir())


def boxes_of(images: list[int]) -> pd.DataFrame:
    return pd.DataFrame({"image_id": images, "category_id": 1, "x": 0.0, "y": 0.0, "w": 1.0, "h": 1.0, "score": 0.5})


def test_a_file_written_in_batches_is_the_file_written_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "ROW_GROUP", 3)
    write_parquet(tmp_path / "whole.parquet", boxes_of([1, 2, 2, 3, 3, 3, 4]), BOXES, {"a": "b"})
    path = tmp_path / "batches.parquet"

    def batches(*parts: list[int]) -> Callable[[Sequence[int] | None], Iterator[pa.RecordBatch]]:
        made = [pa.RecordBatch.from_pandas(boxes_of(part), BOXES, preserve_index=False) for part in parts]
        return lambda columns: (batch if columns is None else batch.select(columns) for batch in made)

    parquet.write_batches(path, BOXES, {"a": "b"}, batches([1], [2, 2, 3], [], [3, 3, 4]))
    assert read_parquet(path, BOXES).equals(read_parquet(tmp_path / "whole.parquet", BOXES))
    assert read_provenance(path) == read_provenance(tmp_path / "whole.parquet")
    assert pq.ParquetFile(path).metadata.num_row_groups == 2
    parquet.write_batches(path, BOXES, {}, batches([]))
    assert read_parquet(path, BOXES).num_rows == 0 and len(list(tmp_path.iterdir())) == 2, "nothing else is left"


def test_a_large_file_is_verified_and_filtered_piece_by_piece(
    results: Path, study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every kind of file, as if it were large; changes in its second row group are found."""
    monkeypatch.setattr(parquet, "ROW_GROUP", 2)
    monkeypatch.setattr(parquet, "_VERIFIED", {})
    kinds = {SHARD: SEGANY, "prompts/tiny/boxes.parquet": PROMPTS, "datasets/tiny/instances.parquet": INSTANCES}
    kinds |= {"boxes/tiny/mine.parquet": BOXES, SHARD.replace("segany", "masks"): MASKS}
    for name, schema in kinds.items():
        whole = read_parquet(results / name, schema)
        pq.write_table(whole, results / name, row_group_size=2)
        monkeypatch.setattr(parquet, "LARGE", 0)
        assert read_parquet(results / name, schema).equals(whole.replace_schema_metadata(None)), name
        images = whole["image_id"].to_pylist()[-1:]
        some = read_parquet(results / name, schema, columns=schema.names[:3], where=("image_id", images))
        assert some.to_pylist() == [
            {key: row[key] for key in schema.names[:3]} for row in whole.to_pylist() if row["image_id"] in images
        ]
    raw(results / SHARD, lambda rows: rows.assign(iou=rows["iou"].to_numpy()[::-1]))
    with pytest.raises(InputError, match="rows: expected those that were written"):
        table(study)
    sealed(results / SHARD, lambda rows: pd.concat([rows, rows.iloc[:1]]))
    with pytest.raises(InputError, match="annotation_id, prompt: expected each once"):
        table(study)
    sealed(results / SHARD, cell("iou", 7.3))
    with pytest.raises(InputError, match="iou: expected numbers from 0 to 1"):
        table(study)


def test_masks_that_come_in_blocks_are_the_same(
    root: Path, results: Path, study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sambench.evaluate import segany

    job, shard = study.jobs()[1], "0-of-2"
    files = {"segany": (job.shard_files(results, 2)[0], SEGANY), "masks": (job.mask_files(results, 2)[0], MASKS)}
    before = {name: read_parquet(Path(file), schema).to_pandas() for name, (file, schema) in files.items()}
    monkeypatch.setitem(segany.BLOCK_ROWS, "cpu", 1)
    script(
        root, "segany", model=study.model(job.variant, job.runtime), threads=1, prompts=Path(job.prompts_file(results)),
        **{name: results / f"datasets/tiny/{name}.parquet" for name in ("images", "instances")}, shard=shard,
        selections=study["selections"], keep_unjudged=False, detectors={"mine": results / "boxes/tiny/mine.parquet"},
        **{name: Path(file) for name, (file, _) in files.items()},
    )  # fmt: skip
    after = {name: read_parquet(Path(file), schema).to_pandas() for name, (file, schema) in files.items()}
    pd.testing.assert_frame_equal(after["segany"], before["segany"])
    one, two = (each["masks"].sort_values(["selection", "detector"], kind="stable") for each in (before, after))
    pd.testing.assert_frame_equal(one.reset_index(drop=True), two.reset_index(drop=True))


@pytest.mark.parametrize("count", [0, 2])
def test_masks_that_are_all_missing_are_written(count: int, tmp_path: Path) -> None:
    """Of a detector that found nothing, or of a variant without weights: pandas takes their sizes for floats."""
    rows = {
        "image_id": 1,
        "category_id": 1,
        "score": 0.5,
        "detector": "x",
        "selection": "argmax",
        "status": "no weights",
    }
    frame = pd.DataFrame([dict.fromkeys(MASKS.names) | rows] * count, columns=MASKS.names).astype({"rle_size": float})
    file = tmp_path / "masks.parquet"
    write_parquet(file, frame, MASKS, {})
    assert read_parquet(file, MASKS)["rle_size"].to_pylist() == [None] * count

"""Mutants of everything that sambench reads: each is refused in one line, or means what an independent reader says.

    python tests/campaigns/fuzz.py                     1,000 mutants of each kind (make fuzz)
    python tests/campaigns/fuzz.py --mutants 100000 --minutes 600 --kind pictures

Kinds: annotations (against pycocotools), pictures (Pillow), configs (the JSON Schema; read as Snakemake reads them),
results (pycocotools), checkpoints (torch) and parquet (the file before). Mutant N of a seed is always the same; what
fails is kept under --keep and told with its number. The exit status is 1 when one fails. A kind runs in a process of
its own, so that a crash of a native library is a finding too.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import io
import json
import math
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from sambench.errors import InputError

TIDY = 8  # findings that are shown of a kind
Judge = Callable[[Path], str]
ODD: list[Any] = [
    *(None, True, False, -1, 0, 1, 2, 0.5, -0.0, 1e308, -1e308, math.nan, math.inf, 2**31, 2**63, 10**401),
    *("", "x", "1", "x" * 5000, "../../etc", "a\nb", "\x00", "ü", "$(touch pwned)", [], {}, [[]], [None], {"a": 1}),
]  # fmt: skip


class Wrong(Exception):
    """A mutant was accepted and does not mean what the oracle says."""


def mutate_bytes(data: bytes, random: np.random.Generator) -> bytes:
    """Bits flipped, pieces cut out, doubled, moved or replaced, or the end cut off."""
    found = bytearray(data)
    for _ in range(1 + int(random.integers(3))):
        start = int(random.integers(len(found) + 1))
        length = int(random.integers(1, 1 + min(64, len(found) or 1)))
        piece = found[start : start + length]
        way = int(random.integers(6))
        if way == 0 and found:
            found[start % len(found)] ^= 1 << int(random.integers(8))
        elif way == 1:
            del found[start : start + length]
        elif way == 2:
            found[start:start] = piece
        elif way == 3:
            found[start : start + length] = random.bytes(length)
        elif way == 4 and random.random() < 0.3:
            del found[start:]
        else:
            found[start : start + length] = bytes([int(random.choice([0, 255, 10, 34, 45, 57]))]) * length
    return bytes(found)


def mutate_value(document: Any, random: np.random.Generator) -> Any:
    """A document with one or two of its values changed, left out, doubled or exchanged."""
    found = copy.deepcopy(document)
    for _ in range(1 + int(random.random() < 0.3)):
        holder, key = _place(found, random)
        if holder is None:
            return ODD[int(random.integers(len(ODD)))]
        way = int(random.integers(8))
        value = holder[key]
        if way == 0:
            del holder[key]
        elif way == 1 and isinstance(holder, list):
            holder.insert(int(random.integers(len(holder) + 1)), copy.deepcopy(value))
        elif way in (2, 6, 7) and isinstance(value, (int, float)) and not isinstance(value, bool):
            scales = (-1, 0.5, 0.9, 1.1, 2, 10)
            holder[key] = min(max(value, -1e9), 1e9) * scales[int(random.integers(len(scales)))]
            if isinstance(value, int) and random.random() < 0.8:
                holder[key] = int(holder[key])
        elif way == 3:
            holder[key] = [value] if random.random() < 0.5 else str(value)
        else:
            holder[key] = copy.deepcopy(ODD[int(random.integers(len(ODD)))])
    return found


def _place(document: Any, random: np.random.Generator) -> tuple[Any, Any]:
    """A random value in a nest of lists and mappings: what holds it, and its key there."""
    holder, key, node = None, None, document
    while isinstance(node, (dict, list)) and node and (holder is None or random.random() < 0.85):
        keys = list(node) if isinstance(node, dict) else range(len(node))
        holder, key = node, keys[int(random.integers(len(keys)))]
        node = holder[key]
    return holder, key


# Annotations and results ------------------------------------------------------------------------------------------


def dataset(folder: Path) -> dict[str, Any]:
    """Three pictures with polygons, an uncompressed and a compressed RLE, and a crowd."""
    from PIL import Image
    from pycocotools import mask

    images, annotations = [], []
    for number in (1, 2, 3):
        pixels = np.full((20 + number, 30, 3), 40 * number, dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
        images.append({"id": number, "file_name": f"{number}.png", "width": 30, "height": 20 + number})
        shape = [5, 5, 15, 5, 15, 9 + number, 5, 9 + number]
        box = {"bbox": [5, 5, 10, 4 + number], "area": 40.0, "iscrowd": 0}
        annotations.append({"id": number, "image_id": number, "category_id": 1, "segmentation": [shape], **box})
        grid = np.zeros((20 + number, 30), dtype=np.uint8, order="F")
        grid[2:8, 3:9] = 1
        rle: Any = mask.encode(grid)
        rle["counts"] = rle["counts"].decode()
        if number == 2:
            runs = np.flatnonzero(np.diff(np.concatenate([[0], grid.ravel(order="F"), [2]]))).tolist()
            rle = {"size": [20 + number, 30], "counts": np.diff([0, *runs]).tolist()}
        row = {"id": 10 + number, "image_id": number, "category_id": 2, "iscrowd": int(number == 3)}
        annotations.append({**row, "segmentation": rle, "bbox": [3, 2, 6, 6], "area": 36})
    categories = [{"id": 1, "name": "one"}, {"id": 2, "name": "two"}]
    return {"images": images, "annotations": annotations, "categories": categories}


def write_mutant(document: Any, path: Path, random: np.random.Generator) -> None:
    """A mutant of the values, or of the bytes."""
    if random.random() < 0.75:
        path.write_text(json.dumps(mutate_value(document, random)), encoding="utf-8")
    else:
        path.write_bytes(mutate_bytes(json.dumps(document).encode(), random))


def annotations(folder: Path) -> tuple[Callable[[Path, np.random.Generator], None], Judge]:
    document = dataset(folder)

    def judge(path: Path) -> str:
        from pycocotools.coco import COCO

        from sambench import masks
        from sambench.datasets.coco import index
        from sambench.evaluate.score import read_truth
        from sambench.prompts import make_prompts

        found = index(path, folder)
        for kind in ("segm", "bbox"):
            read_truth(path, kind)
        make_prompts("fuzz", found.instances, ["box", "tight_box", "noisy_box", "mask_center", "random_3", "click_2"])
        truth = json.loads(path.read_text(encoding="utf-8-sig"))
        with contextlib.redirect_stdout(io.StringIO()):
            coco = COCO()
        by_id = {row["id"]: row for row in truth["annotations"]}
        for row in found.instances.itertuples(index=False):
            entry = dict(by_id[row.annotation_id])
            if isinstance(entry["segmentation"], list):  # what is degenerate is left out and counted
                entry["segmentation"] = [part for part in entry["segmentation"] if len(part) >= 6]
            height, width = (int(side) for side in row.rle_size)
            coco.imgs = {entry["image_id"]: {"height": height, "width": width}}
            expected = coco.annToMask(entry).astype(bool)
            if not np.array_equal(masks.decode_rle(row.rle_size, row.rle_counts), expected):
                raise Wrong(f"annotation {row.annotation_id}: another mask than pycocotools has")
        return "accepted"

    return lambda path, random: write_mutant(document, path, random), judge


def results(folder: Path) -> tuple[Callable[[Path, np.random.Generator], None], Judge]:
    document = dataset(folder)
    truth_file = folder / "truth.json"
    truth_file.write_text(json.dumps(document))
    found = [
        {
            "image_id": row["image_id"],
            "category_id": row["category_id"],
            "bbox": row["bbox"],
            "score": 0.9 - row["id"] / 50,
        }
        for row in document["annotations"]
    ]

    def judge(path: Path) -> str:
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval

        from sambench.evaluate.score import score

        ours = score(truth_file, path, "bbox")
        entries = json.loads(path.read_text(encoding="utf-8-sig"))
        if not entries:  # pycocotools cannot read an empty list
            return "accepted, not compared"
        with contextlib.redirect_stdout(io.StringIO()):
            truth = COCO(str(truth_file))
            plain = [{key: entry[key] for key in ("image_id", "category_id", "bbox", "score")} for entry in entries]
            evaluation = COCOeval(truth, truth.loadRes(plain), "bbox")
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
        if abs(evaluation.stats[0] - ours["ap"]) > 1e-9:
            raise Wrong(f"AP {ours['ap']}, pycocotools has {evaluation.stats[0]}")
        return "accepted"

    return lambda path, random: write_mutant(found, path, random), judge


# Pictures -----------------------------------------------------------------------------------------------------------


def pictures(folder: Path) -> tuple[Callable[[Path, np.random.Generator], None], Judge]:
    from PIL import Image

    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (24, 32, 3), dtype=np.uint8)
    files: list[bytes] = []
    ways = [("PNG", "RGB"), ("JPEG", "RGB"), ("PNG", "L"), ("JPEG", "L"), ("PNG", "P"), ("BMP", "RGB"), ("TIFF", "RGB")]
    for name, mode in [*ways, ("GIF", "P"), ("WEBP", "RGB"), ("PNG", "RGBA")]:
        file = io.BytesIO()
        Image.fromarray(pixels).convert(mode).save(file, name)
        files.append(file.getvalue())

    def make(path: Path, random: np.random.Generator) -> None:
        path.write_bytes(mutate_bytes(files[int(random.integers(len(files)))], random))

    def judge(path: Path) -> str:
        from sambench.datasets.inspection import Reading, look
        from sambench.datasets.pictures import read_image

        seen = look(str(path), 32, 24, Reading("auto", "", whole=True))
        ours = read_image(path, 32, 24, seen.view)
        if ours.shape != (24, 32, 3) or ours.dtype != np.uint8:
            raise Wrong(f"{ours.dtype} of {ours.shape}")
        with Image.open(path) as picture:
            if picture.mode not in ("RGB", "L", "P", "RGBA") or picture.getexif().get(274, 1) != 1:
                return "accepted, not compared"
            plain = picture.convert("RGBA") if "transparency" in picture.info else picture
            expected = np.array(plain.convert("RGB"))
        if not np.array_equal(ours, expected):
            raise Wrong("other pixels than Pillow has")
        return "accepted"

    return make, judge


# Configurations -----------------------------------------------------------------------------------------------------


def configs(folder: Path) -> tuple[Callable[[Path, np.random.Generator], None], Judge]:
    import yaml

    dataset(folder)
    (folder / "annotations.json").write_text("{}")
    document = {
        "results": "results",
        "weights": ["weights"],
        "shards": 2,
        "datasets": {"tiny": {"annotations": str(folder / "annotations.json"), "images": str(folder)}},
        "detectors": {"mine": {"family": "mine", "published": {"tiny": "boxes.json"}}},
        "prompt_groups": {"boxes": ["box", "mine"], "points": ["random_1", "click_2"]},
        "runtimes": {"half": {"device": "cpu", "dtype": "bfloat16"}},
        "statistics": {"resamples": 100, "seed": 0},
        "latency": {"images": 2, "boxes": 11, "warmup": 1, "min_seconds": 0},
        "throughput": {"images": None, "batches": [1, 2], "min_seconds": 0.5},
        "segevery": {"images": 2, "keep_masks": False, "settings": {"box_nms_thresh": 0.7, "points_per_batch": None}},
        "study": {
            "name": "tiny", "datasets": ["tiny"], "variants": ["box_fill", "mobilesam"], "runtimes": ["eager", "half"],
            "prompt_groups": ["boxes", "points"], "selections": ["argmax"], "samplers": ["grid_16"],
            "measures": ["latency", "efficiency"],
        },
    }  # fmt: skip

    def make(path: Path, random: np.random.Generator) -> None:
        if random.random() < 0.7:
            path.write_text(yaml.safe_dump(mutate_value(document, random), allow_unicode=True), encoding="utf-8")
        else:
            path.write_bytes(mutate_bytes(yaml.safe_dump(document).encode(), random))

    import jsonschema
    from snakemake.common.configfile import load_configfile
    from snakemake_interface_common.exceptions import WorkflowError

    import snakemake_logger_plugin_sambench  # noqa: F401 - as every Snakemake imports it
    from sambench.config import CONFIG_FOLDER, merge, read_registries, read_study
    from sambench.results.table import selected_tables

    registries = read_registries()
    kept = ("box_fill", "mobilesam", registries["efficiency"]["reference"], registries["segevery"]["detector"])
    registries["variants"] = {name: registries["variants"][name] for name in kept}  # the rest takes time only
    schema = json.loads((CONFIG_FOLDER / "schemas" / "config.schema.json").read_text())
    validator = jsonschema.Draft202012Validator(schema)

    def judge(path: Path) -> str:
        try:
            own = load_configfile(path)
        except WorkflowError as error:
            raise InputError(str(error)) from None
        whole = merge(copy.deepcopy(registries), json.loads(json.dumps(own, default=str)))
        study = read_study(whole)
        for table in selected_tables(study):
            table.sources(study)
            table.settings(study)
        for error in validator.iter_errors(whole):
            raise Wrong(f"the schema refuses {error.json_path}: {error.message[:100]}")
        return "accepted"

    return make, judge


# Checkpoints and Parquet --------------------------------------------------------------------------------------------


def checkpoints(folder: Path) -> tuple[Callable[[Path, np.random.Generator], None], Judge]:
    import torch
    from safetensors.torch import save_file

    state = {f"image_encoder.{number}.weight": torch.full((4, 5), float(number)) for number in range(6)}
    torch.save(state, folder / "zip.pt")
    torch.save({"model": state, "epoch": 3}, folder / "wrapped.pt")
    torch.save(state, folder / "old.pt", _use_new_zipfile_serialization=False)
    save_file(state, str(folder / "safe.safetensors"))
    files = [(folder / name).read_bytes() for name in ("zip.pt", "wrapped.pt", "old.pt", "safe.safetensors")]

    def judge(path: Path) -> str:
        from sambench.variants.loading import is_safetensors, read_checkpoint

        found = read_checkpoint(path, lambda names: True)
        if is_safetensors(path):
            from safetensors.torch import load_file

            expected: Any = load_file(path)
        else:
            with path.open("rb") as file:
                expected = torch.load(file, weights_only=True)
        flat = dict(_tensors(expected))
        for key, value in found.items():
            if not any(torch.equal(torch.nan_to_num(value), torch.nan_to_num(other)) for other in flat.values()):
                raise Wrong(f"{key}: a tensor that the file does not have")
        return "accepted"

    def _tensors(node: Any, where: str = "") -> Any:
        for key, value in node.items():
            if isinstance(value, torch.Tensor):
                yield f"{where}.{key}", value
            elif isinstance(value, dict):
                yield from _tensors(value, f"{where}.{key}")

    return lambda path, random: path.write_bytes(mutate_bytes(files[int(random.integers(len(files)))], random)), judge


def parquet(folder: Path) -> tuple[Callable[[Path, np.random.Generator], None], Judge]:
    import pandas as pd

    from sambench.parquet import read_parquet, write_parquet
    from sambench.records import SEGANY

    count = 50
    rows = pd.DataFrame(
        {
            "annotation_id": range(count), "image_id": np.arange(count) // 3, "category_id": 1, "area": 50.0,
            "iscrowd": False, "prompt": "box", "iou": np.linspace(0, 1, count), "iou_single": None,
            "iou_oracle": 1.0, "predicted_iou": np.float32(0.5), "selected_token": 1, "status": "ok",
        }
    )  # fmt: skip
    rows = rows.reindex(columns=SEGANY.names).astype({name: object for name in SEGANY.names if name not in rows})
    whole = folder / "segany/tiny/box_fill/eager/boxes/0-of-1.parquet"
    write_parquet(whole, rows, SEGANY, {"config_digest": "c"})
    before, data = read_parquet(whole, SEGANY), whole.read_bytes()

    def judge(path: Path) -> str:
        if not read_parquet(path, SEGANY).equals(before):
            raise Wrong("other rows than were written")
        return "accepted"

    return lambda path, random: path.write_bytes(mutate_bytes(data, random)), judge


KINDS = {
    "annotations": annotations,
    "pictures": pictures,
    "configs": configs,
    "results": results,
    "checkpoints": checkpoints,
    "parquet": parquet,
}
SUFFIX = {"annotations": ".json", "pictures": ".png", "configs": ".yaml", "results": ".json", "checkpoints": ".pt"}


def run_kind(kind: str, first: int, mutants: int, seconds: float, seed: int, keep: Path, state: Path) -> None:
    """Judge mutants of one kind; the counts and the findings so far are in `state`, which outlives a crash."""
    known = json.loads(state.read_text()) if state.is_file() else {"counts": {}, "findings": []}
    counts, findings = Counter(known["counts"]), known["findings"]
    end = time.monotonic() + seconds
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make, judge = KINDS[kind](folder)
        path = folder / f"mutant{SUFFIX.get(kind, '.parquet')}"
        if kind == "parquet":
            path = folder / "other/segany/tiny/box_fill/eager/boxes/0-of-1.parquet"
            path.parent.mkdir(parents=True)
        for number in range(first, mutants):
            if time.monotonic() > end:
                break
            with contextlib.suppress(UnicodeError):  # what cannot be written is no mutant
                make(path, np.random.default_rng([seed, sorted(KINDS).index(kind), number]))
            state.write_text(json.dumps({"counts": counts, "findings": findings, "number": number}))
            try:
                with contextlib.redirect_stderr(io.StringIO()):
                    counts[judge(path)] += 1
                continue
            except InputError as error:
                line = str(error)
                if "\n" not in line and len(line) <= 2500:
                    counts["refused in one line"] += 1
                    continue
                problem = f"a refusal of {len(line)} characters, {line.count(chr(10)) + 1} lines: {line[:100]!r}"
            except Wrong as error:
                problem = f"WRONG: {error}"
            except BaseException as error:
                if isinstance(error, KeyboardInterrupt):
                    raise
                problem = f"{type(error).__name__}: {' '.join(str(error).split())[:150]}"
            counts["failed"] += 1
            findings.append(f"{kind} {number}: {problem}")
            keep.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, keep / f"{kind}-{seed}-{number}{path.suffix}")
    state.write_text(json.dumps({"counts": counts, "findings": findings, "number": mutants}))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mutants", type=int, default=1000, help="of each kind")
    parser.add_argument("--minutes", type=float, default=10, help="for all kinds together")
    parser.add_argument("--kind", choices=KINDS, action="append")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first mutant")
    parser.add_argument("--keep", type=Path, default=Path(tempfile.gettempdir()) / "sambench-fuzz", help="for failures")
    parser.add_argument("--state", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    kinds = options.kind or list(KINDS)
    seconds = 60 * options.minutes / len(kinds)
    if options.state:
        (kind,) = kinds
        run_kind(kind, options.first, options.mutants, 60 * options.minutes, options.seed, options.keep, options.state)
        return 0
    failed = 0
    print(
        f"{'kind':<12} {'mutants':>8} {'refused':>8} {'accepted':>9} {'not compared':>13} {'failed':>7} {'seconds':>8}"
    )
    for kind in kinds:
        begin, first = time.monotonic(), options.first
        with tempfile.TemporaryDirectory() as name:
            state = Path(name) / "state.json"
            while True:
                left = seconds - (time.monotonic() - begin)
                command = [sys.executable, __file__, "--kind", kind, "--mutants", options.mutants, "--first", first]
                command += ["--minutes", max(0.0, left) / 60, "--seed", options.seed, "--keep", options.keep]
                done = subprocess.run([*map(str, command), "--state", str(state)], check=False)
                known = (
                    json.loads(state.read_text()) if state.is_file() else {"counts": {}, "findings": [], "number": 0}
                )
                if done.returncode == 0:
                    break
                # A native crash: told, and gone on after.
                known["findings"].append(f"{kind} {known['number']}: the process ended with {done.returncode}")
                known["counts"]["failed"] = known["counts"].get("failed", 0) + 1
                state.write_text(json.dumps(known))
                first = known["number"] + 1
                if first >= options.mutants or left <= 0:
                    break
        counts = known["counts"]
        columns = [sum(counts.values()), *(counts.get(n, 0) for n in ("refused in one line", "accepted"))]
        columns += [counts.get("accepted, not compared", 0), counts.get("failed", 0)]
        widths = (8, 8, 9, 13, 7)
        line = " ".join(f"{value:>{width}}" for value, width in zip(columns, widths, strict=True))
        print(f"{kind:<12} {line} {time.monotonic() - begin:>8.0f}", flush=True)
        failed += counts.get("failed", 0)
        for finding in known["findings"][:TIDY]:
            print(f"  {finding}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

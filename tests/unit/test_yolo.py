"""Detector-style variants: selection by hand; boxes and masks against the predictor and known results."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sambench.detectors.random_weights import randomize
from sambench.errors import BadWeights, InputError
from sambench.parity.models import load_cards
from sambench.variants import registry
from sambench.variants.base import Prompts, Runtime

if find_spec("ultralytics") is None:
    pytest.skip("the extra `yolo` is not installed", allow_module_level=True)

from sambench.variants import yolo

CPU = Runtime(device="cpu")


def masks(*boxes: tuple[int, int, int, int]) -> torch.Tensor:
    """Rectangles xyxy as masks of 20 x 30 pixels."""
    result = torch.zeros((len(boxes), 20, 30), dtype=torch.bool)
    for mask, (x0, y0, x1, y1) in zip(result, boxes, strict=True):
        mask[y0:y1, x0:x1] = True
    return result


def points(*prompts: list[tuple[float, float, int]]) -> tuple[np.ndarray, np.ndarray]:
    rows = np.array(prompts, np.float32)
    return rows[..., :2], rows[..., 2].astype(np.int64)


@pytest.fixture(scope="module")
def variant(shared: Path) -> yolo.YoloSegVariant:
    built = yolo.build_yolo_seg(CPU, config="yolov8n-seg.yaml")
    built.load_files([shared / "data/weights/yolov8n-seg_coco_dequantised.safetensors"])
    built.to_runtime()
    return built


@pytest.fixture(scope="module")
def photos(shared: Path) -> list[np.ndarray]:
    """Three photographs of different shapes."""
    files = sorted((shared / "data/coco_val2017_subset/val2017").glob("*.jpg"))
    shapes: dict[tuple[int, ...], np.ndarray] = {}
    for file in files[:20]:
        image = np.array(Image.open(file).convert("RGB"))
        shapes.setdefault(image.shape, image)
    return list(shapes.values())[:3]


def test_a_box_gets_the_mask_with_the_largest_ratio_in_the_order_of_the_boxes() -> None:
    small, large = (2, 2, 6, 6), (0, 0, 12, 12)
    boxes = np.array([large, small, (1, 1, 7, 7), small, (0.4, -0.4, 12.4, 11.6)], np.float32)
    assert yolo.select_by_box(masks(small, large, (20, 10, 30, 20)), boxes).tolist() == [1, 0, 0, 0, 1]


def test_a_box_that_no_mask_touches_gets_the_first() -> None:
    boxes = np.array([(15, 0, 18, 3), (40, 40, 50, 50), (5, 5, 5, 5), (-9, -9, -2, -2)], np.float32)
    assert yolo.select_by_box(masks((0, 0, 4, 4), (20, 10, 30, 20)), boxes).tolist() == [0, 0, 0, 0]
    assert yolo.select_by_box(masks((0, 0, 4, 4)), np.zeros((0, 4), np.float32)).tolist() == []


def test_points_unite_masks_and_a_negative_one_takes_its_own_away() -> None:
    large, small, other = found = masks((0, 0, 12, 12), (2, 2, 6, 6), (20, 10, 30, 20))
    prompts, labels = points(
        [(3, 3, 1), (25.9, 15.2, 1)],  # both masks of the first point, and the one of the second
        [(8, 8, 1), (3, 3, 0)],  # in the large mask the later point counts: nothing is painted
        [(3, 3, 0), (8, 8, 1)],  # large painted, then the small one wiped out
        [(3, 3, 0), (25, 15, -1)],  # padding hits nothing
        [(-5, 99, 1), (29, 19, 1)],  # outside: the nearest pixel
    )
    expected = [large | other, large & False, large & ~small, large & False, other]
    assert torch.equal(yolo.unite_by_points(found, prompts, labels), torch.stack(expected))


def test_fastsam_snaps_boxes_to_the_border() -> None:
    boxes = torch.tensor(
        [[19.0, 20, 80, 81], [21.0, 5, 180, 99], [-3.0, 12, 195, 104], [50.0, 50, 60, 60]],
        dtype=torch.float32,
    )
    yolo.FastSamVariant.adjust(None, boxes, (100, 200))  # type: ignore[arg-type]
    assert boxes.tolist() == [[0, 20, 80, 100], [21, 0, 180, 100], [0, 0, 200, 100], [50, 50, 60, 60]]


def test_an_image_without_instances_gives_empty_masks() -> None:
    untrained = yolo.build_fastsam(CPU, config="yolov8n-seg.yaml", size=64, confidence=1.0)
    untrained.to_runtime()
    (features,) = untrained.encode([np.zeros((30, 50, 3), np.uint8)])
    assert features.masks.shape == (0, 30, 50)
    for prompts in (
        Prompts(boxes=np.array([[0, 0, 9, 9], [1, 1, 4, 4]], np.float32)),
        Prompts(points=np.ones((2, 1, 2), np.float32), labels=np.ones((2, 1), np.int64)),
    ):
        candidates = untrained.decode(features, prompts)
        found = candidates.upsampling.masks(candidates.logits[:, 0])
        assert found.shape == (2, 30, 50)
        assert not found.any()
        assert candidates.scores.isnan().all()


def test_known_detections_of_the_converted_weights(variant: yolo.YoloSegVariant, shared: Path) -> None:
    known = json.loads((shared / "data/weights/verification.json").read_text())["models"]["seg"]
    files = {shared / "data" / image["file"]: image for image in known["images"]}
    there = {file: image for file, image in files.items() if file.is_file()}
    assert there, "none of the images of verification.json is here"
    other = yolo.build_yolo_seg(CPU, config="yolov8n-seg.yaml", overlap=0.65)
    other.module.load_state_dict(variant.module.state_dict())
    other.to_runtime()
    other.letterbox = other.library.LetterBox(640, auto=False)  # the file was made with a padded square
    for file, image in there.items():
        (found,) = other.encode([np.array(Image.open(file).convert("RGB"))])
        assert len(found.scores) == image["n"]
        for detection in image["detections"]:
            distances = (found.boxes - torch.tensor(detection["xyxy"])).abs().amax(dim=1)
            i = int(distances.argmin())
            assert distances[i] < 1
            assert float(found.scores[i]) == pytest.approx(detection["score"], abs=0.01)
            assert int(found.categories[i]) == detection["cls"]
            assert int(found.masks[i].sum()) == pytest.approx(detection["mask_area"], rel=0.02, abs=5)


def test_known_sums_of_the_synthetic_input(variant: yolo.YoloSegVariant, shared: Path) -> None:
    probe = json.loads((shared / "data/weights/verification.json").read_text())["models"]["seg"]["synthetic_probe"]
    y, x = torch.meshgrid(torch.arange(640.0), torch.arange(640.0), indexing="ij")
    pixels = torch.stack([0.5 + 0.5 * torch.sin(v) for v in (x / 17, y / 23, (x + y) / 31)])[None]
    with torch.inference_mode():
        maps = variant.image_embedding(pixels)
    predictions = maps["predictions"]
    assert list(predictions.shape) == probe["output_shape"]
    assert predictions[0, :4].mean(dim=1).tolist() == pytest.approx(probe["mean_xywh_px"], abs=0.01)
    assert float(predictions[0, 4:84].sum()) == pytest.approx(probe["sum_class_scores"], rel=1e-3)
    assert float(maps["prototypes"].std()) == pytest.approx(probe["proto_std"], rel=1e-3)


@pytest.mark.slow
def test_boxes_and_masks_are_those_of_the_predictor(
    variant: yolo.YoloSegVariant, photos: list[np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    from ultralytics import YOLO

    model = YOLO("yolov8n-seg.yaml", verbose=False)
    model.model.load_state_dict(variant.module.state_dict())
    for image, found in zip(photos, variant.encode(photos), strict=True):
        (expected,) = model.predict(
            np.ascontiguousarray(image[:, :, ::-1]), imgsz=640, retina_masks=True, device="cpu", verbose=False
        )
        kept = found.masks.any(dim=2).any(dim=1)
        assert len(expected.boxes) == kept.sum() > 0
        assert torch.allclose(found.boxes[kept], expected.boxes.xyxy, atol=0.01)
        assert torch.allclose(found.scores[kept], expected.boxes.conf, atol=1e-4)
        assert found.categories[kept].tolist() == expected.boxes.cls.long().tolist()
        different = (found.masks[kept] != expected.masks.data.bool()).float().mean()
        assert different < 1e-5
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name, end_to_end", [("yolo11n-seg", False), ("yolo26n-seg", True)])
def test_its_successors_are_those_of_the_predictor(
    name: str, end_to_end: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With random weights that find something; its head for one box per object has no suppression."""
    monkeypatch.chdir(tmp_path)
    card = load_cards()[name.replace("-", "_")]
    built = registry.build(card, CPU, random_weights=True)
    assert isinstance(built, yolo.YoloSegVariant) and built.end_to_end == end_to_end
    assert sum(value.numel() for value in built.module.parameters()) == pytest.approx(1e6 * (card.params_m or 0))
    randomize(built.module, loud=(".2.weight",))
    for key, value in built.module.named_parameters():
        if "one2one_cv2" in key and key.endswith(".2.bias"):
            value.fill_(9.0)  # sides of boxes, in cells: none is negative
    built.module.eval()
    from ultralytics import YOLO

    model = YOLO(f"{name}.yaml", verbose=False)
    model.model.load_state_dict(built.module.state_dict())
    image = np.random.default_rng(0).integers(0, 255, (90, 120, 3), dtype=np.uint8)
    built.letterbox = built.library.LetterBox(128, auto=True, stride=32)
    (found,) = built.encode([image])
    bgr = np.ascontiguousarray(image[:, :, ::-1])
    (expected,) = model.predict(bgr, imgsz=128, retina_masks=True, device="cpu", verbose=False, nms=not end_to_end)
    kept = found.masks.any(dim=2).any(dim=1)
    assert len(expected.boxes) == kept.sum() > 0
    assert torch.allclose(found.boxes[kept], expected.boxes.xyxy, atol=0.01)
    assert torch.allclose(found.scores[kept], expected.boxes.conf, atol=1e-3)
    assert (found.masks[kept] != expected.masks.data.bool()).float().mean() < 1e-3


def test_a_box_around_an_instance_selects_it(variant: yolo.YoloSegVariant, photos: list[np.ndarray]) -> None:
    (found,) = variant.encode(photos[:1])
    i = int(found.masks.sum(dim=(1, 2)).argmax())
    rows, columns = (torch.where(found.masks[i].any(dim=d))[0] for d in (1, 0))
    box = np.array([[columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]], np.float32)
    chosen = variant.decode(found, Prompts(boxes=box)).logits[0, 0]
    assert torch.equal(chosen, found.masks[i])


def test_bfloat16_keeps_boxes_where_they_are(variant: yolo.YoloSegVariant) -> None:
    half = yolo.build_yolo_seg(Runtime(device="cpu", dtype="bfloat16"), config="yolov8n-seg.yaml")
    half.module.load_state_dict(variant.module.state_dict())
    half.to_runtime()
    pixels = torch.rand((1, 3, 128, 128), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        exact = variant.image_embedding(pixels)["predictions"]
        found = half.image_embedding(pixels.bfloat16())["predictions"]
    assert found.dtype == torch.float32
    # The network's own rounding moves a centre by a fraction of a pixel; its coordinates are not rounded again.
    assert float((found[0, :2] - exact[0, :2]).abs().median()) < 0.3
    assert float((found[0, :4].bfloat16() != found[0, :4]).float().mean()) > 0.9


def save(path: Path, content: object) -> Path:
    torch.save(content, path)
    return path


def test_a_pickled_model_is_loaded(tmp_path: Path) -> None:
    donor = yolo.ultralytics().SegmentationModel("yolov8n-seg.yaml", nc=1, verbose=False)
    path = save(tmp_path / "FastSAM.pt", {"model": donor.half(), "ema": None, "train_args": {"imgsz": 1024}})
    expected = donor.float().state_dict()
    for _ in range(2):  # reading the first one makes its classes known to torch
        loaded = yolo.build_fastsam(CPU, config="yolov8n-seg.yaml")
        loaded.load_files([path])
        found = loaded.module.state_dict()
        assert all(torch.equal(value.float(), expected[key].float()) for key, value in found.items())
    other = yolo.build_yolo_seg(CPU, config="yolo11n-seg.yaml")
    with pytest.raises(BadWeights):
        other.load_files([path])


class Exploit:
    """A pickle of this would make a folder while it is read."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("content", ["code", "other", "garbage"])
def test_a_bad_pickle_is_refused_in_one_line(tmp_path: Path, content: str) -> None:
    variant = yolo.build_fastsam(CPU, config="yolov8n-seg.yaml")
    path = tmp_path / "FastSAM-s.pt"
    if content == "code":
        save(path, {"model": Exploit(tmp_path / "pwned")})
    elif content == "other":
        save(path, {"weights": torch.zeros(3)})
    else:
        path.write_bytes(b"<html>404</html>")
    with pytest.raises(InputError) as refusal:
        variant.load_files([path])
    assert "\n" not in str(refusal.value)
    assert str(path) in str(refusal.value)
    assert not (tmp_path / "pwned").exists()


def test_the_import_leaves_no_traces(tmp_path: Path) -> None:
    script = """
import os, cv2, numpy, torch, PIL.Image
def state():
    return (dict(os.environ).get("OMP_NUM_THREADS"), cv2.getNumThreads(), torch.get_num_threads(), torch.save,
            PIL.Image.open, str(numpy.array([1.5, 1e-9])), str(torch.tensor([1.5, 1e-9])))
before = state()
from sambench.variants.yolo import ultralytics
ultralytics()
assert state() == before, (before, state())
"""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("YOLO_", "OMP_"))}
    environment |= {"HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path), "TMPDIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]

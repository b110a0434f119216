"""`sambench import`: the masks of the COCO file are those of the source, to the pixel, and sambench indexes it."""

from __future__ import annotations

import base64
import io
import json
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from sambench.cli import app
from sambench.datasets import coco
from sambench.datasets.convert import convert
from sambench.errors import InputError
from sambench.masks import decode_rle

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

WIDTH, HEIGHT = 61, 47
POLYGON = np.array([10.25, 10.5, 50.75, 12.25, 45.5, 40.125, 20.375, 44.5, 12.25, 30.0]).reshape(-1, 2)
SECOND = np.array([2.0, 2.0, 8.0, 2.0, 5.0, 9.5]).reshape(-1, 2)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Two images, the second in a folder of its own."""
    folder = tmp_path / "images"
    (folder / "more").mkdir(parents=True)
    for name in ("a.png", "more/b.png"):
        Image.new("RGB", (WIDTH, HEIGHT)).save(folder / name)
    return folder


def drawn(*polygons: np.ndarray) -> np.ndarray:
    """The pixels of polygons, by pycocotools."""
    parts = [polygon.ravel().tolist() for polygon in polygons]
    return coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(parts, HEIGHT, WIDTH))).astype(bool)


def masks_of(source: Path, images: Path, **arguments: Any) -> dict[str, list[tuple[str, np.ndarray]]]:
    """Category and mask of each instance by image, as sambench indexes them and as the COCO API draws them."""
    output = images.parent / "instances.json"
    convert(source, images, output, **arguments)
    document = json.loads(output.read_text())
    names = {category["id"]: category["name"] for category in document["categories"]}
    files = {image["id"]: image["file_name"] for image in document["images"]}
    index, api = coco.index(output, images), COCO(str(output))
    assert index.warnings == {} and not any(index.counts.values())
    found: dict[str, list[tuple[str, np.ndarray]]] = {name: [] for name in files.values()}
    for row in index.instances.itertuples():
        mask = decode_rle(row.rle_size, row.rle_counts)
        np.testing.assert_array_equal(mask, api.annToMask(api.anns[row.annotation_id]).astype(bool))
        assert row.area == mask.sum()
        found[files[row.image_id]].append((names[row.category_id], mask))
    return found


def assert_same(found: list[tuple[str, np.ndarray]], expected: list[tuple[str, np.ndarray]]) -> None:
    assert [name for name, _ in found] == [name for name, _ in expected]
    for (_, mask), (_, other) in zip(found, expected, strict=True):
        np.testing.assert_array_equal(mask, other)


def yolo_line(number: int, polygon: np.ndarray) -> str:
    return f"{number} " + " ".join(repr(float(value)) for value in (polygon / [WIDTH, HEIGHT]).ravel())


@pytest.mark.parametrize("names", ["names: [cat, dog]", "names:\n  0: cat\n  1: dog"])
def test_yolo(images: Path, names: str) -> None:
    root = images.parent
    (root / "labels/more").mkdir(parents=True)
    (root / "data.yaml").write_text(names + "\n")
    box = "0 0.5 0.5 0.25 0.25"
    (root / "labels/a.txt").write_text(f"{yolo_line(1, POLYGON)}\n{box}\n{yolo_line(0, SECOND)}\n\n")
    (root / "labels/more/b.txt").write_text(yolo_line(0, POLYGON))
    found = masks_of(root / "data.yaml", images)
    assert_same(found["a.png"], [("dog", drawn(POLYGON)), ("cat", drawn(SECOND))])
    assert_same(found["more/b.png"], [("cat", drawn(POLYGON))])
    assert convert(root / "labels", images, root / "out.json").left_out == {"boxes without a mask": 1}
    (root / "labels/a.txt").write_text(box)
    (root / "labels/more/b.txt").unlink()
    with pytest.raises(InputError, match="expected at least one mask, found 1 boxes without a mask; sambench measures"):
        convert(root / "data.yaml", images, root / "out.json")
    (root / "labels/a.txt").write_text("0 0.5 x")
    with pytest.raises(InputError, match=r"a\.txt: line 1: expected a class and the corners x, y, \.\.\. as fractions"):
        convert(root / "data.yaml", images, root / "out.json")


def pixels(*boxes: tuple[int, int, int, int]) -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), dtype=bool)
    for x0, y0, x1, y1 in boxes:
        mask[y0:y1, x0:x1] = True
    return mask


def test_labelme(images: Path) -> None:
    folder = images.parent / "labelme"
    folder.mkdir()
    part = np.random.default_rng(0).integers(0, 2, (9, 11)).astype(np.uint8)
    part[0, 0] = part[-1, -1] = 1
    buffer = io.BytesIO()
    Image.fromarray(part * 255).save(buffer, "PNG")
    encoded = base64.b64encode(buffer.getvalue()).decode()
    shapes = [
        {"label": "dog", "points": POLYGON.tolist(), "shape_type": "polygon"},
        {"label": "cat", "points": [[20, 30], [5, 10]], "shape_type": "rectangle", "group_id": None},
        {"label": "cat", "points": [[3, 4], [13, 12]], "shape_type": "mask", "mask": encoded},
        {"label": "cat", "points": SECOND.tolist(), "group_id": 1},
        {"label": "cat", "points": (SECOND + 30).tolist(), "group_id": 1},
        {"label": "dog", "points": [[1, 1], [9, 9]], "shape_type": "line"},
        {"label": "dog", "points": [[30, 20], [33, 24]], "shape_type": "circle"},
    ]
    document = {"imagePath": "..\\images\\a.png", "shapes": shapes, "imageWidth": WIDTH, "imageHeight": HEIGHT}
    (folder / "a.json").write_text(json.dumps(document))
    placed = pixels()
    placed[4:13, 3:14] = part > 0
    ys, xs = np.mgrid[:HEIGHT, :WIDTH]
    circle = (xs + 0.5 - 30) ** 2 + (ys + 0.5 - 20) ** 2 <= 25
    found = masks_of(folder, images)
    expected = [("dog", drawn(POLYGON)), ("cat", pixels((5, 10, 20, 30))), ("cat", placed)]
    expected += [("cat", drawn(SECOND, SECOND + 30)), ("dog", circle)]
    assert_same(found["a.png"], expected)
    document["imagePath"] = "c.png"
    (folder / "c.json").write_text(json.dumps(document))
    with pytest.raises(
        InputError, match=r"c\.json: imagePath: expected an image in .*images, found c; name the folder"
    ):
        convert(folder, images, images.parent / "out.json")


@pytest.mark.parametrize("mode", ["grey", "16 bits", "palette", "colours", "files"])
def test_masks_as_images(images: Path, mode: str) -> None:
    folder = images.parent / "masks"
    folder.mkdir()
    objects = [pixels((3, 4, 20, 30)), pixels((30, 1, 50, 9), (40, 20, 44, 41))]
    labels = objects[0] * 1 + objects[1] * 7
    if mode == "grey":
        Image.fromarray(labels.astype(np.uint8)).save(folder / "a.png")
    elif mode == "16 bits":
        Image.fromarray((labels * 300).astype(np.uint16)).save(folder / "a.png")
    elif mode == "palette":
        labels[:2, :2] = 255  # the void of PASCAL VOC
        picture = Image.fromarray(labels.astype(np.uint8))  # putpalette makes indices of grey levels
        picture.putpalette([value for i in range(256) for value in (i, 255 - i, i)])
        picture.save(folder / "a.png")
    elif mode == "colours":
        colours = np.array([[0, 0, 0], [255, 0, 0], [255, 0, 1]], dtype=np.uint8)
        Image.fromarray(colours[objects[0] * 1 + objects[1] * 2]).save(folder / "a.png")
    else:
        (folder / "a").mkdir()
        for i, mask in enumerate(objects):
            Image.fromarray(mask.astype(np.uint8) * 255).save(folder / f"a/{i}.png")
    assert_same(masks_of(folder, images)["a.png"], [("object", mask) for mask in objects])
    assert convert(folder, images, images.parent / "out.json").left_out == {"images without a mask file": 1}


def test_panoptic(images: Path) -> None:
    masks = images.parent / "panoptic"
    masks.mkdir()
    thing, crowd, stuff = pixels((3, 4, 20, 30)), pixels((30, 1, 50, 9)), pixels((0, 40, WIDTH, HEIGHT))
    ids = thing * (258 + 65536 * 3) + crowd * 7 + stuff * 1000
    colours = np.stack([ids % 256, ids // 256 % 256, ids // 65536], axis=-1).astype(np.uint8)
    Image.fromarray(colours).save(masks / "a.png")
    segments = [
        {"id": 258 + 65536 * 3, "category_id": 18, "iscrowd": 0},
        {"id": 7, "category_id": 1, "iscrowd": 1},
        {"id": 1000, "category_id": 100, "iscrowd": 0},
    ]
    document = {
        "images": [{"id": 42, "file_name": "a.png", "width": WIDTH, "height": HEIGHT}],
        "annotations": [{"image_id": 42, "file_name": "a.png", "segments_info": segments}],
        "categories": [
            {"id": 18, "name": "dog", "isthing": 1},
            {"id": 1, "name": "person", "isthing": 1},
            {"id": 100, "name": "grass", "isthing": 0},
        ],
    }
    source = images.parent / "panoptic.json"
    source.write_text(json.dumps(document))
    assert_same(masks_of(source, images)["a.png"], [("dog", thing), ("person", crowd)])
    output = json.loads((images.parent / "instances.json").read_text())
    assert output["images"][0]["id"] == 42 and [row["iscrowd"] for row in output["annotations"]] == [0, 1]
    assert convert(source, images, images.parent / "out.json").left_out == {"segments of stuff": 1}
    del segments[1]
    source.write_text(json.dumps(document))
    with pytest.raises(InputError, match=r"a\.png: annotations\[0\]\.segments_info: expected colours of segments that"):
        convert(source, images, images.parent / "out.json")


def test_the_command(images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = images.parent
    (root / "labels").mkdir()
    (root / "labels/a.txt").write_text(yolo_line(3, POLYGON))
    with pytest.raises(SystemExit) as end:
        app(["import", str(root / "labels"), "--images", str(images), "-o", str(root / "out.json")])
    assert end.value.code in (None, 0)
    assert capsys.readouterr().out == f"2 images, 1 instances, 1 categories\n{root / 'out.json'}\n"
    assert json.loads((root / "out.json").read_text())["categories"] == [{"id": 4, "name": "3"}]
    (root / "nothing").mkdir()
    with pytest.raises(
        InputError, match="expected panoptic JSON, labels of YOLO, labelme, masks as images or videos, found"
    ):
        convert(root / "nothing", images, root / "out.json")


@pytest.fixture
def video(images: Path) -> dict[str, Any]:
    """A clip of two frames as UVO's dense annotations have it: one object in both frames, one in the second only."""
    first = coco_mask.encode(np.asfortranarray(pixels((3, 4, 20, 30)).astype(np.uint8)))
    runs = [len(list(run)) for _, run in groupby(pixels((5, 6, 22, 33)).T.ravel())]
    return {
        "videos": [{"id": 7, "width": WIDTH, "height": HEIGHT, "file_names": ["a.png", "more/b.png"], "ytid": "x"}],
        "categories": [{"id": 1, "name": "object"}],
        "annotations": [
            {
                "id": 1, "video_id": 7, "category_id": 1, "iscrowd": 0,
                "segmentations": [
                    {"size": [HEIGHT, WIDTH], "counts": first["counts"].decode()},
                    {"size": [HEIGHT, WIDTH], "counts": runs},
                ],
            },
            {"id": 2, "video_id": 7, "category_id": 1, "segmentations": [None, [POLYGON.ravel().tolist()]]},
        ],
    }  # fmt: skip


def test_videos(images: Path, video: dict[str, Any]) -> None:
    source = images.parent / "uvo.json"
    source.write_text(json.dumps(video))
    found = masks_of(source, images)
    assert_same(found["a.png"], [("object", pixels((3, 4, 20, 30)))])
    assert_same(found["more/b.png"], [("object", pixels((5, 6, 22, 33))), ("object", drawn(POLYGON))])


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("annotations/0/video_id", 8, r"annotations\[0\].video_id: expected an id listed under `videos`, found 8"),
        ("annotations/1/segmentations", [None], r"annotations\[1\].segmentations: expected 2, one for each .* found 1"),
        ("annotations/0/segmentations/0/size", [9, 9], r"segmentations\[0\].size: expected \[47, 61\], found \[9, 9\]"),
        ("annotations/0/segmentations/0/counts", 5, r"annotations\[0\].segmentations\[0\]: expected run lengths"),
        ("videos/0/file_names", None, r"videos\[0\]: expected id, width, height and file_names"),
    ],
)
def test_videos_that_are_none(images: Path, video: dict[str, Any], path: str, value: Any, message: str) -> None:
    *places, last = path.split("/")
    part: Any = video
    for place in places:
        part = part[int(place) if isinstance(part, list) else place]
    part[int(last) if isinstance(part, list) else last] = value
    source = images.parent / "uvo.json"
    source.write_text(json.dumps(video))
    with pytest.raises(InputError, match=message):
        convert(source, images, images.parent / "instances.json")

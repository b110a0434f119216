"""Reading COCO-format files: every encoding, every mistake that such files hold, and real ones."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from sambench.datasets import coco
from sambench.errors import InputError
from sambench.masks import decode_rle

# pycocotools.mask.decode predates NumPy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

WIDTH, HEIGHT = 6, 4
SQUARE = [1, 1, 3, 1, 3, 3, 1, 3]  # columns 1 and 2 of rows 1 and 2
SQUARE_MASK = np.zeros((HEIGHT, WIDTH), dtype=bool)
SQUARE_MASK[1:3, 1:3] = True
RUNS = [5, 2, 2, 2, 13]
COMPRESSED = coco_mask.frPyObjects({"size": [HEIGHT, WIDTH], "counts": RUNS}, HEIGHT, WIDTH)["counts"].decode()


def annotation(annotation_id: int, image_id: int = 1, **fields: Any) -> dict[str, Any]:
    row = {
        "id": annotation_id,
        "image_id": image_id,
        "category_id": 7,
        "bbox": [1, 1, 2, 2],
        "area": 4,
        "iscrowd": 0,
        "segmentation": [SQUARE],
    }
    return row | fields


def dataset(*annotations: dict[str, Any]) -> dict[str, Any]:
    """Two images, ids 2 and 1 in this order."""
    images = [{"id": i, "file_name": f"{i}.png", "width": WIDTH, "height": HEIGHT} for i in (2, 1)]
    return {"images": images, "annotations": list(annotations), "categories": [{"id": 7, "name": "thing"}]}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("coco") / "images"
    folder.mkdir()
    for i in (1, 2):
        Image.new("RGB", (WIDTH, HEIGHT), (i, 20, 30)).save(folder / f"{i}.png")
        Image.new("RGB", (40, 33)).save(folder / f"large_{i}.png")
    return folder


def read(document: Any, images: Path, **arguments: Any) -> coco.Index:
    path = images.parent / "instances.json"
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return coco.index(path, images, **arguments)


def masks_of(index: coco.Index) -> list[np.ndarray]:
    return [decode_rle(row.rle_size, row.rle_counts) for row in index.instances.itertuples()]


def test_columns_types_and_order(images: Path) -> None:
    rows = [
        annotation(9),
        annotation(4, image_id=2),
        annotation(3, bbox=[0.5, 1, 2, 2.25], area=3.5, iscrowd=1),
    ]
    index = read(dataset(*rows), images)
    assert index.images.drop(columns=["orientation", "scaling", "identity"]).to_dict("list") == {
        "image_id": [1, 2],
        "path": [str(images / "1.png"), str(images / "2.png")],
        "width": [WIDTH] * 2,
        "height": [HEIGHT] * 2,
        "judged_category_ids": [None] * 2,
    }
    assert index.images.dtypes[["image_id", "width", "height"]].tolist() == ["int64", "int32", "int32"]
    assert index.instances[["image_id", "annotation_id"]].to_numpy().tolist() == [[1, 3], [1, 9], [2, 4]]
    first = index.instances.iloc[0]
    assert first[["x", "y", "w", "h", "area", "iscrowd"]].tolist() == [0.5, 1.0, 2.0, 2.25, 3.5, True]
    assert first.rle_size == [HEIGHT, WIDTH] and first.rle_counts == COMPRESSED.encode()
    types = dict.fromkeys(("annotation_id", "image_id", "category_id"), "int64")
    types |= dict.fromkeys(("x", "y", "w", "h", "area"), "float64") | {"iscrowd": "bool"}
    assert {name: str(index.instances[name].dtype) for name in types} == types
    assert index.instances["frequency"].tolist() == [None] * 3
    assert index.counts == dict.fromkeys(coco.REASONS, 0)


def test_instances_carry_the_frequency_of_their_category(images: Path) -> None:
    document = dataset(annotation(1), annotation(2, category_id=8), annotation(3, category_id=9))
    document["categories"] = [{"id": i, "name": str(i), "frequency": f} for i, f in ((9, "c"), (7, "f"), (8, "r"))]
    assert read(document, images).instances["frequency"].tolist() == ["f", "r", "c"]


@pytest.mark.parametrize(
    "segmentation",
    [
        [SQUARE],
        [[1, 1, 2, 1, 2, 3, 1, 3], [2, 1, 3, 1, 3, 3, 2, 3]],  # in two parts
        {"size": [HEIGHT, WIDTH], "counts": RUNS},
        {"size": [HEIGHT, WIDTH], "counts": [5, 1, 0, 1, 2, 2, 13]},  # a run of nothing
        {"size": [HEIGHT, WIDTH], "counts": COMPRESSED},
    ],
)
def test_every_encoding_gives_the_mask(images: Path, segmentation: Any) -> None:
    (mask,) = masks_of(read(dataset(annotation(1, segmentation=segmentation)), images))
    np.testing.assert_array_equal(mask, SQUARE_MASK)


def test_a_polygon_is_clipped_at_the_border(images: Path) -> None:
    (mask,) = masks_of(read(dataset(annotation(1, segmentation=[[-5, -5, 2, -5, 2, 1, -5, 1]])), images))
    assert np.argwhere(mask).tolist() == [[0, 0], [0, 1]]


def test_what_the_protocol_leaves_out_is_counted(images: Path) -> None:
    rows = [
        annotation(1, area=0.99, segmentation=["not looked at"]),
        annotation(2, area=1),
        annotation(3, segmentation=[]),
        annotation(4, segmentation=None),
        annotation(5, segmentation=[[90, 90, 95, 90, 95, 95]]),
        annotation(6, segmentation={"size": [HEIGHT, WIDTH], "counts": [HEIGHT * WIDTH]}),
    ]
    del rows[2]["segmentation"]
    index = read(dataset(*rows), images)
    assert index.instances.annotation_id.tolist() == [2]
    expected = {coco.SKIPPED_AREA: 1, coco.SKIPPED_SEGMENTATION: 2, coco.SKIPPED_MASK: 2}
    assert index.counts == dict.fromkeys(coco.REASONS, 0) | expected


def test_what_is_left_out_of_the_file_comes_from_the_mask(images: Path) -> None:
    row = annotation(1)
    for name in ("area", "bbox", "iscrowd"):
        del row[name]
    index = read(dataset(row), images)
    assert index.instances.loc[0, ["x", "y", "w", "h", "area"]].tolist() == [1, 1, 2, 2, 4]
    assert not index.instances.iscrowd[0]
    assert index.counts == dict.fromkeys(coco.REASONS, 0) | {coco.COMPUTED_AREA: 1, coco.COMPUTED_BOX: 1}


def test_areas_of_more_than_255_masks(images: Path) -> None:
    rows = [annotation(i, area=None) for i in range(1, 301)]
    assert read(dataset(*rows), images).instances.area.tolist() == [4.0] * 300


def test_image_limit_takes_the_first_annotated_images(images: Path) -> None:
    index = read(dataset(annotation(1, image_id=2), annotation(2, image_id=2)), images, image_limit=1)
    assert index.images.image_id.tolist() == [2] and len(index.instances) == 2
    index = read(dataset(annotation(1, image_id=2), annotation(2, image_id=1)), images, image_limit=1)
    assert index.images.image_id.tolist() == [1] and index.instances.annotation_id.tolist() == [2]


def test_lvis_images_are_found_by_their_url(images: Path) -> None:
    document = dataset(annotation(1, image_id=2))
    for image in document["images"]:
        del image["file_name"]
        image["coco_url"] = f"http://images.cocodataset.org/images/{image['id']}.png"
        image |= {"neg_category_ids": [3], "not_exhaustive_category_ids": []}
    path = images.parent / "lvis.json"
    path.write_text(json.dumps(document))
    index = coco.index(path, images.parent)
    assert index.images.path.tolist() == [str(images.parent / "images" / f"{i}.png") for i in (1, 2)]


def test_what_lvis_judges_in_an_image_is_kept_also_where_no_instance_is(images: Path) -> None:
    """Annotations below one pixel or without a mask are no instances, but their categories are known; an area of 0
    beside a mask is one that is missing."""
    rows = [annotation(1, category_id=1), annotation(2, category_id=2, area=0.5), annotation(3, category_id=4, area=0)]
    document = dataset(*rows, annotation(4, category_id=3, segmentation=[]))
    document["categories"] = [{"id": i, "name": str(i)} for i in range(1, 8)]
    assert read(document, images).images.judged_category_ids.tolist() == [None, None]
    for image in document["images"]:
        image |= {"neg_category_ids": [7, 1], "not_exhaustive_category_ids": [5]}
    assert read(document, images).images.judged_category_ids.tolist() == [[1, 2, 3, 4, 7], [1, 7]]
    del document["images"][1]["neg_category_ids"]
    with pytest.raises(InputError, match=r"images\[1\]\.neg_category_ids: expected a list of category ids, found none"):
        read(document, images)


def test_categories_need_not_be_listed(images: Path) -> None:
    document = dataset(annotation(1, category_id=99))
    del document["categories"]
    assert read(document, images).instances.category_id.tolist() == [99]


def change(path: str, value: Any) -> Callable[[dict[str, Any]], None]:
    """A change of one value of the document; `...` removes it."""

    def apply(document: Any) -> None:
        *parents, last = [int(key) if key.isdigit() else key for key in path.split(".")]
        for key in parents:
            document = document[key]
        if value is ...:
            del document[last]
        else:
            document[last] = value

    return apply


RLE = {"size": [HEIGHT, WIDTH], "counts": RUNS}
MALFORMED = [
    ("images", ..., "images: expected a list, found none; give an annotation file in the COCO format"),
    ("annotations", {}, "annotations: expected a list, found {}; give an annotation"),
    ("annotations.0", 3, "annotations[0]: expected an object, found 3; give an annotation"),
    ("images.1.id", ..., "images[1].id: expected an integer of 64 bits, found none; add or correct it"),
    ("images.1.id", "1", "images[1].id: expected an integer of 64 bits, found '1'; add or correct it"),
    ("images.1.id", 2, "images[1].id: expected an id that no entry before it has, found 2 again; remove"),
    ("images.0.file_name", ..., "images[0].file_name: expected the name of an image file, found none; add"),
    ("images.0.width", ..., "images[0].width: expected an integer from 1 to 65535, found none; add"),
    ("images.0.height", 0, "images[0].height: expected an integer from 1 to 65535, found 0; add"),
    ("images.0.height", 4.5, "images[0].height: expected an integer from 1 to 65535, found 4.5; add"),
    ("annotations.1.id", 1, "annotations[1].id: expected an id that no entry before it has, found 1 again; "),
    (
        "annotations.1.id",
        2**63,
        "annotations[1].id: expected an integer of 64 bits, found 9223372036854775808",
    ),
    ("annotations.1.id", True, "annotations[1].id: expected an integer of 64 bits, found True; add"),
    (
        "annotations.1.image_id",
        5,
        "annotations[1].image_id: expected an id listed under `images`, found 5; add",
    ),
    (
        "annotations.1.category_id",
        8,
        "annotations[1].category_id: expected an id listed under `categories`, ",
    ),
    ("annotations.1.iscrowd", 2, "annotations[1].iscrowd: expected 0 or 1, found 2; correct it"),
    ("categories", [7], "categories: expected a list of objects, found [7]; list them"),
    (
        "annotations.1.bbox",
        [1, 2, 3],
        "annotations[1].bbox: expected x, y, width, height: 4 finite numbers, no ",
    ),
    ("annotations.1.bbox", [1, 2, "3", 4], ", no negative size, found [1, 2, '3', 4]; correct it, or leave"),
    ("annotations.1.bbox", [1, 2, 3, -4], ", no negative size, found [1, 2, 3, -4]; correct it, or leave"),
    ("annotations.1.bbox", [1, float("nan"), 3, 4], ", no negative size, found [1, nan, 3, 4]; correct it"),
    ("annotations.1.area", float("nan"), "annotations[1].area: expected a finite number of pixels, not neg"),
    (
        "annotations.1.area",
        -4,
        "annotations[1].area: expected a finite number of pixels, not negative, found -4; ",
    ),
    (
        "annotations.1.segmentation",
        "x",
        "annotations[1].segmentation: expected a list of polygons or an RLE obj",
    ),
    (
        "annotations.1.segmentation",
        SQUARE,
        "annotations[1].segmentation[0]: expected x0, y0, x1, y1, ...: an ev",
    ),
    (
        "annotations.1.segmentation",
        [SQUARE[:-1]],
        "an even count of at least 6 numbers, found 7 in [1, 1, 3, 1, ",
    ),
    (
        "annotations.1.segmentation",
        [SQUARE, [1, 1, 3, 3, 1, 2, 3]],
        "segmentation[1]: expected x0, y0, x1, y1, ...: an e",
    ),
    (
        "annotations.1.segmentation",
        [[[1, 1], [3, 1], [3, 3]]],
        "numbers, found 3 in [[1, 1], [3, 1], [3, 3]]; co",
    ),
    (
        "annotations.1.segmentation",
        [[[1, 1], [3]]],
        "numbers, found 2 in [[1, 1], [3]]; correct it or remove",
    ),
    (
        "annotations.1.segmentation",
        [["1", "1", "3", "1", "3", "3"]],
        "an even count of at least 6 numbers, found",
    ),
    (
        "annotations.1.segmentation.0.3",
        float("nan"),
        "pixels, finite and within 100000, found nan; correct it",
    ),
    ("categories.0.frequency", "often", "categories[0].frequency: expected r, c or f, found 'often'; correct it, or"),
    ("annotations.1.segmentation.0.3", 1e300, "pixels, finite and within 100000, found 1e+300; correct it"),
    (
        "annotations.1.segmentation",
        RLE | {"size": [WIDTH, HEIGHT]},
        ".size: expected [height, width] of the imag",
    ),
    (
        "annotations.1.segmentation",
        {"counts": RUNS},
        ".size: expected [height, width] of the image, [4, 6], found",
    ),
    (
        "annotations.1.segmentation",
        RLE | {"counts": [5, 2]},
        ".counts: expected runs that sum to height * width ",
    ),
    (
        "annotations.1.segmentation",
        RLE | {"counts": [5, 2]},
        "height * width = 24, found a sum of 7; encode the ",
    ),
    (
        "annotations.1.segmentation",
        RLE | {"counts": [-1, 25]},
        "height * width = 24, found [-1, 25]; encode the m",
    ),
    (
        "annotations.1.segmentation",
        RLE | {"counts": "52"},
        "height * width = 24, found '52'; encode the mask aga",
    ),
    (
        "annotations.1.segmentation",
        RLE | {"counts": "é"},
        "height * width = 24, found 'é'; encode the mask again",
    ),
    (
        "annotations.1.segmentation",
        {"size": [HEIGHT, WIDTH]},
        "height * width = 24, found none; encode the mask",
    ),
]


@pytest.mark.parametrize(("path", "value", "message"), MALFORMED)
def test_a_malformed_file_is_refused_in_one_line(images: Path, path: str, value: Any, message: str) -> None:
    document = copy.deepcopy(dataset(annotation(1), annotation(2)))
    change(path, value)(document)
    with pytest.raises(InputError) as refusal:
        read(document, images)
    line = str(refusal.value)
    assert message in line and line.startswith(f"{images.parent / 'instances.json'}: ")
    assert "; " in line and "\n" not in line and len(line) < 400


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "expected JSON, found Expecting property name"),
        ("", "expected JSON, found Expecting value"),
        ("[]", "expected a JSON object, found a list; give an annotation file in the COCO format"),
        ("[" * 100_000, "expected JSON, found maximum recursion depth exceeded"),
        (
            '{"images": [], "annotations": []}',
            "annotations: expected at least one instance with a mask, found none",
        ),
    ],
)
def test_no_dataset_at_all_is_refused(images: Path, text: str, message: str) -> None:
    with pytest.raises(InputError) as refusal:
        read(text, images)
    assert message in str(refusal.value) and "\n" not in str(refusal.value)


def test_a_file_that_is_not_there_is_refused(images: Path) -> None:
    with pytest.raises(InputError, match="expected a readable file, found No such file or directory; give"):
        coco.index(images.parent / "nothing.json", images)


def test_missing_images_are_refused_with_their_names(images: Path) -> None:
    document = dataset(annotation(1))
    document["images"] += [document["images"][0] | {"id": i, "file_name": f"{i}.png"} for i in range(3, 9)]
    with pytest.raises(InputError) as refusal:
        read(document, images)
    assert str(refusal.value) == (
        f"{images}: expected the 8 images of instances.json, found 6 missing: 3.png, 4.png, 5.png, ...; "
        "fetch them, or name the folder that file_name is relative to"
    )


POLYGONS = st.lists(
    st.lists(st.floats(-20, 60, width=32), min_size=6, max_size=16).filter(lambda numbers: len(numbers) % 2 == 0),
    min_size=1,
    max_size=3,
)


@settings(max_examples=50, deadline=None)
@given(polygons=POLYGONS)
def test_polygons_are_drawn_as_pycocotools_draws_them(images: Path, polygons: list[list[float]]) -> None:
    document = dataset(annotation(1, segmentation=polygons), annotation(2))
    for image in document["images"]:
        image |= {"width": 40, "height": 33, "file_name": f"large_{image['id']}.png"}
    index = read(document, images)
    expected = coco_mask.merge(coco_mask.frPyObjects(polygons, 33, 40))
    if coco_mask.decode(expected).any():
        row = index.instances.iloc[0]
        assert row.annotation_id == 1 and row.rle_counts == expected["counts"] and row.rle_size == [33, 40]
    else:
        assert index.counts[coco.SKIPPED_MASK] == 1


def test_real_coco_gives_the_masks_of_the_coco_api(shared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = shared / "data/coco_val2017_subset"
    path = folder / "annotations/instances_val2017.json"
    index = coco.index(path, folder / "val2017")
    assert (len(index.images), len(index.instances), index.instances.iscrowd.sum()) == (146, 1277, 15)
    assert index.counts == dict.fromkeys(coco.REASONS, 0)
    api = COCO(str(path))
    capsys.readouterr()
    for row in index.instances.itertuples():
        annotation = api.anns[row.annotation_id]
        assert row.rle_counts == api.annToRLE(annotation)["counts"]
        assert [row.x, row.y, row.w, row.h] == annotation["bbox"] and row.area == annotation["area"]
    for picture in index.images.head(5).itertuples():
        image = coco.read_image(picture.path, picture.width, picture.height)
        assert image.shape == (picture.height, picture.width, 3) and image.dtype == np.uint8


def test_real_lvis(shared: Path) -> None:
    folder = shared / "data/lvis_v0.5_val_subset"
    index = coco.index(folder / "lvis_v0.5_val_subset.json", folder / "val2017")
    assert (len(index.images), len(index.instances), index.instances.iscrowd.sum()) == (6, 16, 0)
    document = json.loads((folder / "lvis_v0.5_val_subset.json").read_text())
    of_category = {category["id"]: category["frequency"] for category in document["categories"]}
    expected = {row["id"]: of_category[row["category_id"]] for row in document["annotations"]}
    assert dict(zip(index.instances.annotation_id, index.instances.frequency, strict=True)) == expected
    assert set(index.instances.frequency) <= {"r", "c", "f"}


def gradient(width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    return (np.arange(height * width * 3).reshape(height, width, 3) * 3).astype(np.uint8)


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("RGB", [10, 120, 250]),
        ("RGBA", [10, 120, 250]),
        ("L", [102, 102, 102]),
        ("LA", [102, 102, 102]),
        ("P", [10, 120, 250]),
        ("1", [255, 255, 255]),
    ],
)
def test_colour_modes(tmp_path: Path, mode: str, expected: list[int]) -> None:
    picture = Image.new("RGB", (WIDTH, HEIGHT), (10, 120, 250))
    if mode == "P":
        picture = picture.quantize(2)
        picture.info["transparency"] = bytes([64, 128])  # Pillow warns about these, and tests fail on warnings
    elif mode == "1":
        picture = Image.new("1", (WIDTH, HEIGHT), 1)
    else:
        picture = picture.convert(mode)
        if mode.endswith("A"):
            picture.putalpha(7)
    picture.save(tmp_path / "x.png")
    image = coco.read_image(tmp_path / "x.png", WIDTH, HEIGHT)
    assert image.shape == (HEIGHT, WIDTH, 3) and image.dtype == np.uint8
    assert image.reshape(-1, 3).tolist() == [expected] * (WIDTH * HEIGHT)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_16_bits_keep_the_upper_8(tmp_path: Path, suffix: str) -> None:
    grey = np.array([[0, 255, 256], [32768, 65280, 65535]], dtype=np.uint16)
    Image.fromarray(grey).save(tmp_path / f"x.{suffix}")
    image = coco.read_image(tmp_path / f"x.{suffix}", 3, 2)
    assert image[..., 0].tolist() == [[0, 0, 1], [128, 255, 255]]
    assert (image == image[..., :1]).all()


def test_cmyk(tmp_path: Path) -> None:
    Image.new("CMYK", (16, 8), (0, 255, 255, 0)).save(tmp_path / "x.jpg", quality=100)
    image = coco.read_image(tmp_path / "x.jpg", 16, 8)
    assert image.shape == (8, 16, 3) and np.abs(image.astype(int) - [255, 0, 0]).max() <= 3


def test_exif_rotation_only_where_the_stored_size_does_not_fit(tmp_path: Path) -> None:
    pixels = gradient()
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned by 90 degrees clockwise
    Image.fromarray(pixels).save(tmp_path / "x.png", exif=exif)
    np.testing.assert_array_equal(coco.read_image(tmp_path / "x.png", WIDTH, HEIGHT), pixels)
    turned = coco.read_image(tmp_path / "x.png", HEIGHT, WIDTH)
    np.testing.assert_array_equal(turned, np.rot90(pixels, k=-1))
    exif[0x0112] = 3  # upside down, which does not exchange the sides
    Image.fromarray(pixels).save(tmp_path / "x.png", exif=exif)
    with pytest.raises(InputError, match="expected 4x6 as in the annotations, found 6x4"):
        coco.read_image(tmp_path / "x.png", HEIGHT, WIDTH)


def test_images_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    Image.fromarray(gradient()).save(path)
    with pytest.raises(InputError) as refusal:
        coco.read_image(path, HEIGHT, WIDTH)  # exchanged, and no EXIF says so
    assert str(refusal.value) == (
        f"{path}: size: expected 4x6 as in the annotations, found 6x4; use the images that the annotations were made on"
    )


@pytest.mark.parametrize("suffix", ["jpg", "png", "bmp"])
def test_broken_images_are_refused(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"x.{suffix}"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(path)
    whole = path.read_bytes()
    for kept in (len(whole) // 2, 3, 0):
        path.write_bytes(whole[:kept])
        with pytest.raises(InputError, match=r"expected a readable image, found .*; fetch the file again"):
            coco.read_image(path, 64, 64)
    path.unlink()
    with pytest.raises(InputError, match=r"expected a readable image, found .*No such file"):
        coco.read_image(path, 64, 64)


def test_32_bit_pixels_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.full((2, 3), 0.5, dtype=np.float32)).save(tmp_path / "x.tif")
    with pytest.raises(InputError, match="found pixels of 32 bits"):
        coco.read_image(tmp_path / "x.tif", 3, 2)

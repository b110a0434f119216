"""A sample of a large data set from a server on this machine: parts of an archive, images one by one, and faults."""

from __future__ import annotations

import io
import json
import re
import threading
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from test_downloads import IMPATIENT, PAGE, Handler, Server

from sambench.config import read_registries, read_study
from sambench.datasets import coco
from sambench.downloads.catalogue import Download, retrievals
from sambench.downloads.sample import Sample, chosen, fetch_sample
from sambench.downloads.store import Store, retrieve
from sambench.errors import InputError

COUNT, TAKEN = 30, 8
MEMBER = "annotations/instances_val2017.json"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield running
        running.over.set()
        running.shutdown()
        thread.join()


def picture(number: int, size: tuple[int, int] = (32, 24)) -> bytes:
    stream = io.BytesIO()
    noise = np.random.default_rng(number).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(noise).save(stream, "JPEG")
    return stream.getvalue()


def document(address: str) -> dict[str, Any]:
    box = {"segmentation": [[2, 2, 12, 2, 12, 9, 2, 9]], "bbox": [2, 2, 10, 7], "area": 70, "iscrowd": 0}
    return {
        "images": [
            {
                "id": i,
                "file_name": f"{i:012}.jpg",
                "coco_url": f"{address}/val2017/{i:012}.jpg",
                "width": 32,
                "height": 24,
            }
            for i in range(1, COUNT + 1)
        ],
        "annotations": [{"id": i, "image_id": i, "category_id": 1, **box} for i in range(1, COUNT + 1)],
        "categories": [{"id": 1, "name": "thing"}],
    }


def archive(content: bytes) -> bytes:
    """The member between two large ones that nobody wants."""
    stream = io.BytesIO()
    noise = np.random.default_rng(0).bytes(400_000)
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("annotations/captions_val2017.json", noise)
        packed.writestr(MEMBER, content)
        packed.writestr("annotations/person_keypoints_val2017.json", noise)
    return stream.getvalue()


def parts(content: bytes, upto: int | None = None) -> Callable[[Handler], None]:
    """A server that gives parts of a file, also its end."""

    def answer(handler: Handler) -> None:
        match = re.fullmatch(r"bytes=(\d*)-(\d*)", handler.headers.get("Range", ""))
        if match is None:
            handler.reply(200, content)
            return
        first, last = match[1], match[2]
        start = int(first) if first else max(len(content) - int(last), 0)
        end = min(int(last) + 1 if first and last else len(content), len(content))
        body = content[start:end]
        facts = {"Content_Range": f"bytes {start}-{end - 1}/{len(content)}", "Content_Length": len(body)}
        handler.reply(206, body[:upto], **facts)

    return answer


@pytest.fixture
def tree(server: Server) -> Server:
    """A server with the layout of COCO's."""
    packed = archive(json.dumps(document(server.url)).encode())
    server.answers["/annotations.zip"] = parts(packed)
    for i in range(1, COUNT + 1):
        server.answers[f"/val2017/{i:012}.jpg"] = lambda handler, i=i: handler.serve(picture(i))
    return server


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "cache", offline=False, policy=IMPATIENT)


@pytest.fixture
def sample(tree: Server, tmp_path: Path) -> Sample:
    folder = tmp_path / "mini"
    return Sample([f"{tree.url}/annotations.zip"], MEMBER, TAKEN, folder / "instances.json", folder / "images")


def asked(server: Server, end: str = ".jpg") -> list[str]:
    return [request.path for request in server.requests if request.path.endswith(end)]


def test_the_rule() -> None:
    # sha256("1") = 6b86..., "2" = d473..., "3" = 4e07..., "4" = 4b22..., "5" = ef2d...
    assert chosen([1, 2, 3, 4, 5], 2) == [3, 4]
    assert chosen([5, 4, 3, 2, 1], 3) == [1, 3, 4], "a larger sample contains the smaller one"
    assert chosen([7], 9) == [7]


def test_only_what_is_wanted_travels(tree: Server, store: Store, sample: Sample) -> None:
    fetch_sample(sample, store)
    wanted = chosen(range(1, COUNT + 1), TAKEN)
    assert sorted(path.name for path in sample.folder.iterdir()) == [f"{i:012}.jpg" for i in wanted]
    index = coco.index(sample.annotations, sample.folder)
    assert index.images["image_id"].tolist() == wanted and len(index.instances) == TAKEN
    ranges = [request.headers["Range"] for request in tree.requests if request.path == "/annotations.zip"]
    assert all(ranges) and len(ranges) <= 3
    tree.requests.clear()
    other = replace(sample, images=TAKEN + 1, annotations=sample.annotations.with_name("more.json"))
    fetch_sample(other, store)
    assert len(tree.requests) == 1, "the archive is in the cache and eight images are here"


def test_an_interrupted_sample_goes_on(tree: Server, store: Store, sample: Sample) -> None:
    wanted = chosen(range(1, COUNT + 1), TAKEN)
    path, honest = f"/val2017/{wanted[4]:012}.jpg", tree.answers[f"/val2017/{wanted[4]:012}.jpg"]
    tree.answers[path] = lambda handler: handler.reply(404)
    with pytest.raises(
        InputError, match=rf"expected {TAKEN} images, found {wanted[4]:012}.jpg: HTTP 404.*; run it again"
    ):
        fetch_sample(sample, store)
    assert not sample.annotations.exists(), "what is not whole is no data set"
    tree.answers[path] = honest
    tree.requests.clear()
    fetch_sample(sample, store)
    assert [request.path for request in tree.requests] == [path]
    assert sample.annotations.is_file()


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        (lambda handler: handler.serve(picture(1, (16, 24))), "an image of 32x24 expected, 16x24 found"),
        (lambda handler: handler.serve(b"no picture at all"), "no image found"),
        (lambda handler: handler.reply(200, PAGE, Content_Type="text/html"), "a web page"),
        (lambda handler: handler.serve(picture(1)[:-200]), "no image found"),
    ],
)
def test_what_is_not_the_image_is_refused(
    tree: Server, store: Store, sample: Sample, answer: Callable[[Handler], None], found: str
) -> None:
    first = chosen(range(1, COUNT + 1), TAKEN)[0]
    tree.answers[f"/val2017/{first:012}.jpg"] = answer
    with pytest.raises(InputError, match=found):
        fetch_sample(sample, store)
    assert not (sample.folder / f"{first:012}.jpg").exists()


def test_a_connection_that_breaks_is_tried_again(tree: Server, store: Store, sample: Sample) -> None:
    first = chosen(range(1, COUNT + 1), TAKEN)[0]
    path, content, broken = f"/val2017/{first:012}.jpg", picture(first), [True, True]

    def answer(handler: Handler) -> None:
        handler.serve(content, upto=100 if broken and broken.pop() else None)

    tree.answers[path] = answer
    packed, cuts = archive(json.dumps(document(tree.url)).encode()), [True]
    tree.answers["/annotations.zip"] = lambda h: parts(packed, 50 if cuts and cuts.pop() else None)(h)
    fetch_sample(sample, store)
    assert (sample.folder / f"{first:012}.jpg").read_bytes() == content


def test_a_server_without_parts_gives_the_whole_archive(
    tree: Server, store: Store, sample: Sample, tmp_path: Path
) -> None:
    packed = archive(json.dumps(document(tree.url)).encode())
    tree.answers["/annotations.zip"] = lambda handler: handler.reply(200, packed)
    with pytest.raises(InputError, match=r"expected an archive that holds it, found .*range"):
        fetch_sample(sample, store)
    whole = Download(
        "all", "annotations", "annotations.zip", [f"{tree.url}/annotations.zip"], tmp_path / "all", unpack="annotations"
    )
    fetch_sample(replace(sample, whole=whole), store)
    assert sample.annotations.is_file()


def test_another_archive_is_told(tree: Server, store: Store, sample: Sample) -> None:
    with pytest.raises(InputError, match=r"expected an archive that holds it, found .*other\.json"):
        fetch_sample(replace(sample, member="annotations/other.json"), store)
    with pytest.raises(InputError, match="no network allowed"):
        fetch_sample(sample, replace(store, offline=True))


def test_a_study_of_a_sample(tree: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    config = read_registries()
    entry = config["datasets"]["coco_mini"]
    entry["sample"] = {**entry["sample"], "zip": [f"{tree.url}/annotations.zip"], "images": TAKEN}
    config["study"] = {**config["study"], "datasets": ["coco_mini"]}
    study = read_study(config)
    retrieval = retrievals(study)["datasets/coco_mini"]
    assert retrieval.wanted and retrieval.missing(study)
    lines = retrieve(retrieval, study.weights_folders, str(tmp_path / "cache"))
    assert lines == ["data/coco_mini/instances.json: here"] and not retrieval.missing(study)
    tree.requests.clear()
    retrieve(retrieval, study.weights_folders, str(tmp_path / "cache"))
    assert tree.requests == []


def test_real_photographs(server: Server, store: Store, tmp_path: Path, shared: Path) -> None:
    """A tree made from 146 images of COCO val2017."""
    source = shared / "data" / "coco_val2017_subset"
    real = json.loads((source / "annotations" / "instances_val2017.json").read_text())
    for image in real["images"]:
        image["coco_url"] = f"{server.url}/val2017/{image['file_name']}"
        server.answers[f"/val2017/{image['file_name']}"] = lambda handler, name=image["file_name"]: handler.serve(
            (source / "val2017" / name).read_bytes()
        )
    server.answers["/annotations.zip"] = parts(archive(json.dumps(real).encode()))
    mini = Sample([f"{server.url}/annotations.zip"], MEMBER, 20, tmp_path / "mini.json", tmp_path / "images")
    fetch_sample(mini, store)
    index = coco.index(mini.annotations, mini.folder)
    assert index.images["image_id"].tolist() == chosen((image["id"] for image in real["images"]), 20)

"""Resizing, padding, scaling of prompts and cropping at odd sizes in both orientations, without the networks.

What stands on the other side is the code of segment-anything and torchvision where it is that of the official
predictor, else the arithmetic of the official file, which each test names.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from segment_anything.modeling import Sam
from segment_anything.utils.transforms import ResizeLongestSide
from torch import nn
from torchvision.transforms import Normalize, Resize, ToTensor, v2
from torchvision.transforms.functional import resize, to_pil_image

from sambench.parity.fixtures import formula_image
from sambench.variants.base import Features, Prompts, Runtime
from sambench.variants.efficient_sam import EfficientSamVariant
from sambench.variants.efficient_tam import EfficientTamVariant
from sambench.variants.neural import NeuralVariant
from sambench.variants.sam import SamVariant
from sambench.variants.sam2 import Sam2Variant, Sam3Variant
from sambench.variants.sam_efficient import EfficientViTSamVariant, NanoSamVariant
from sambench.variants.stretch import StretchVariant

CPU = Runtime(device="cpu")
SIZES = [(427, 640), (640, 427), (425, 640), (640, 425), (333, 500), (500, 333), (1365, 2047), (61, 47)]
BOX = np.array([[3.5, 7.25, 40.125, 44.75]], np.float32)
LOGITS = torch.randn(1, 2, 256, 256, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module", params=SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
def image(request: pytest.FixtureRequest) -> np.ndarray:
    return formula_image(*request.param)


@pytest.fixture(scope="module")
def official_sam() -> Sam:
    """segment-anything's model with nothing in it but its way of padding and cropping."""
    encoder = nn.Identity()
    encoder.img_size = 1024
    return Sam(encoder, nn.Identity(), nn.Identity())


@pytest.fixture(scope="module")
def sam() -> SamVariant:
    return SamVariant(nn.Identity(), CPU)


def features_of(variant: NeuralVariant, image: np.ndarray) -> Features:
    return Features({}, *variant.sizes(variant.prepare(image)))


def scaled_box(variant: SamVariant, features: Features) -> np.ndarray:
    *_, boxes = variant.tensor_points(Prompts(boxes=BOX), variant.prompt_scale(features))
    assert boxes is not None
    return boxes.numpy()


def test_sam(image: np.ndarray, sam: SamVariant, official_sam: Sam) -> None:
    transform, size = ResizeLongestSide(1024), image.shape[:2]
    resized = torch.as_tensor(transform.apply_image(image)).permute(2, 0, 1)[None].contiguous()
    assert torch.equal(sam.pixels(sam.prepare(image)), official_sam.preprocess(resized))
    features = features_of(sam, image)
    assert np.array_equal(scaled_box(sam, features), transform.apply_boxes(BOX, size).astype(np.float32))
    expected = official_sam.postprocess_masks(LOGITS, tuple(resized.shape[-2:]), size)
    assert torch.equal(sam.upsampling(features).logits(LOGITS[0]), expected[0])


@pytest.mark.parametrize("side", [512, 1024])
def test_efficientvit_sam(image: np.ndarray, official_sam: Sam, side: int) -> None:
    """efficientvit/models/efficientvit/sam.py: pixels at `side`, prompts and masks in the frame of 1024."""
    variant, size = EfficientViTSamVariant(nn.Identity(), CPU, pixel_size=side), image.shape[:2]
    mean, std = ([v / 255 for v in values] for values in ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375)))
    target = ResizeLongestSide.get_preprocess_shape(*size, side)
    pixels = Normalize(mean, std)(ToTensor()(np.array(resize(to_pil_image(image), list(target)))))
    expected = F.pad(pixels, (0, side - target[1], 0, side - target[0]))
    torch.testing.assert_close(variant.pixels(variant.prepare(image))[0], expected, rtol=0, atol=1e-6)
    features, transform = features_of(variant, image), ResizeLongestSide(1024)
    assert np.array_equal(scaled_box(variant, features), transform.apply_boxes(BOX, size).astype(np.float32))
    frame = ResizeLongestSide.get_preprocess_shape(*size, 1024)
    assert torch.equal(
        variant.upsampling(features).logits(LOGITS[0]), official_sam.postprocess_masks(LOGITS, frame, size)[0]
    )


def test_nano_sam(image: np.ndarray) -> None:
    """nanosam/utils/predictor.py: sizes cut to integers, one scale for both axes, the 256 map cropped."""
    variant, (height, width) = NanoSamVariant(nn.Identity(), CPU), image.shape[:2]
    picture = Image.fromarray(image)
    aspect = picture.width / picture.height
    new_width, new_height = (1024, int(1024 / aspect)) if aspect >= 1 else (int(1024 * aspect), 1024)
    resized = torch.from_numpy(np.array(picture.resize((new_width, new_height)))).permute(2, 0, 1).float()
    expected = torch.zeros(1, 3, 1024, 1024)
    mean, std = (torch.tensor(v)[:, None, None] for v in ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375)))
    expected[0, :, :new_height, :new_width] = (resized - mean) / std
    assert torch.equal(variant.pixels(variant.prepare(image)), expected)
    features = features_of(variant, image)
    np.testing.assert_allclose(scaled_box(variant, features), BOX * (1024 / max(height, width)), rtol=1e-6)
    crop_x, crop_y = (256, int(256 * height / width)) if width > height else (int(256 * width / height), 256)
    expected = F.interpolate(LOGITS[:, :, :crop_y, :crop_x], (height, width), mode="bilinear")
    assert torch.equal(variant.upsampling(features).logits(LOGITS[0]), expected[0])


@pytest.mark.parametrize(
    ("kind", "side"),
    [(Sam2Variant, 1024), (EfficientTamVariant, 1024), (EfficientTamVariant, 512)],
)
def test_sam2_and_its_relatives(image: np.ndarray, kind: type[StretchVariant], side: int) -> None:
    """sam2/utils/transforms.py: stretched with a filter, prompts as fractions of each side."""
    variant, (height, width) = kind(nn.Identity(), CPU, pixel_size=side), image.shape[:2]
    expected = Normalize(variant.mean, variant.std)(Resize((side, side))(ToTensor()(image)))
    torch.testing.assert_close(variant.pixels(variant.prepare(image))[0], expected, rtol=0, atol=2e-6)
    corners, _ = variant.labelled_points(features_of(variant, image), Prompts(boxes=BOX))
    fractions = torch.tensor(BOX).view(1, 2, 2) / torch.tensor([width, height])
    torch.testing.assert_close(corners, fractions * side, rtol=1e-6, atol=1e-5)


def test_sam3(image: np.ndarray) -> None:
    """sam3/model/sam3_image_processor.py: whole pixels are resized to whole pixels."""
    variant = Sam3Variant(nn.Identity(), CPU, pixel_size=1008)
    whole = v2.functional.resize(v2.functional.to_image(image), [1008, 1008])
    expected = Normalize([0.5] * 3, [0.5] * 3)(v2.functional.to_dtype(whole, torch.float32, scale=True))
    found = variant.pixels(variant.prepare(image))[0]
    # Where torchvision has no kernel for whole numbers it rounds floats: one level apart at most.
    torch.testing.assert_close(found, expected, rtol=0, atol=1 / 127.5 + 1e-6)
    levels = (found + 1) * 127.5
    torch.testing.assert_close(levels, levels.round(), rtol=0, atol=1e-4)


def test_efficient_sam(image: np.ndarray) -> None:
    """efficient_sam/efficient_sam.py: stretched without a filter."""
    variant, (height, width) = EfficientSamVariant(nn.Identity(), CPU), image.shape[:2]
    pixels = F.interpolate(ToTensor()(image)[None], (1024, 1024), mode="bilinear")
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    torch.testing.assert_close(variant.pixels(variant.prepare(image)), (pixels - mean) / std, rtol=0, atol=1e-6)
    corners, _ = variant.labelled_points(features_of(variant, image), Prompts(boxes=BOX))
    expected = torch.tensor(BOX).view(1, 2, 2) * 1024 / torch.tensor([width, height])
    torch.testing.assert_close(corners, expected, rtol=1e-6, atol=1e-5)

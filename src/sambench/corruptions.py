"""Images as cameras, weather and storage spoil them: the 15 common corruptions of ImageNet-C, JPEG quality and scale.

A corruption is a function of pixels, severity (1 to 5) and a random stream; nothing is stored. The definitions and all
parameters are those of Hendrycks and Dietterich (arXiv 1903.12261) in the form that takes images of any size
(Michaelis et al., arXiv 1907.07484; the package imagecorruptions, with which a test compares them). That package itself
draws from NumPy's global stream, which threads share, and brings a second OpenCV.

    corrupt(pixels, Change("fog", 3), stream("41", change), textures)

Two facts of the published code are kept, since all published figures have them: `glass_blur` copies pixels where its
text says swap, and values are cut to whole numbers, not rounded.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image
from scipy import ndimage

Random = np.random.RandomState
Textures = Sequence[Path]

NOISE = ("gaussian_noise", "shot_noise", "impulse_noise")
BLUR = ("defocus_blur", "glass_blur", "motion_blur", "zoom_blur")
WEATHER = ("snow", "frost", "fog", "brightness")
DIGITAL = ("contrast", "elastic_transform", "pixelate", "jpeg_compression")
COMMON = (*NOISE, *BLUR, *WEATHER, *DIGITAL)
CLEAN, JPEG_QUALITY, SCALE = "clean", "jpeg_quality", "scale"
FROST = "frost"  # the one that needs photographs


class Change(NamedTuple):
    """What is done to an image. level: the severity, the quality of a JPEG, or the factor of both sides."""

    name: str
    level: float = 0.0


def stream(image: str, change: Change) -> Random:
    """The random stream of one image and change: the same whatever else is computed, in any order or thread."""
    text = f"{image}/{change.name}/{change.level:g}"
    return Random(int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "little"))


def corrupt(pixels: np.ndarray, change: Change, random: Random, textures: Textures = ()) -> np.ndarray:
    """(H, W, 3) uint8 RGB -> the same, changed; of another size only for `scale`.

    textures: the photographs of frost, in their order; for `frost` alone.
    """
    if change.name == CLEAN:
        return pixels
    if change.name == JPEG_QUALITY:
        return _through_jpeg(pixels, int(change.level))
    if change.name == SCALE:
        return scaled(pixels, scaled_size(pixels.shape[:2], change.level))
    severity = int(change.level)
    if change.name == FROST:
        return _whole(_frost(pixels, severity, random, textures))
    return _whole(_FUNCTIONS[change.name](pixels, severity, random))


def scaled_size(size: tuple[int, ...], factor: float) -> tuple[int, int]:
    """(height, width) times a factor, in whole pixels, at least one."""
    height, width = (max(1, round(side * factor)) for side in size[:2])
    return height, width


def scaled(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(H, W, 3) uint8 -> (*size, 3): areas are averaged on the way down, cubic on the way up."""
    smaller = size[0] <= pixels.shape[0]
    return cv2.resize(pixels, size[::-1], interpolation=cv2.INTER_AREA if smaller else cv2.INTER_CUBIC)


def scaled_mask(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(H, W) bool -> bool of `size` (height, width): pixels of which at least half is in the mask."""
    smaller = size[0] <= mask.shape[0]
    how = cv2.INTER_AREA if smaller else cv2.INTER_LINEAR
    return cv2.resize(mask.astype(np.float32), size[::-1], interpolation=how) >= 0.5


def _whole(values: np.ndarray) -> np.ndarray:
    """Values of 0 to 255 -> uint8, cut to whole numbers as the published code has it."""
    return np.clip(values, 0, 255).astype(np.uint8)


def _unit(pixels: np.ndarray) -> np.ndarray:
    return pixels / 255.0


def _gaussian(values: np.ndarray, sigma: float) -> np.ndarray:
    """Rows and columns blurred, with the pixels at the edge going on beyond it."""
    sigmas = (sigma, sigma) + (0,) * (values.ndim - 2)
    return ndimage.gaussian_filter(values, sigmas, mode="nearest", truncate=4.0)


def _zoomed(values: np.ndarray, factor: float) -> np.ndarray:
    """The middle of (H, W, C), enlarged to at least H by W."""
    height, width = (int(np.ceil(side / factor)) for side in values.shape[:2])
    top, left = (values.shape[0] - height) // 2, (values.shape[1] - width) // 2
    return ndimage.zoom(values[top : top + height, left : left + width], (factor, factor, 1), order=1)


def _gaussian_noise(pixels: np.ndarray, severity: int, random: Random) -> np.ndarray:
    scale = (0.08, 0.12, 0.18, 0.26, 0.38)[severity - 1]
    return 255 * np.clip(_unit(pixels) + random.normal(size=pixels.shape, scale=scale), 0, 1)


def _shot_noise(pixels: np.ndarray, severity: int, random: Random) -> np.ndarray:
    photons = (60, 25, 12, 5, 3)[severity - 1]  # of a white pixel
    return 255 * np.clip(random.poisson(_unit(pixels) * photons) / photons, 0, 1)


def _impulse_noise(pixels: np.ndarray, severity: int, random: Random) -> np.ndarray:
    amount = (0.03, 0.06, 0.09, 0.17, 0.27)[severity - 1]
    struck, white = random.random_sample(pixels.shape) <= amount, random.random_sample(pixels.shape) <= 0.5
    return np.where(struck, np.where(white, 255, 0), pixels)


def _defocus_blur(pixels: np.ndarray, severity: int, random: Random) -> np.ndarray:
    radius, soft = ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5))[severity - 1]
    reach = max(8, radius)
    side = np.arange(-reach, reach + 1)
    disk = (side[:, None] ** 2 + side**2 <= radius**2).astype(np.float32)
    kernel = cv2.GaussianBlur(disk / disk.sum(), (3, 3) if radius <= 8 else (5, 5), soft)
    return 255 * np.clip(cv2.filter2D(_unit(pixels), -1, kernel), 0, 1)


def _glass_blur(pixels: np.ndarray, severity: int, random: Random) -> np.ndarray:
    sigma, reach, times = ((0.7, 1, 2), (0.9, 2, 1), (1.0, 2, 3), (1.1, 3, 2), (1.5, 4, 2))[severity - 1]
    shuffled = (255 * _gaussian(_unit(pixels), sigma)).astype(np.uint8)
    for _ in range(times):
        shuffled = _shuffled(shuffled, reach, random)
    return 255 * np.clip(_gaussian(_unit(shuffled), sigma), 0, 1)


def _shuffled(pixels: np.ndarray, reach: int, random: Random) -> np.ndarray:
    """Every pixel but those at the border becomes one at most `reach` away, one after the other from the last on.

    A pixel may take what another one has become before. So chains of takers are followed to their ends, all at once:
    after n rounds 2^n links.
    """
    height, width = pixels.shape[:2]
    rows, columns = np.arange(height - reach, reach, -1), np.arange(width - reach, reach, -1)
    if not len(rows) or not len(columns):
        return pixels
    moves = random.randint(-reach, reach, size=(len(rows), len(columns), 2))
    own = rows[:, None] * width + columns
    taken = (rows[:, None] + moves[..., 1]) * width + columns + moves[..., 0]
    source = np.arange(height * width)
    source[own.ravel()] = taken.ravel()
    order = np.full(height * width, np.iinfo(np.int64).max)  # who never takes is no link of a chain
    order[own.ravel()] = np.arange(own.size)
    link = np.where(order[source] < order, source, np.arange(height * width))
    while not np.array_equal(further := link[link], link):
        link = further
    return pixels.reshape(height * width, -1)[source[link]].reshape(pixels.shape)


def _motion_blur(pixels: np.ndarray, severity: int, random: Random) -> np.ndarray:
    radius, sigma = ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15))[severity - 1]
    return _moved(pixels, radius, sigma, random.uniform(-45, 45))


def _moved(values: np.ndarray, radius: int, sigma: float, angle: float) -> np.ndarray:
    """(H, W, ...) smeared in one direction, by half a Gaussian; the pixels at the edge go on beyond it.

    angle: in degrees.
    """
    length = 2 * radius + 1
    weights = np.exp(-(np.arange(length) ** 2) / (2 * sigma**2))
    weights /= weights.sum()
    height, width = values.shape[:2]
    down, right = np.sin(np.deg2rad(angle)), np.cos(np.deg2rad(angle))
    edges = ((length, length), (length, length), *[(0, 0)] * (values.ndim - 2))
    wide = np.pad(values, edges, mode="edge")
    smeared = np.zeros(values.shape, dtype=np.float32)
    for step, weight in enumerate(weights):
        dy, dx = (-int(np.ceil(step * way - 0.5)) for way in (down, right))
        if abs(dy) >= height or abs(dx) >= width:
            break
        top, left = length - dy, length - dx
        smeared = smeared + weight * wide[top : top + height, left : left + width]
    return smeared


def _zoom_blur(pixels: np.ndarray, severity: int, random: Random) -> np.ndarray:
    end, step = ((1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03))[severity - 1]
    sharp = _unit(pixels).astype(np.float32)
    factors, total = np.arange(1, end, step), np.zeros_like(sharp)
    for factor in factors:
        total += _zoomed(sharp, factor)[: pixels.shape[0], : pixels.shape[1]]
    return 255 * np.clip((sharp + total) / (len(factors) + 1), 0, 1)


def _snow(pixels: np.ndarray, severity: int, random: Random) -> np.ndarray:
    mean, scale, zoom, least, radius, sigma, share = (
        (0.1, 0.3, 3, 0.5, 10, 4, 0.8),
        (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
        (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
        (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
        (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
    )[severity - 1]
    height, width = pixels.shape[:2]
    flakes = _zoomed(random.normal(size=(height, width), loc=mean, scale=scale)[..., None], zoom)[..., 0]
    flakes = np.clip(np.where(flakes < least, 0, flakes), 0, 1)
    flakes = np.round(255 * _moved(flakes, radius, sigma, random.uniform(-135, -45))).astype(np.uint8) / 255
    layer = flakes[:height, :width, None]
    sharp = _unit(pixels).astype(np.float32)
    grey = cv2.cvtColor(sharp, cv2.COLOR_RGB2GRAY)[..., None]
    pale = share * sharp + (1 - share) * np.maximum(sharp, grey * 1.5 + 0.5)
    return 255 * np.clip(pale + layer + np.rot90(layer, k=2), 0, 1)


def _frost(pixels: np.ndarray, severity: int, random: Random, textures: Textures) -> np.ndarray:
    of_image, of_frost = ((1, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75))[severity - 1]
    height, width = pixels.shape[:2]
    # Of the six photographs the published code takes the first five.
    ice = np.array(Image.open(textures[random.randint(5)]).convert("RGB"))
    factor = 1.1 * max(1.0, height / ice.shape[0], width / ice.shape[1])
    size = (int(np.ceil(ice.shape[1] * factor)), int(np.ceil(ice.shape[0] * factor)))
    ice = cv2.resize(ice, size, interpolation=cv2.INTER_CUBIC)
    top, left = random.randint(0, ice.shape[0] - height), random.randint(0, ice.shape[1] - width)
    return of_image * pixels + of_frost * ice[top : top + height, left : left + width]


def _fog(pixels: np.ndarray, severity: int, random: Random) -> np.ndarray:
    amount, decay = ((1.5, 2), (2.0, 2), (2.5, 1.7), (2.5, 1.5), (3.0, 1.4))[severity - 1]
    height, width = pixels.shape[:2]
    sharp = _unit(pixels)
    cloud = _plasma(1 << (max(height, width) - 1).bit_length(), decay, random)[:height, :width, None]
    brightest = sharp.max()
    return 255 * np.clip((sharp + amount * cloud) * brightest / (brightest + amount), 0, 1)


def _plasma(side: int, decay: float, random: Random) -> np.ndarray:
    """(side, side) heights of 0 to 1 by the diamond-square algorithm on a torus; side: a power of two."""
    heights, step, wobble = np.zeros((side, side)), side, 100.0

    def centre(total: np.ndarray) -> np.ndarray:
        return total / 4 + wobble * random.uniform(-wobble, wobble, total.shape)

    while step >= 2:
        half = step // 2
        corners = heights[::step, ::step]
        pairs = corners + np.roll(corners, -1, axis=0)
        heights[half::step, half::step] = centre(pairs + np.roll(pairs, -1, axis=1))
        centres, corners = heights[half::step, half::step], heights[::step, ::step]
        above = centres + np.roll(centres, 1, axis=0) + corners + np.roll(corners, -1, axis=1)
        heights[::step, half::step] = centre(above)
        beside = centres + np.roll(centres, 1, axis=1) + corners + np.roll(corners, -1, axis=0)
        heights[half::step, ::step] = centre(beside)
        step, wobble = half, wobble / decay
    heights -= heights.min()
    return heights / max(heights.max(), np.finfo(float).tiny)


def _brightness(pixels: np.ndarray, severity: int, random: Random) -> np.ndarray:
    """The value of HSV is raised: the colour is multiplied by what that takes, and black becomes grey."""
    value = _unit(pixels.max(axis=2, keepdims=True))
    raised = np.minimum(value + (0.1, 0.2, 0.3, 0.4, 0.5)[severity - 1], 1)
    factor = np.divide(raised, value, out=np.zeros_like(value), where=value > 0)
    return np.where(value > 0, pixels * factor, 255 * raised)


def _contrast(pixels: np.ndarray, severity: int, random: Random) -> np.ndarray:
    share, sharp = (0.4, 0.3, 0.2, 0.1, 0.05)[severity - 1], _unit(pixels)
    mean = sharp.mean(axis=(0, 1), keepdims=True)
    return 255 * np.clip((sharp - mean) * share + mean, 0, 1)


def _elastic_transform(pixels: np.ndarray, severity: int, random: Random) -> np.ndarray:
    strength = 250 * (0.05, 0.065, 0.085, 0.1, 0.12)[severity - 1]
    height, width = pixels.shape[:2]
    most = 0.005 * height
    moves = []
    for _ in range(2):
        drawn = random.uniform(-most, most, size=(height, width))
        smooth = ndimage.gaussian_filter(drawn, (0.01 * height, 0.01 * width), mode="reflect", truncate=3)
        moves.append((strength * smooth).astype(np.float32))
    rows, columns = np.mgrid[:height, :width]
    where = (rows + moves[1], columns + moves[0])
    sharp = _unit(pixels).astype(np.float32)
    bands = [ndimage.map_coordinates(sharp[..., k], where, order=1, mode="reflect") for k in range(3)]
    return 255 * np.clip(np.stack(bands, axis=-1), 0, 1)


def _pixelate(pixels: np.ndarray, severity: int, random: Random) -> np.ndarray:
    factor = (0.6, 0.5, 0.4, 0.3, 0.25)[severity - 1]
    height, width = pixels.shape[:2]
    small = Image.fromarray(pixels).resize(
        (max(1, int(width * factor)), max(1, int(height * factor))), Image.Resampling.BOX
    )
    return np.array(small.resize((width, height), Image.Resampling.NEAREST))


def _jpeg_compression(pixels: np.ndarray, severity: int, random: Random) -> np.ndarray:
    return _through_jpeg(pixels, (25, 18, 15, 10, 7)[severity - 1])


def _through_jpeg(pixels: np.ndarray, quality: int) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality)
    return np.array(Image.open(file))


_FUNCTIONS: dict[str, Callable[[np.ndarray, int, Random], np.ndarray]] = {
    "gaussian_noise": _gaussian_noise,
    "shot_noise": _shot_noise,
    "impulse_noise": _impulse_noise,
    "defocus_blur": _defocus_blur,
    "glass_blur": _glass_blur,
    "motion_blur": _motion_blur,
    "zoom_blur": _zoom_blur,
    "snow": _snow,
    "fog": _fog,
    "brightness": _brightness,
    "contrast": _contrast,
    "elastic_transform": _elastic_transform,
    "pixelate": _pixelate,
    "jpeg_compression": _jpeg_compression,
}

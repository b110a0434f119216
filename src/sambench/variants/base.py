"""The contract that every variant obeys: encode images once, then decode prompts into candidate masks.

    features = variant.encode(images)                # list of (H, W, 3) uint8 RGB -> one opaque value per image
    candidates = variant.decode(features[i], prompts)  # prompts of one image -> every mask token, with its score

Which of the candidate masks counts is not the variant's business: the evaluator applies the selection rules
(`argmax`, `single`, `oracle`) to one and the same decode.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sambench.allocator import keep_freed_memory

if TYPE_CHECKING:
    import torch

BOX, POINT, BOX_POINT = "box", "point", "box_point"
TORCH, ONNX = "torch", "onnxruntime"  # engines; the others: engines/
FAST, OFFICIAL = "fast", "official"  # decoders
PER_IMAGE, PER_PROMPT = "per image", "per prompt"  # how often a variant's encoder runs
MARGIN = 3  # cells beyond a crop that its last pixel may depend on: a cubic kernel reaches two


@dataclass(frozen=True)
class Runtime:
    """How a variant is executed; part of every result's key.

    device: `auto` (CUDA when there is one), `cpu`, `cuda` or `cuda:N`.
    dtype: `float32`, `bfloat16` or `float16`, of weights and activations. Prompt coordinates and positional
        encodings stay float32 whatever it says: bf16 knows only every fourth pixel at 1024.
    attention: `native`, each family's own code, or `sdpa`: torch's fused kernel also where segment-anything spells
        attention out; relative positions become its bias.
    compile: whether the image encoder goes through torch.compile.
    engine: `torch`, or one of engines/: image encoder and mask decoder exported to ONNX; the rest stays in torch.
    precision: what an engine other than torch computes in: `float32`, `bfloat16` or `float16`. What goes in and comes
        out is float32.
    decoder: `fast`, the mask decoder with fewer products and the same function (fast_decoder.py), and on a CPU SAM's
        ViT with less memory (fast_vit.py); or `official`, the forward pass as published. An exported graph is always
        made of the official one.
    threads: CPU threads of torch; None leaves torch's own choice.
    """

    name: str = "eager"
    device: str = "auto"
    dtype: str = "float32"
    attention: str = "native"
    compile: bool = False
    engine: str = TORCH
    precision: str = "float32"
    decoder: str = FAST
    threads: int | None = None

    @property
    def plain(self) -> bool:
        """Whether it asks for nothing that a variant must be able to do: any code runs so, on some device.

        Either decoder is plain: a variant without one that could be faster runs its own.
        """
        as_written = self.attention == "native" and not self.compile and self.engine == TORCH
        return self.dtype == "float32" and as_written

    def torch_device(self) -> torch.device:
        """The device, with `auto` resolved; also applies `threads`, and on a CPU keeps freed memory (allocator.py)."""
        import torch

        if self.threads:
            torch.set_num_threads(self.threads)
        name = ("cuda" if torch.cuda.is_available() else "cpu") if self.device == "auto" else self.device
        if name == "cpu":
            keep_freed_memory()
        return torch.device(name)

    def missing_device(self) -> str:
        """Why the device is not available here, in a few words; empty when it is."""
        kind, _, number = self.device.partition(":")
        if kind in ("auto", "cpu", "meta"):
            return ""
        import torch

        try:
            module = torch.get_device_module(kind)
            count = module.device_count() if module.is_available() else 0
        except (RuntimeError, AttributeError):  # a kind that torch does not know
            return f"torch knows no device `{self.device}`"
        if not count:
            return f"torch finds no device of the kind {kind} here"
        if number and not (number.isdecimal() and int(number) < count):
            return f"`{self.device}` is not among the {count} devices of that kind, which count from 0"
        return ""

    def device_name(self) -> str:
        """The name of the GPU; empty on the CPU."""
        import torch

        device = self.torch_device()
        return torch.cuda.get_device_name(device) if device.type == "cuda" else ""

    def torch_dtype(self) -> torch.dtype:
        import torch

        return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[self.dtype]


@dataclass(frozen=True)
class Prompts:
    """N prompts of one image, all of one kind, in pixels of the original image (x to the right, y down).

    boxes: (N, 4) float32 as x0, y0, x1, y1, or None.
    points: (N, P, 2) float32 as x, y, or None.
    labels: (N, P) int64: 1 inside the object, 0 outside, -1 padding; None exactly when points is None.
    targets: ground-truth masks (N, H, W) bool, handed over only to a variant that sets `uses_ground_truth`.
    masks: (N, h, w) logits of an earlier answer of the same variant, as `MaskCandidates` has them, beside the points
        or boxes; only for a variant that sets `takes_masks`.
    """

    boxes: np.ndarray | None = None
    points: np.ndarray | None = None
    labels: np.ndarray | None = None
    targets: np.ndarray | None = None
    masks: torch.Tensor | None = None

    def __post_init__(self) -> None:
        n = len(self)
        if self.boxes is not None and self.boxes.shape != (n, 4):
            raise ValueError(f"boxes: expected shape ({n}, 4), found {self.boxes.shape}")
        if (self.points is None) != (self.labels is None):
            raise ValueError("points and labels: expected both or neither")
        if self.points is not None and self.labels is not None:
            shape = self.labels.shape
            if len(shape) != 2 or shape[0] != n or self.points.shape != (*shape, 2):
                raise ValueError(f"points and labels: found {self.points.shape} and {shape} for {n} prompts")

    def __len__(self) -> int:
        for rows in (self.boxes, self.points):
            if rows is not None:
                return len(rows)
        raise ValueError("prompts: expected boxes or points, found neither")

    @property
    def kind(self) -> str:
        """`box`, `point` or `box_point`."""
        if self.boxes is None:
            return POINT
        return BOX if self.points is None else BOX_POINT

    def __getitem__(self, rows: slice | np.ndarray) -> Prompts:
        return Prompts(**{f.name: None if (v := getattr(self, f.name)) is None else v[rows] for f in fields(self)})


@dataclass(frozen=True)
class Upsampling:
    """How logits become a mask of the original image: enlarge to `frame`, cut `crop`, resize to `size`.

    SAM goes 256 -> 1024 (frame), cuts off the padding (crop), then resizes to the image; SAM 2 resizes in one
    step; NanoSAM crops its 256 map first. A step that is None is left out. Both bilinear and bicubic steps use
    align_corners=False, like the official predictors.

    size: (height, width) of the original image. frame, crop: (height, width).
    mode: `bilinear` or `bicubic`. threshold: a pixel is in the mask when its logit is above it (`inclusive`: or
    equal to it, as EfficientSAM has it).
    """

    size: tuple[int, int]
    frame: tuple[int, int] | None = None
    crop: tuple[int, int] | None = None
    mode: str = "bilinear"
    threshold: float = 0.0
    inclusive: bool = False

    def read(self, shape: Sequence[int]) -> tuple[int, int]:
        """How many rows and columns of (h, w) logits the image depends on: what the crop shows, and what its kernel
        reaches. The rest is padding, whatever its values.
        """
        height, width = shape
        if self.crop is None:
            return height, width
        if self.frame is None:
            return min(height, self.crop[0]), min(width, self.crop[1])
        times, rest = divmod(self.frame[0], height)
        if rest or self.frame[1] != times * width:
            return height, width
        rows, columns = (math.ceil(side / times) + MARGIN for side in self.crop)
        return min(height, rows), min(width, columns)

    def logits(self, low: torch.Tensor) -> torch.Tensor:
        """(N, h, w) logits -> (N, H, W) float32 logits at the size of the image."""
        import torch.nn.functional as F

        x = low[:, None].float()
        if self.frame is not None and x.shape[-2:] != self.frame:
            rows, columns = self.read(x.shape[-2:])
            if (rows, columns) != x.shape[-2:] and not x.is_meta:  # where operations are counted, as published
                # The same pixels to the bit, a third less work for a photo in a square frame.
                times = self.frame[0] // x.shape[-2]
                x = F.interpolate(x[..., :rows, :columns], scale_factor=times, mode=self.mode, align_corners=False)
            else:
                x = F.interpolate(x, self.frame, mode=self.mode, align_corners=False)
        if self.crop is not None:
            x = x[..., : self.crop[0], : self.crop[1]]
        if x.shape[-2:] != self.size:
            x = F.interpolate(x, self.size, mode=self.mode, align_corners=False)
        return x[:, 0]

    def masks(self, low: torch.Tensor) -> torch.Tensor:
        """(N, h, w) logits -> (N, H, W) bool masks at the size of the image."""
        if low.dtype.is_floating_point:
            full = self.logits(low)
            return full >= self.threshold if self.inclusive else full > self.threshold
        return low.bool()


@dataclass(frozen=True)
class MaskCandidates:
    """Every mask token of N prompts.

    logits: (N, M, h, w) float on the device; a variant that yields masks of the original size gives them as bool.
    scores: (N, M) float32, the predicted IoU; NaN where the variant predicts none.
    multimask: indices of the tokens that the `argmax` rule chooses among.
    single: (N,) int64, the index that the `single` rule takes for each prompt.
    upsampling: from logits to the original size.
    """

    logits: torch.Tensor
    scores: torch.Tensor
    multimask: tuple[int, ...]
    single: torch.Tensor
    upsampling: Upsampling

    def argmax(self) -> torch.Tensor:
        """(N,) int64: the multimask token with the highest predicted IoU, the first of equals."""
        import torch

        tokens = torch.tensor(self.multimask, device=self.scores.device)
        if len(tokens) == 1:
            return tokens.expand(len(self.scores))
        return tokens[self.scores[:, tokens].argmax(dim=1)]

    def take(self, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """One candidate per prompt, tokens (N,) int64 -> its logits (N, h, w) and predicted IoU (N,) float32."""
        import torch

        tokens = tokens.to(self.scores.device)
        rows = torch.arange(len(tokens), device=tokens.device)
        return self.at(rows, tokens), self.scores[rows, tokens]

    def at(self, prompts: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """Logits (K, h, w) of K pairs of a prompt and a token, (K,) int64 each; a prompt may occur several times."""
        return self.logits[prompts.to(self.logits.device), tokens.to(self.logits.device)]


@dataclass(frozen=True)
class Features:
    """What `encode` leaves of one image for a neural variant.

    maps: named feature maps, each (1, C, h, w), on the device; the names are those of the official code
        where it has several (SAM 2: image_embed, high_res_feats0, ...), else `image_embedding`.
    original_size, input_size: (height, width) of the image and of its resized, unpadded copy.
    """

    maps: dict[str, Any]
    original_size: tuple[int, int]
    input_size: tuple[int, int] = (0, 0)
    _made: dict[str, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    def once(self, name: str, make: Callable[[], Any]) -> Any:
        """What `make` returns, which is called at the first decode that needs it and kept with the features."""
        if name not in self._made:
            self._made[name] = make()
        return self._made[name]


class Variant(ABC):
    """Turns an image and prompts into masks. Subclasses hold the networks of one family.

    name: the name in the registry. layout: the variant whose checkpoints it takes, where that is another one.
    prompt_kinds: the kinds of prompts that `decode` accepts; others become rows `unsupported prompt`.
    uses_ground_truth: True only for `ground_truth`: it alone is handed `Prompts.targets`.
    takes_masks: whether `decode` heeds `Prompts.masks`.
    max_points: most points of one prompt, corners of a box included; None when any number will do.
    takes_background: whether a point outside of the object (label 0) means something to it.
    encodes_prompts: True where prompts enter before the image encoder (early fusion). `encode` then only prepares the
        image and `decode` runs the whole network once per prompt, so that its encoding time is next to nothing and its
        decoding time everything; nothing but the prepared image is shared between the prompts of an image.
    decode_chunk: prompts that one decode call should get, by device; it changes logits by rounding only.

    weights_keys: where in each checkpoint file the weights to take are; empty for what fits best.

    A builder `build_x(runtime, **arguments)` returns a variant with random weights; the registry then calls
    `load_files` (or not) and `to_runtime`.
    """

    name: str = ""
    layout: str = ""
    prompt_kinds: frozenset[str] = frozenset({BOX, POINT, BOX_POINT})
    uses_ground_truth: bool = False
    takes_masks: bool = False
    max_points: int | None = None
    takes_background: bool = True
    weights_keys: Sequence[str] = ()
    encodes_prompts: bool = False
    decode_chunk: int = 16

    @property
    def encodes(self) -> str:
        """How often its encoder runs, for the tables of times."""
        return PER_PROMPT if self.encodes_prompts else PER_IMAGE

    def load_files(self, paths: Sequence[Path]) -> None:
        """Load the checkpoint files of the card, in its order. Baselines have none."""
        raise TypeError(f"{type(self).__name__} takes no weights")

    def to_runtime(self) -> None:
        """Move to the device and dtype of the runtime; called once, after the weights are in place."""
        return

    def prepare(self, image: np.ndarray) -> Any:
        """(H, W, 3) uint8 RGB -> what `encode_prepared` takes. Runs ahead, in a worker thread, on the CPU."""
        return image

    def supports(self, prompts: Prompts, clicks: int = 0) -> bool:
        """Whether `decode` heeds all that these prompts say, and all that the clicks to come may say.

        clicks: how many interactive clicks each prompt gets in all; the second and later ones may lie outside of the
            object.
        """
        if prompts.kind not in self.prompt_kinds:
            return False
        if not self.takes_background and (
            clicks > 1 or (prompts.labels is not None and bool((prompts.labels == 0).any()))
        ):
            return False
        if self.max_points is None:
            return True
        corners = 0 if prompts.boxes is None else 2
        points = 0 if prompts.labels is None else int((prompts.labels >= 0).sum(axis=1).max(initial=0))
        return corners + points + max(clicks - 1, 0) <= self.max_points

    @abstractmethod
    def encode_prepared(self, prepared: Sequence[Any]) -> list[Any]:
        """The image encoder on a batch of prepared images; one opaque value per image."""

    def encode(self, images: Sequence[np.ndarray]) -> list[Any]:
        """Images, (H, W, 3) uint8 RGB of any sizes -> features, one opaque value per image."""
        return self.encode_prepared([self.prepare(image) for image in images])

    @abstractmethod
    def decode(self, features: Any, prompts: Prompts) -> MaskCandidates:
        """Candidate masks of the prompts, in the order of the prompts, on features of one image."""

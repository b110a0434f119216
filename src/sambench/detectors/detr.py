"""Detectors of the DETR family through transformers: RT-DETR, D-FINE, RF-DETR, Deformable DETR and others.

A model is a local folder with the files of its repository on the Hugging Face Hub. Nothing is fetched, no code of the
folder is run (trust_remote_code is off), and weights are safetensors.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sambench.detectors.base import BoxDetector, Detections
from sambench.detectors.classes import coco_names
from sambench.errors import InputError
from sambench.variants.base import Runtime

# Those whose class scores are independent sigmoids. DETR itself has a softmax with a class "no object".
SIGMOID_FAMILIES = frozenset(
    {
        *("rt_detr", "rt_detr_v2", "d_fine", "deimv2", "rf_detr", "lw_detr"),
        *("deformable_detr", "conditional_detr", "dab-detr"),
    }
)


SIDES = {"rf_detr": 560}  # of the input of a network without files, where 640 does not fit its windows
LOCAL = {"local_files_only": True, "trust_remote_code": False}


@dataclass(frozen=True)
class ProcessedImage:
    """The network's input for one image, (1, 3, h, w) float32, and the (height, width) of the original."""

    pixels: torch.Tensor
    original_size: tuple[int, int]


class HubDetector(BoxDetector):
    """What the detectors of transformers share: a folder with a model, its image processor, and boxes.

    auto: name of the class of transformers that finds the model's own class by config.json.
    families: the `model_type`s that it can be.
    limit: most boxes of an image.
    """

    auto = ""
    families: frozenset[str] = frozenset()

    def __init__(self, runtime: Runtime, limit: int) -> None:
        self.device = runtime.torch_device()
        self.limit = limit
        self.module: Any = None
        self.processor: Any = None

    def load_files(self, paths: Sequence[Path]) -> None:
        import transformers

        folder = paths[0].parent
        if any(path.parent != folder for path in paths):
            found = ", ".join(sorted({str(path.parent) for path in paths}))
            raise InputError(self.name, "files", expected="one folder", found=found, remedy="put them together")
        with _only_local(folder):
            config = transformers.AutoConfig.from_pretrained(folder, **LOCAL)
            if config.model_type not in self.families:
                known = ", ".join(sorted(self.families))
                raise InputError(folder / "config.json", "model_type", expected=known, found=config.model_type)
            self.module, report = getattr(transformers, self.auto).from_pretrained(
                folder,
                config=config,
                use_safetensors=True,
                ignore_mismatched_sizes=True,  # told below, with what is missing
                dtype=torch.float32,
                output_loading_info=True,
                **LOCAL,
            )
            self.processor = transformers.AutoImageProcessor.from_pretrained(folder, **LOCAL)
            self.load_further(folder)
        mismatched = {key[0] if isinstance(key, tuple) else key for key in report["mismatched_keys"]}
        if wrong := sorted(report["missing_keys"] | mismatched):
            found = f"{len(wrong)} missing or of another shape: {', '.join(wrong[:5])}"
            raise InputError(folder, "model.safetensors", expected=f"the weights of {config.model_type}", found=found)
        self.module.eval().requires_grad_(False).to(self.device)

    def load_further(self, folder: Path) -> None:
        """Load what else of the folder is needed."""

    def prepare(self, image: np.ndarray) -> ProcessedImage:
        given = self.processor(images=image, input_data_format="channels_last", return_tensors="pt")
        return ProcessedImage(given["pixel_values"], image.shape[:2])

    def shape(self, prepared: ProcessedImage) -> Hashable:
        return prepared.pixels.shape

    def pixels(self, prepared: Sequence[ProcessedImage]) -> torch.Tensor:
        """(B, 3, h, w) on the device. Without padding no mask is needed: the networks then take all pixels as real."""
        return torch.cat([each.pixels for each in prepared]).to(self.device)

    def best(self, scores: torch.Tensor, boxes: torch.Tensor, size: tuple[int, int]) -> Detections:
        """The best `limit` pairs of one image, see `best_pairs`."""
        return best_pairs(scores, boxes, size, self.limit)


def best_pairs(scores: torch.Tensor, boxes: torch.Tensor, size: tuple[int, int], limit: int) -> Detections:
    """The best `limit` pairs of query and class of one image, best first.

    scores: (Q, C) of each class; boxes: (Q, 4) centre x, centre y, width, height as fractions of the image, whose
    `size` is (height, width). A query may stand for several classes.
    """
    classes = scores.shape[1]
    values, index = scores.flatten().topk(min(limit, scores.numel()))
    centre, extent = boxes[index // classes].double().split(2, dim=1)
    height, width = size
    corners = torch.cat([centre - extent / 2, centre + extent / 2], dim=1)
    corners *= corners.new_tensor([width, height, width, height])
    return Detections(corners.cpu().numpy(), values.double().cpu().numpy(), (index % classes).cpu().numpy())


@contextmanager
def _only_local(folder: Path) -> Iterator[None]:
    """Read a model folder without network, progress bars and reports; any error becomes one line.

    `local_files_only` is not enough: configurations ask the Hub about a backbone of which they only have the name.
    """
    from huggingface_hub import constants
    from transformers.utils import logging

    online, constants.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE, True
    bars, verbosity = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    except (InputError, MemoryError):
        raise
    except Exception as error:  # transformers and safetensors raise a dozen types on broken files
        found = " ".join((str(error) or type(error).__name__).split())[:200]
        remedy = "download the files of its repository again"
        raise InputError(folder, expected="a model of transformers", found=found, remedy=remedy) from error
    finally:
        constants.HF_HUB_OFFLINE = online
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


class DetrDetector(HubDetector):
    """A detector of fixed classes, named by `id2label` of its config.json.

    model_type: what config.json would say; with it the network can be built without files, in the size that
        transformers takes where nothing is said, whatever the size of the card.
    """

    auto = "AutoModelForObjectDetection"
    families = SIGMOID_FAMILIES

    def __init__(self, runtime: Runtime, limit: int, model_type: str = "") -> None:
        super().__init__(runtime, limit)
        self.model_type = model_type

    def start_random(self) -> None:
        if not self.model_type:
            super().start_random()
        import transformers

        names = dict(enumerate(coco_names()))
        with _only_local(Path(self.name)), torch.random.fork_rng(devices=()):
            torch.manual_seed(0)
            config = transformers.AutoConfig.for_model(
                self.model_type, id2label=names, label2id={name: i for i, name in names.items()}
            )
            self.module = getattr(transformers, self.auto).from_config(config)
            side = SIDES.get(self.model_type, 640)
            self.processor = transformers.RTDetrImageProcessor(size={"height": side, "width": side})
        self.module.eval().requires_grad_(False).to(self.device)

    def choose_classes(self, wanted: Sequence[str]) -> Sequence[str]:
        labels = self.module.config.id2label
        return [labels[i] for i in range(len(labels))]

    @torch.inference_mode()
    def detect(self, prepared: Sequence[ProcessedImage]) -> list[Detections]:
        output = self.module(pixel_values=self.pixels(prepared))
        scores = output.logits.sigmoid()[..., : len(self.module.config.id2label)]
        return [
            self.best(own_scores, boxes, image.original_size)
            for own_scores, boxes, image in zip(scores, output.pred_boxes, prepared, strict=True)
        ]


def build_detr(runtime: Runtime, limit: int = 300, model_type: str = "") -> DetrDetector:
    """A detector of fixed classes; the best `limit` pairs of query and class of an image."""
    return DetrDetector(runtime, limit, model_type)

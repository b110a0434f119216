"""The part of an image around each picked instance, with its ground truth and its prompt."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from sambench.datasets.pictures import read_image, view_of
from sambench.gallery.pick import Pick
from sambench.records import PICKS
from sambench.results.pictures import jpeg, part_of, window_of

SIDE = 400  # pixels of a picture's longer side
CONTEXT = 96  # pixels of the image that are shown at least: small objects need what is around them
QUALITY = 80  # of its JPEG: about 25 kB


def pictured(
    picks: Sequence[Pick],
    truth: pd.DataFrame,
    prompts: Mapping[str, pd.DataFrame],
    images: pd.DataFrame,
    categories: Mapping[int, str],
) -> pd.DataFrame:
    """The columns of records.PICKS, in the order of the picks.

    truth: columns of records.INSTANCES, by annotation. prompts: of records.PROMPTS, by prompt set. images: of
    records.IMAGES, which are read from their files. categories: names.

    Raises InputError for an image that cannot be read.
    """
    asked = {prompt: rows.set_index("annotation_id") for prompt, rows in prompts.items()}
    files = images.set_index("image_id", drop=False)

    def rows() -> Iterable[dict[str, Any]]:
        for pick in picks:
            instance, prompt = truth.loc[pick.annotation_id], asked[pick.prompt].loc[pick.annotation_id]
            image = files.loc[instance["image_id"]]
            pixels = read_image(image["path"], image["width"], image["height"], view_of(image))
            window = window_of(instance, pixels.shape[:2], CONTEXT)
            category = int(instance["category_id"])
            yield {
                **{name: instance[name] for name in ("annotation_id", "image_id", "area", "rle_size", "rle_counts")},
                **{name: prompt[name] for name in ("points", "labels", "box")},
                "category": categories.get(category, str(category)),
                "prompt": pick.prompt,
                "reason": pick.reason,
                "window": list(window),
                "picture": jpeg(part_of(pixels, window, SIDE), QUALITY),
            }

    return pd.DataFrame(rows(), columns=PICKS.names)

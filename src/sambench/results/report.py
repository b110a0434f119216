"""The report: one HTML page with the tables, the figures and where they come from; needs no network."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import jinja2
import pandas as pd
from markupsafe import Markup

from sambench.provenance import read_libraries
from sambench.results.tables import overview, presentable


@dataclass(frozen=True)
class Section:
    """A table of the report. figure: SVG text. decimals: see `presentable`."""

    name: str
    table: pd.DataFrame
    figure: str = ""
    decimals: Mapping[str, int] | None = None


TITLES = {
    "boxes": "Box prompts",
    "points": "Point prompts",
    "instances": "Instance segmentation",
    "detectors": "Detectors",
    "segevery": "Segment everything",
    "efficiency": "Efficiency",
    "efficiency_parts": "Efficiency by part",
    "segany_time": "Time of promptable segmentation",
    "throughput": "Throughput",
    "agreement": "Agreement of runtimes",
    "reproduction": "Published figures",
}
EXPLANATIONS = {
    "boxes": "Mean IoU in per cent of the masks that box prompts give, with the 95 % interval of a bootstrap over "
    "images. box is the annotation's box, tight_box the box of its mask, noisy_box the annotation's box, each side "
    "moved by about a tenth of its extent.",
    "points": "Mean IoU in per cent of the masks that point prompts give. box_center is the centre of the annotation's "
    "box, mask_center the pixel deepest inside the mask, random_k k pixels of the mask, click_k k interactive clicks.",
    "instances": "Average precision in per cent of the masks that boxes of a detector give, by the rules of COCO or "
    "LVIS; category and score are the detector's. box_ap is the AP of the boxes themselves. The variant oracle answers "
    "each box with the mask of the instance that it overlaps most: the ceiling for these boxes.",
    "detectors": "Average precision in per cent of the boxes that detectors found.",
    "segevery": "All masks of an image without a prompt: milliseconds an image, masks an image, and AR, the average "
    "recall in per cent of the ground truth by the best 100 or 1,000 masks, whatever their class.",
    "efficiency": "Parameters (M), FLOPs and MACs (G) of one image with one box, counted, not timed; they need no "
    "weights. EER is the mean of the three relative to SAM-H, in per cent.",
    "efficiency_parts": "The same by part of the network.",
    "segany_time": "Milliseconds for one image and for one more box, and the cumulative time of 10, 20, ... boxes. "
    "busy: others used the machine meanwhile, so times are too long.",
    "throughput": "Images a second with their ground-truth boxes, read from disk meanwhile, by batch size; data_wait "
    "is the share of the time in per cent that the model waited for images.",
    "agreement": "Mean IoU in per cent of the masks of a runtime with those of eager float32 on the same boxes: what a "
    "faster runtime changes. With random weights it tells runtimes apart, not variants.",
    "reproduction": "Figures of papers and repositories beside what was measured here, with the difference in per cent "
    "and the reason of one above 1 %.",
}


def render(sections: Sequence[Section], provenance: Mapping[str, str], config: Mapping[str, object]) -> str:
    """The page as text. provenance: of the tables, as `read_provenance` gives it."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("sambench.results"), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template("report.html").render(
        sections=[
            {
                "name": section.name,
                "title": TITLES[section.name],
                "explanation": EXPLANATIONS[section.name],
                "figure": Markup(section.figure),
                "metric": "mIoU" if "miou" in section.table else "AP",
                "overview": _html(overview(section.table), "overview") if "selection" in section.table else "",
                "table": _html(presentable(section.table, section.decimals), "full"),
            }
            for section in sections
        ],
        provenance=provenance,
        libraries=read_libraries(provenance),
        config=json.dumps(config, indent=2, default=str),
    )


def _html(table: pd.DataFrame, kind: str) -> Markup:
    """A table as HTML; the page itself lays columns of words to the left."""
    return Markup(table.to_html(index=False, border=0, classes=f"table {kind}", escape=True))

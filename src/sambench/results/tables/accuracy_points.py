"""The table `accuracy_points`: mean IoU of the masks that point prompts give."""

from __future__ import annotations

from typing import Any

from sambench.results import accuracy
from sambench.results.parts import by_parts

TITLE = "Point prompts"


def draw(*tables: Any) -> Any:
    from sambench.results.figures import accuracy_chart

    return accuracy_chart(tables[0], TITLE)


TABLE = by_parts(
    name="accuracy_points",
    order=20,
    title=TITLE,
    explanation="Mean IoU in per cent of the masks that point prompts give. box_center is the centre of the "
    "annotation's box, mask_center the pixel deepest inside the mask, random_k k pixels of the mask, click_k k "
    "interactive clicks. A dash under a size: no instance of it.",
    schema=accuracy.SCHEMA,
    key=accuracy.KEY,
    selected=accuracy.selected,
    part=accuracy.part(lambda prompt: not accuracy.is_box(prompt)),
    score=accuracy.SCORE,
    published=accuracy.PUBLISHED,
    summary=accuracy.summary("point", 20),
    units=accuracy.UNITS,
    metrics="{column}/{prompt}",
    drawn_from=("accuracy_points",),
    draw=draw,
)

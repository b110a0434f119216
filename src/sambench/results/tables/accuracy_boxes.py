"""The table `accuracy_boxes`: mean IoU of the masks that box prompts give."""

from __future__ import annotations

from typing import Any

from sambench.results import accuracy
from sambench.results.parts import by_parts

TITLE = "Box prompts"


def draw(*tables: Any) -> Any:
    from sambench.results.figures import accuracy_chart

    return accuracy_chart(tables[0], TITLE)


TABLE = by_parts(
    name="accuracy_boxes",
    order=10,
    title=TITLE,
    explanation="Mean IoU in per cent of the masks that box prompts give, with the 95 % interval of a bootstrap over "
    "images. box is the annotation's box, tight_box the box of its mask, noisy_box the annotation's box, each side "
    "moved by about a tenth of its extent. A dash under a size: no instance of it.",
    schema=accuracy.SCHEMA,
    key=accuracy.KEY,
    selected=accuracy.selected,
    part=accuracy.part(accuracy.is_box),
    score=accuracy.SCORE,
    published=accuracy.PUBLISHED,
    summary=accuracy.summary("box", 10),
    units=accuracy.UNITS,
    metrics="{column}/{prompt}",
    drawn_from=("accuracy_boxes",),
    draw=draw,
)

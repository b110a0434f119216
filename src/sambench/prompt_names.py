"""What the name of a prompt type says by itself. No more than text is imported here."""

from __future__ import annotations

import re

# Types with a number behind their name, such as random_3 or box_pad_10.
COUNTED = ("random", "click", "box_pad", "box_jitter", "box_shift", "point_shift", "sample")


def counted(name: str) -> tuple[str, int]:
    """`box_pad_10` -> (`box_pad`, 10); (empty, 0) for a type without a number."""
    found = re.fullmatch(rf"({'|'.join(COUNTED)})_([1-9][0-9]?)", name)
    return (found[1], int(found[2])) if found else ("", 0)


def is_box(name: str) -> bool:
    """Whether a prompt type consists of boxes; all others consist of points."""
    return name.endswith("box") or counted(name)[0].startswith("box_")

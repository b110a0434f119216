"""What LVIS annotates of an image: some categories, and not all of them completely (Gupta et al. 2019, section 3)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

# Fields of an image that only LVIS has.
FIELDS = ("neg_category_ids", "not_exhaustive_category_ids")


def is_federated(images: Iterable[Mapping[str, Any]]) -> bool:
    """Whether the images of an annotation file are those of LVIS."""
    return any(field in image for image in images for field in FIELDS)


def says_what_is_absent(image: Mapping[str, Any]) -> bool:
    """Whether an image has a list of categories that are known to be absent."""
    absent = image.get("neg_category_ids")
    return isinstance(absent, list) and all(type(each) is int for each in absent)


def known_categories(image: Mapping[str, Any], annotations: Iterable[Mapping[str, Any]]) -> set[int]:
    """The categories that LVIS judges in an image: those annotated with some area, and those known to be absent."""
    return {*image["neg_category_ids"], *(each["category_id"] for each in annotations if each["area"] > 0)}

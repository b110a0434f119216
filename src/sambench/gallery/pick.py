"""Which instances a gallery shows: those that tell variants apart, found in the recorded IoU of each of them."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from sambench.errors import InputError
from sambench.results.paired import Scores, subsets

SIZES = ("small", "medium", "large")
LEAST_AREA = 100.0  # square pixels: of smaller objects a picture shows little
CHOSEN = "chosen"
DISAGREEMENT, WORST, BEST = "disagreement", "worst", "best"


class Pick(NamedTuple):
    """An instance and the prompt set that it is shown with. reason: in words."""

    annotation_id: int
    prompt: str
    reason: str


@dataclass(frozen=True)
class Field:
    """What picks with one prompt set are made from.

    scores: of one runtime per variant. compared: the columns of those that compete. eligible: (N,) bool, the instances
    that may be picked.
    """

    scores: Scores
    compared: Sequence[int]
    eligible: np.ndarray

    @property
    def iou(self) -> np.ndarray:
        """(N, compared) in per cent, NaN where there is no number."""
        return self.scores.iou[:, list(self.compared)]


def field(scores: Scores, *, networks: Collection[str], ceilings: Collection[str]) -> Field:
    """Networks compete with one another where there are two with numbers, else all but those that know the answer.

    Neither crowds nor very small objects are eligible, unless there is nothing else.
    """
    scored = scores.scored()
    able = [at for at, system in enumerate(scores.systems) if system in scored and system.variant not in ceilings]
    trained = [at for at in able if scores.systems[at].variant in networks]
    compared = trained if len(trained) > 1 else able
    facts = scores.instances
    known = ~np.isnan(scores.iou[:, compared]).all(axis=1) if compared else np.zeros(len(facts), dtype=bool)
    usual = known & ~facts["iscrowd"].to_numpy(dtype=bool) & (facts["area"].to_numpy() >= LEAST_AREA)
    return Field(scores, compared, usual if usual.any() else known)


def pick(fields: Mapping[str, Field], number: int) -> list[Pick]:
    """So many instances, each once; fewer where there are no more. fields: by prompt set.

    In turn: on which variants disagree most, the worst of a variant (where it falls furthest behind the mean of the
    others), the best of one; each with every prompt set, sizes in rotation. Each variant is the worst or best once
    before any is again, and an image comes again only when no other is left.
    """
    slots = [(kind, prompt) for kind in (DISAGREEMENT, WORST, BEST) for prompt in fields]
    picks: list[Pick] = []
    taken: set[int] = set()
    images: set[int] = set()
    shown: dict[str, set[str]] = {kind: set() for kind in (DISAGREEMENT, WORST, BEST)}
    for turn in itertools.count():
        left = {
            prompt: each.eligible & ~each.scores.instances["annotation_id"].isin(taken).to_numpy()
            for prompt, each in fields.items()
        }
        if len(picks) == number or not any(mask.any() for mask in left.values()):
            return picks
        kind, prompt = slots[turn % len(slots)]
        size = SIZES[(turn + turn // len(slots)) % len(SIZES)]
        each, free = fields[prompt], left[prompt]
        if not free.any():
            continue
        facts = each.scores.instances
        other = ~facts["image_id"].isin(images).to_numpy()
        sized = subsets(facts).get(size, np.ones(len(facts), dtype=bool))
        # From what a picture should be to what there is.
        rows = next(mask for mask in (free & other & sized, free & sized, free & other, free) if mask.any())
        row, name, reason = _extreme(each, kind, rows, shown[kind])
        shown[kind].add(name)
        taken.add(int(facts["annotation_id"].iloc[row]))
        images.add(int(facts["image_id"].iloc[row]))
        picks.append(Pick(int(facts["annotation_id"].iloc[row]), prompt, reason))
    raise AssertionError("the loop returns")


def _extreme(each: Field, kind: str, rows: np.ndarray, shown: Collection[str]) -> tuple[int, str, str]:
    """Of `rows`, (N,) bool with one at least: the one that is the most of its kind, whose it is, and why in words.

    shown: variants whose turn is over, if there are others.
    """
    if kind == DISAGREEMENT and len(each.compared) > 1:
        iou = each.iou[rows]
        spread = np.nanmax(iou, axis=1) - np.nanmin(iou, axis=1)
        return int(np.flatnonzero(rows)[spread.argmax()]), "", "variants disagree most"
    lead = ahead(each.iou)[rows] * (1 if kind == BEST else -1)
    names = [each.scores.systems[at].variant for at in each.compared]
    waiting = np.array([name not in shown for name in names]) & ~np.isnan(lead).all(axis=0)
    lead[:, ~waiting & waiting.any()] = np.nan
    row, column = np.unravel_index(int(np.nanargmax(lead)), lead.shape)
    words = f"{BEST if kind == BEST else WORST} of {names[column]}"
    return int(np.flatnonzero(rows)[row]), names[column], words + " against the others" * (len(names) > 1)


def ahead(iou: np.ndarray) -> np.ndarray:
    """(N, S) IoU -> how far each is above the mean of the others in its row; of a single one its IoU."""
    known = ~np.isnan(iou)
    total = np.where(known, iou, 0.0)
    rest, others = total.sum(axis=1, keepdims=True) - total, known.sum(axis=1, keepdims=True) - known
    return np.asarray(iou - np.divide(rest, others, out=np.zeros_like(rest), where=others > 0))


def with_chosen(
    picks: Sequence[Pick], chosen: Sequence[int], prompts: Sequence[str], known: Collection[int], dataset: str
) -> list[Pick]:
    """The chosen annotations with every prompt set, then the picks that are not among them.

    Raises InputError for an annotation that the dataset does not have.
    """
    for annotation in chosen:
        if annotation not in known:
            where = f"study.gallery_annotations.{dataset}"
            remedy = "take an id of its annotation file, of an image within `image_limit`"
            raise InputError("config", where, expected="annotations of the dataset", found=annotation, remedy=remedy)
    own = [Pick(annotation, prompt, CHOSEN) for annotation in chosen for prompt in prompts]
    return own + [each for each in picks if each.annotation_id not in chosen]

"""Means and differences with honest intervals: the bootstrap over images, paired, and corrected for many comparisons.

Instances of one image are not independent: light, blur and scene are shared. So images are drawn with replacement, each
with all its instances (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, ch. 8 and 13). The mean is that of
the instances drawn, as in the tables. Everything that is computed on one `Resampling` shares its draws, which is what
makes differences paired.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

LEVEL = 0.95
BLOCK = 10_000_000  # numbers that are in memory at once, roughly
CACHED = 200_000_000  # bytes of draws that are kept

BETTER, WORSE, UNDECIDED = "better", "worse", "no difference shown"


@dataclass(frozen=True)
class Estimates:
    """Means of K columns. values: (K,); replicates: (resamples, K), NaN where none of a column was drawn."""

    values: np.ndarray
    replicates: np.ndarray

    def interval(self, level: float = LEVEL) -> tuple[np.ndarray, np.ndarray]:
        """The percentile interval of each column by itself: (low, high), each (K,); NaN where nothing was drawn."""
        low, high = np.full((2, self.values.size), np.nan)
        known = ~np.isnan(self.replicates).all(axis=0)
        ends = [(1 - level) / 2, (1 + level) / 2]
        if known.any():
            drawn = self.replicates[:, known]
            quantile = np.nanquantile if np.isnan(drawn).any() else np.quantile  # the first is slow
            low[known], high[known] = quantile(drawn, ends, axis=0)
        return low, high

    def simultaneous(self, level: float = LEVEL) -> tuple[np.ndarray, np.ndarray]:
        """Intervals that hold all the true values at once with probability `level`: (low, high), each (K,).

        The max-T method (Westfall and Young, Resampling-Based Multiple Testing, 1993; Romano and Wolf, Econometrica
        73:1237, 2005): each estimate plus and minus c of its standard errors, where c is the quantile of the largest
        studentized deviation among all columns. It knows how the columns hang together, so that c grows little when
        variants are alike. An estimate that never moves has no error, and the interval is the estimate itself.
        """
        error = standard_errors(self)
        c = critical_value(_largest_deviation(self.values, self.replicates, error), level)
        return self.values - c * error, self.values + c * error


def together(parts: Iterable[Estimates]) -> Estimates:
    """Estimates on the same draws as one family."""
    parts = list(parts)
    return Estimates(
        np.concatenate([part.values for part in parts]), np.concatenate([part.replicates for part in parts], axis=1)
    )


class Resampling:
    """Images drawn with replacement, again and again.

    images: ids; each one that occurs is one image. The draws depend on the number of images, on `resamples` and on
    `seed` only.
    """

    def __init__(self, images: np.ndarray, *, resamples: int, seed: int) -> None:
        self.images = np.unique(images)
        self.resamples, self.seed = resamples, seed

    def means(self, values: np.ndarray, images: np.ndarray, *, least: int = 2) -> Estimates:
        """The mean of each column, on the data and on every draw. values: (N, K), NaN where there is no number;
        images: (N,) ids, each one of `self.images`.

        Of fewer than `least` images, at least two, nothing can be said about others: a column that has numbers of fewer
        has NaN for replicates.
        """
        values = np.atleast_2d(np.asarray(values, dtype=np.float64).T).T
        used, index = np.unique(np.searchsorted(self.images, images), return_inverse=True)
        missing = np.isnan(values)
        # One column of counts serves all columns that have every number.
        whole = not missing.any()
        counts = _sums(np.ones((len(values), 1)) if whole else (~missing).astype(np.float64), index, len(used))
        sums = _sums(np.where(missing, 0.0, values), index, len(used))
        with np.errstate(invalid="ignore", divide="ignore"):
            estimates = sums.sum(axis=0) / counts.sum(axis=0)
            replicates = np.full((self.resamples, values.shape[1]), np.nan)
            if len(self.images) > 1:
                for start, drawn in self._draws(used):
                    replicates[start : start + drawn.shape[1]] = (drawn.T @ sums) / (drawn.T @ counts)
            few = np.broadcast_to((counts > 0).sum(axis=0) < max(2, least), estimates.shape)
            replicates[:, few] = np.nan
        return Estimates(estimates, replicates)

    def _draws(self, used: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
        """How often each of the images `used` was drawn: (first resample, (used, resamples) float64), in blocks."""
        count = len(self.images)
        if count * self.resamples <= CACHED:
            drawn = _all_draws(count, self.resamples, self.seed)
            size = max(1, BLOCK // len(used))
            for start in range(0, self.resamples, size):
                yield start, drawn[used, start : start + size].astype(np.float64)
        else:
            for start, block in _blocks(count, self.resamples, self.seed):
                yield start, block.T[used].astype(np.float64)


def clustered_bootstrap(
    values: np.ndarray, clusters: np.ndarray, *, resamples: int, seed: int, level: float = LEVEL
) -> tuple[float, float]:
    """The percentile interval of a mean when whole clusters are drawn, not single values.

    values: (N,) float. clusters: (N,) labels, here image ids. Returns (low, high); with a single cluster nothing can
    be said about other images, and both are NaN.
    """
    low, high = Resampling(clusters, resamples=resamples, seed=seed).means(values, clusters).interval(level)
    return float(low[0]), float(high[0])


def verdict(low: float, high: float) -> str:
    """What the interval of a difference says: `better`, `worse`, or `no difference shown` where it includes zero."""
    return BETTER if low > 0 else WORSE if high < 0 else UNDECIDED


@dataclass(frozen=True)
class Ranks:
    """Ranks of K variants, 1 is the best; each (K,) int.

    group: equal unless every variant of the better group is shown to be better than every one of the worse group.
    best: 1 + how many are shown to be better. worst: K - how many are shown to be worse.
    """

    group: np.ndarray
    best: np.ndarray
    worst: np.ndarray


def ranks(estimates: Estimates, level: float = LEVEL) -> Ranks:
    """Rank the columns by their means, apart only where the interval of their difference excludes zero.

    All pairs are one family of comparisons, corrected by max-T as in `Estimates.simultaneous`.
    """
    count = estimates.values.size
    largest = np.zeros(len(estimates.replicates))
    errors = []
    for first in range(count - 1):
        pairs = _from(estimates, first)
        errors.append(standard_errors(pairs))
        np.fmax(largest, _largest_deviation(pairs.values, pairs.replicates, errors[-1]), out=largest)
    c = critical_value(largest, level)
    differs = np.zeros((count, count), dtype=bool)
    for first, error in enumerate(errors):
        apart = np.abs(estimates.values[first + 1 :] - estimates.values[first]) > c * error
        differs[first, first + 1 :] = differs[first + 1 :, first] = apart
    above = estimates.values[:, None] > estimates.values[None, :]
    best = 1 + (differs & above).sum(axis=0)
    worst = count - (differs & above).sum(axis=1)
    order = np.argsort(-estimates.values, kind="stable")
    group = np.ones(count, dtype=np.int64)
    for place in range(1, count):
        apart = differs[np.ix_(order[:place], order[place:])].all()
        group[order[place]] = place + 1 if apart else group[order[place - 1]]
    return Ranks(group, best, worst)


def standard_errors(estimates: Estimates) -> np.ndarray:
    """(K,): the standard deviation over the draws; 0 where it is rounding only, NaN where nothing was drawn."""
    known = ~np.isnan(estimates.replicates).all(axis=0)
    error = np.full(estimates.values.size, np.nan)
    if known.any():
        error[known] = np.nanstd(estimates.replicates[:, known], axis=0, ddof=1)
    rounding = 1e-12 * np.maximum(1.0, np.abs(estimates.values))
    return np.where(error <= rounding, 0.0, error)


def critical_value(largest: np.ndarray, level: float) -> float:
    """How many standard errors hold everything at once: a quantile over the draws of the largest deviation."""
    return float(np.quantile(largest, level)) if largest.size else 0.0


def _largest_deviation(values: np.ndarray, replicates: np.ndarray, error: np.ndarray) -> np.ndarray:
    """(resamples,): the largest deviation of a draw, in standard errors, among columns that move."""
    moving = error > 0
    largest = np.zeros(len(replicates))
    if moving.any():
        deviations = np.abs(replicates[:, moving] - values[moving]) / error[moving]
        np.fmax(largest, np.fmax.reduce(deviations, axis=1), out=largest)
    return largest


def _from(estimates: Estimates, first: int) -> Estimates:
    """The differences of all later columns from one."""
    later = slice(first + 1, None)
    return Estimates(
        estimates.values[later] - estimates.values[first],
        estimates.replicates[:, later] - estimates.replicates[:, [first]],
    )


def _sums(values: np.ndarray, index: np.ndarray, count: int) -> np.ndarray:
    """(count, K): sums of the rows of values (N, K) by index."""
    sums = np.empty((count, values.shape[1]))
    for k, column in enumerate(values.T):
        sums[:, k] = np.bincount(index, weights=column, minlength=count)
    return sums


def _blocks(images: int, resamples: int, seed: int) -> Iterator[tuple[int, np.ndarray]]:
    """(first resample, how often each image was drawn: (some resamples, images) int64)."""
    random = np.random.default_rng(seed)
    size = max(1, BLOCK // images)
    for start in range(0, resamples, size):
        yield start, random.multinomial(images, np.full(images, 1 / images), size=min(size, resamples - start))


@lru_cache(maxsize=2)
def _all_draws(images: int, resamples: int, seed: int) -> np.ndarray:
    """How often each image was drawn: (images, resamples) uint8, since nothing is drawn 256 times of so many images."""
    drawn = np.empty((images, resamples), dtype=np.uint8 if images > 10 else np.int64)
    for start, block in _blocks(images, resamples, seed):
        drawn[:, start : start + len(block)] = block.T
    return drawn

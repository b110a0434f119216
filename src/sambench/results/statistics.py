"""Means with honest intervals."""

from __future__ import annotations

import numpy as np


def clustered_bootstrap(
    values: np.ndarray, clusters: np.ndarray, *, resamples: int, seed: int, level: float = 0.95
) -> tuple[float, float]:
    """The percentile interval of a mean when whole clusters are drawn, not single values.

    Instances of one image are not independent: light, blur and scene are shared. So images are drawn with
    replacement, each with all its instances (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, ch. 8
    and 13). The mean is that of the instances drawn, as in the table.

    values: (N,) float. clusters: (N,) labels, here image ids. Returns (low, high); with a single cluster nothing can
    be said about other images, and both are NaN.
    """
    _, index = np.unique(clusters, return_inverse=True)
    sums, counts = np.bincount(index, weights=values), np.bincount(index)
    images = len(counts)
    if images < 2:
        return float("nan"), float("nan")
    random = np.random.default_rng(seed)
    means = np.empty(resamples)
    block = max(1, 10_000_000 // images)  # bounds the memory on large datasets
    for start in range(0, resamples, block):
        size = min(block, resamples - start)
        drawn = random.multinomial(images, np.full(images, 1 / images), size=size)
        means[start : start + size] = drawn @ sums / (drawn @ counts)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)

"""The bootstrap: against scipy's, against known truths in simulations, and on constructed differences."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from sambench.results.statistics import (
    BETTER,
    UNDECIDED,
    WORSE,
    Resampling,
    clustered_bootstrap,
    ranks,
    verdict,
)

DRAWS = {"resamples": 4000, "seed": 0}


def instances(random: np.random.Generator, images: int, columns: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Values of 1 to 6 instances per image that share a good part of their error; the true means are 0."""
    image = np.repeat(np.arange(images), random.integers(1, 7, images))
    shared = random.normal(0, 3, (images, columns))[image]
    return shared + random.normal(0, 2, (len(image), columns)), image


def test_agrees_with_scipy() -> None:
    values, image = instances(np.random.default_rng(3), 40, 2)
    rows = [np.flatnonzero(image == one) for one in range(40)]

    def mean_difference(drawn: np.ndarray) -> float:
        chosen = np.concatenate([rows[one] for one in drawn])
        return float((values[chosen, 1] - values[chosen, 0]).mean())

    theirs = stats.bootstrap(
        (np.arange(40),), mean_difference, n_resamples=4000, vectorized=False, method="percentile", rng=1
    )
    ours = Resampling(image, **DRAWS).means(values[:, 1] - values[:, 0], image)
    low, high = ours.interval()
    width = theirs.confidence_interval.high - theirs.confidence_interval.low
    assert ours.values[0] == pytest.approx((values[:, 1] - values[:, 0]).mean())
    assert low[0] == pytest.approx(theirs.confidence_interval.low, abs=0.05 * width)
    assert high[0] == pytest.approx(theirs.confidence_interval.high, abs=0.05 * width)
    assert ours.replicates.std(ddof=1) == pytest.approx(theirs.standard_error, rel=0.05)


def test_intervals_cover_the_truth() -> None:
    """500 data sets of 150 images: single intervals, and all five differences from a reference at once."""
    random = np.random.default_rng(11)
    alone = together = 0
    for _ in range(500):
        values, image = instances(random, 150, 6)
        differences = values[:, 1:] - values[:, :1]
        found = Resampling(image, resamples=1000, seed=0).means(differences, image)
        low, high = found.interval()
        alone += low[0] <= 0 <= high[0]
        low, high = found.simultaneous()
        together += ((low <= 0) & (high >= 0)).all()
    assert 0.93 <= alone / 500 <= 0.97
    assert 0.93 <= together / 500 <= 0.97


def test_columns_with_gaps_are_the_columns_without_them() -> None:
    values, image = instances(np.random.default_rng(5), 30, 3)
    values[::4, 1] = np.nan
    draws = Resampling(image, **DRAWS)
    found = draws.means(values, image)
    kept = ~np.isnan(values[:, 1])
    alone = draws.means(values[kept, 1], image[kept])
    np.testing.assert_allclose(found.values[1], alone.values[0])
    np.testing.assert_allclose(found.replicates[:, 1], alone.replicates[:, 0])
    np.testing.assert_allclose(found.replicates[:, 0], draws.means(values[:, 0], image).replicates[:, 0])


def test_few_images_may_not_be_drawn_at_all() -> None:
    image = np.array([1, 2, 3, 4, 5, 6, 7, 8])
    draws = Resampling(image, **DRAWS)
    rare = draws.means(np.array([1.0, 3.0]), np.array([3, 4]))
    assert np.isnan(rare.replicates).any() and not np.isnan(rare.interval()).any()
    assert np.isnan(draws.means(np.array([1.0]), np.array([3])).interval()).all(), "one image says nothing of others"
    assert np.isnan(draws.means(np.full((8, 1), np.nan), image).values).all()


def test_draws_do_not_depend_on_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    values, image = instances(np.random.default_rng(5), 60, 2)
    whole = Resampling(image, resamples=300, seed=9).means(values, image).replicates
    monkeypatch.setattr("sambench.results.statistics.BLOCK", 1000)
    monkeypatch.setattr("sambench.results.statistics.CACHED", 0)
    np.testing.assert_allclose(Resampling(image, resamples=300, seed=9).means(values, image).replicates, whole)


def test_simultaneous_intervals_are_wider_and_alike_for_one() -> None:
    values, image = instances(np.random.default_rng(5), 200, 20)
    found = Resampling(image, **DRAWS).means(values, image)
    half = (found.simultaneous()[1] - found.values) / found.replicates.std(axis=0, ddof=1)
    # Of 20 independent normal variables: the quantile of the largest is that of one at 0.95 ** (1 / 20).
    assert half == pytest.approx(stats.norm.ppf(0.5 + 0.5 * 0.95 ** (1 / 20)), rel=0.03)
    one = Resampling(image, **DRAWS).means(values[:, 0], image)
    assert np.array(one.simultaneous()).ravel() == pytest.approx(np.array(one.interval()).ravel(), abs=0.05)


def test_differences_that_never_move() -> None:
    image = np.arange(50)
    same = Resampling(image, **DRAWS).means(np.stack([np.zeros(50), np.full(50, 0.1)], axis=1), image)
    low, high = same.simultaneous()
    assert [verdict(*pair) for pair in zip(low, high, strict=True)] == [UNDECIDED, BETTER]
    assert verdict(-2, -1) == WORSE and verdict(-1, 0.0) == UNDECIDED and verdict(np.nan, np.nan) == UNDECIDED


def test_ranks_part_only_what_is_shown_to_differ() -> None:
    random = np.random.default_rng(2)
    image = np.arange(400)
    common = random.normal(50, 10, 400)
    noise = random.normal(0, 1, (400, 4))
    # The first two differ by nothing but noise, the third lies a little lower, the last one far below.
    values = common[:, None] + noise - noise.mean(axis=0) + np.array([0.0, 0.02, -1.0, -20.0])
    found = ranks(Resampling(image, **DRAWS).means(values, image))
    assert found.group.tolist() == [1, 1, 3, 4]
    assert found.best.tolist() == [1, 1, 3, 4] and found.worst.tolist() == [2, 2, 3, 4]


def test_a_chain_of_neighbours_is_one_group() -> None:
    # First and last are shown to differ, the middle one from neither: no border excludes it from either side.
    random = np.random.default_rng(4)
    image = np.arange(300)
    noise = random.normal(0, 4, (300, 3))
    values = noise - noise.mean(axis=0) + np.array([0.9, 0.0, -0.9]) * 0.65
    found = ranks(Resampling(image, **DRAWS).means(values, image))
    assert found.group.tolist() == [1, 1, 1]
    assert found.best.tolist() == [1, 1, 2] and found.worst.tolist() == [2, 3, 3]


def test_the_interval_of_a_mean_is_that_of_its_column() -> None:
    values, image = instances(np.random.default_rng(8), 50, 3)
    low, high = Resampling(image, **DRAWS).means(values, image).interval()
    assert (low[1], high[1]) == pytest.approx(clustered_bootstrap(values[:, 1], image, **DRAWS))

"""Jobs that go to a cluster together."""

from __future__ import annotations

from sambench.bundles import bundles


def names(jobs: list[tuple[str, int]], longest: int) -> list[list[int]]:
    """The limits of the jobs of each bundle. jobs: (name of the bundle, minutes)."""
    made = bundles(jobs, lambda job: job[0], lambda job: job[1], longest)
    return [[minutes for _, minutes in bundle] for bundle in made]


def test_jobs_with_a_name_go_together_and_others_alone() -> None:
    assert names([("a", 1), ("", 2), ("b", 3), ("a", 4), ("", 5), ("b", 6)], 100) == [[1, 4], [2], [3, 6], [5]]


def test_no_bundle_is_longer_than_a_job_may_be() -> None:
    assert names([("a", 6), ("a", 4), ("a", 1), ("a", 20), ("a", 1), ("a", 9)], 10) == [[6, 4], [1], [20], [1, 9]]

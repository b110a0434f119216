"""RWKV-SAM: its attention against the sums written out token by token, and the layout of its network."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from sambench.parity.models import load_cards
from sambench.status import NO_WEIGHTS
from sambench.variants.base import Prompts, Runtime
from sambench.variants.registry import build
from sambench.variants.rwkv_sam import CHUNKS, shifted, wkv


def step_by_step(w: float, u: float, k: list[float], v: list[float]) -> list[float]:
    """One channel, by recurrences that go through each chunk as the official kernel does, in float64.

    `behind` and `ahead` hold the weighted sums of values and of weights to the left and to the right.
    """
    length = len(k)
    chunk = math.ceil(length / CHUNKS)
    found = []
    for start in range(0, length, chunk):
        behind = np.zeros(2)
        for j in range(start):
            behind += math.exp(k[j] - w * (start - j)) * np.array([v[j], 1])
        ahead = np.zeros(2)
        for j in range(start + 1, length):
            ahead += math.exp(k[j] - w * (j - start)) * np.array([v[j], 1])
        for t in range(start, min(start + chunk, length)):
            own = math.exp(u + k[t]) * np.array([v[t], 1])
            total = behind + ahead + own
            found.append(total[0] / total[1])
            behind = math.exp(-w) * behind + math.exp(k[t]) * np.array([v[t], 1])
            if t + 1 < length:
                ahead = math.exp(w) * ahead - math.exp(k[t + 1] + w) * np.array([v[t + 1], 1])
    return found


@pytest.mark.parametrize(("length", "strength"), [(96, 2.0), (96, -3.0), (70, 1.0), (5, 0.5)])
def test_wkv_is_the_recurrence_of_the_kernel(length: int, strength: float) -> None:
    rng = np.random.default_rng(length)
    k, v = rng.normal(size=(2, 2, length, 3))
    w, u = strength * rng.uniform(0.5, 1, 3) / length, rng.normal(size=3)
    tensors = (torch.tensor(value, dtype=torch.float32) for value in (w, u, k, v))
    found = wkv(*tensors)
    expected = np.array(
        [[step_by_step(w[c], u[c], k[b, :, c].tolist(), v[b, :, c].tolist()) for c in range(3)] for b in range(2)]
    )
    np.testing.assert_allclose(found.numpy(), expected.transpose(0, 2, 1), rtol=2e-5, atol=2e-6)


def test_wkv_is_near_the_formula_of_the_paper_and_not_equal_to_it() -> None:
    length, w, u = 512, 2.0 / 512, 0.3
    rng = np.random.default_rng(0)
    k, v = rng.normal(size=(2, length))
    distance = np.abs(np.arange(length)[:, None] - np.arange(length)) - 1
    weights = np.exp(k - distance * w)
    np.fill_diagonal(weights, np.exp(u + k))
    paper = weights @ v / weights.sum(axis=1)
    tensors = (torch.tensor(value, dtype=torch.float32) for value in ([w], [u], k[None, :, None], v[None, :, None]))
    error = np.abs(wkv(*tensors)[0, :, 0].numpy() - paper).max() / np.abs(paper).max()
    assert 1e-5 < error < 2e-2


def test_wkv_survives_large_keys() -> None:
    k = torch.tensor([[[200.0], [-200.0], [90.0], [0.0]]])
    v = torch.arange(4.0)[None, :, None] + 1
    found = wkv(torch.zeros(1), torch.zeros(1), k, v)
    torch.testing.assert_close(found, torch.ones(1, 4, 1))


def test_each_quarter_of_the_channels_comes_from_one_neighbour() -> None:
    grid = torch.arange(1.0, 7.0).view(1, 1, 2, 3)  # 1 2 3 / 4 5 6
    left, right, above, below = shifted(grid.expand(1, 4, 2, 3))[0].tolist()
    assert left == [[0, 1, 2], [0, 4, 5]]
    assert right == [[2, 3, 0], [5, 6, 0]]
    assert above == [[0, 0, 0], [1, 2, 3]]
    assert below == [[4, 5, 6], [0, 0, 0]]


def test_the_network_and_its_card() -> None:
    card = load_cards()["rwkv_sam"]
    assert card.availability([]) == NO_WEIGHTS
    with torch.device("meta"):
        variant = build(card, Runtime(device="meta"), random_weights=True)
    assert sum(value.numel() for value in variant.module.parameters()) == 24_242_480
    (features,) = variant.encode([np.zeros((300, 400, 3), dtype=np.uint8)])
    candidates = variant.decode(features, Prompts(boxes=np.zeros((2, 4), dtype=np.float32)))
    assert candidates.logits.shape == (2, 1, 256, 256)
    assert candidates.scores.shape == (2, 1)
    assert candidates.upsampling.crop == (768, 1024)

"""FastSAM's letterbox and back, by hand; tests/parity compares with the official code."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sambench.variants import letterbox as module
from sambench.variants.letterbox import boxes_on_image, inside_boxes, letterbox, masks_on_image


def test_the_odd_pixel_of_padding_lies_at_the_end() -> None:
    padded = letterbox(np.full((427, 640, 3), 7, np.uint8), 640)  # 21 rows are missing to 448
    assert padded.shape == (448, 640, 3)
    grey = (padded == 114).all(axis=(1, 2))
    assert (grey[:10].all(), grey[10:437].any(), grey[437:].all()) == (True, False, True)


@pytest.mark.parametrize("size", [(427, 640), (640, 427), (333, 500), (1, 5000), (5000, 1), (7, 3)])
def test_sides_are_multiples_of_the_stride_and_the_way_back_ends_at_the_image(size: tuple[int, int]) -> None:
    padded = letterbox(np.zeros((*size, 3), np.uint8), 1024)
    frame = (padded.shape[0], padded.shape[1])
    assert max(frame) == 1024
    assert all(side % 32 == 0 for side in frame)
    height, width = size
    whole = boxes_on_image(torch.tensor([[0.0, 0, frame[1], frame[0]]]), frame, size)
    assert whole[0].tolist() == pytest.approx([0, 0, width, height])
    everything = masks_on_image(torch.ones(1, frame[0] // 4, frame[1] // 4), torch.ones(1, 1), whole, size)
    assert everything.shape == (1, *size)
    assert bool(everything.all())


def test_padding_is_cut_at_whole_cells() -> None:
    # 427 x 640 at 1024: 683.2 rows of 704, so 170.8 of 176 cells: 2.6 are cut to 2 above, 173.4 to 173 below.
    cells = torch.arange(176.0).view(1, 176, 1).expand(1, 176, 256)
    above = [
        int(masks_on_image(cells - cut, torch.ones(1, 1), torch.tensor([[0.0, 0, 640, 427]]), (427, 640)).sum()) // 640
        for cut in (1.5, 2.4, 172.4, 173.5)
    ]
    assert above[0] == 427
    assert above[1] < 427
    assert above[2] == 0
    assert above[3] == 0


def test_masks_are_the_same_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    prototypes, coefficients = torch.randn(4, 24, 32), torch.randn(5, 4)
    boxes = torch.tensor([[0.0, 0, 60, 41], [3.2, 4.0, 40.5, 30], [10, 10, 10, 20], [-5, -5, 100, 100], [1, 2, 3, 4]])
    whole = masks_on_image(prototypes, coefficients, boxes, (41, 60))
    monkeypatch.setattr(module, "PIXELS_AT_ONCE", 2 * 41 * 60)
    assert torch.equal(masks_on_image(prototypes, coefficients, boxes, (41, 60)), whole)
    assert not whole[2].any()
    assert masks_on_image(prototypes, coefficients[:0], boxes[:0], (41, 60)).shape == (0, 41, 60)


def test_a_pixel_is_inside_from_the_corner_on() -> None:
    inside = inside_boxes(torch.tensor([[1.0, 0.5, 3.0, 2.0]]), (3, 5))
    assert inside[0].nonzero().tolist() == [[1, 1], [1, 2]]

"""Masks against ground truth: kernels (masks), promptable segmentation (segany), everything (segevery), AP."""

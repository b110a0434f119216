"""Detectors: boxes of objects, made once for a dataset and the same for every variant that they prompt."""

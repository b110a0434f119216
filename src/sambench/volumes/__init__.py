"""Volumes: NIfTI images, labels and clicks in three dimensions (docs/volumes.md)."""

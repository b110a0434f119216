"""Image encoders of the SAM-1 family that segment-anything does not bring: `image (B, 3, S, S) -> (B, 256, 64, 64)`."""

from sambench.variants.deferred import defer_timm

defer_timm()

"""Image encoders that segment-anything does not bring.

Those of the SAM-1 family are `image (B, 3, S, S) -> (B, 256, 64, 64)`; what others give is said there.
"""

from sambench.variants.deferred import defer_timm

defer_timm()

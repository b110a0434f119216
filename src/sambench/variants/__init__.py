"""The variants: one contract (base), one registry of cards (registry), one module a family."""

from sambench.variants.deferred import defer

defer("segment_anything")

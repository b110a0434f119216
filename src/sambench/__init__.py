"""sambench: every Segment Anything variant, measured the same way."""

__version__ = "0.1.0"

"""The words that stand in a result where a number cannot."""

from collections.abc import Mapping

OK = "ok"

# Of a variant, before anything runs.
NO_WEIGHTS = "no weights"  # a checkpoint file is not there
BAD_WEIGHTS = "bad weights"  # a checkpoint file is there that is not the variant's, or cannot be read
RANDOM_WEIGHTS = "random weights"  # a detector whose boxes come from random weights: they are never scored
NO_DEVICE = "no device"  # the runtime names a device that is not here
NO_BOXES = "no boxes"  # a file of published boxes is not there
NOT_INSTALLED = "not installed"  # the optional package of its adapter is not there
NOT_AVAILABLE = "not available"  # no public code: the card says why
NO_NETWORK = "no network"  # a baseline: nothing to count
NO_METER = "no meter"  # nothing counts the energy of a part of the machine
NO_COMMON_CLASS = "no common class"  # a detector knows none of the dataset's categories by name
UNSUPPORTED_RUNTIME = "unsupported runtime"  # it runs only as it is: in float32, not compiled
ALL_CROWDS = "all instances are crowds"  # of a dataset: average precision has nothing to find

# Of a data set.
ALL_CROWDS = "all instances are crowds"  # nothing that a recall or precision could be of

# Of single prompts.
OUT_OF_MEMORY = "out of memory"
MEMORY_LIMIT = "memory limit"  # a batch that would need more than it may have
UNSUPPORTED_PROMPT = "unsupported prompt"

# Of single images.
UNREADABLE_IMAGE = "unreadable image"
NO_TEXTURES = "no textures"  # the photographs of frost are not there
TOO_SMALL = "too small"  # an instance of which a smaller image shows no pixel


def summary(counts: Mapping[str, int]) -> str:
    """How often each status occurs -> `ok`, the one reason there is, or how many rows each reason took."""
    total, reasons = sum(counts.values()), {status: count for status, count in counts.items() if status != OK}
    if not reasons:
        return OK
    if list(reasons.values()) == [total]:
        return next(iter(reasons))
    return ", ".join(f"{status}: {count} of {total}" for status, count in reasons.items())

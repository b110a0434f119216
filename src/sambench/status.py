"""The words that stand in a result where a number cannot."""

OK = "ok"

# Of a variant, before anything runs.
NO_WEIGHTS = "no weights"  # a checkpoint file is not there
NOT_INSTALLED = "not installed"  # the optional package of its adapter is not there
NOT_AVAILABLE = "not available"  # no public code: the card says why
NO_NETWORK = "no network"  # a baseline: nothing to count
UNSUPPORTED_RUNTIME = "unsupported runtime"  # it runs only as it is: in float32, not compiled

# Of single prompts.
OUT_OF_MEMORY = "out of memory"
UNSUPPORTED_PROMPT = "unsupported prompt"

# Of single images.
UNREADABLE_IMAGE = "unreadable image"

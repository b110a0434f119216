"""A logger plugin of Snakemake that tells the jobs of a run to a program: one JSON object per line.

    snakemake --dry-run --forceall --logger sambench

Snakemake finds it by the name of this package. `sambench.graph` reads the lines. Nothing heavy is imported here, since
every Snakemake imports every plugin.
"""

from __future__ import annotations

import json
import logging
import re
import sys

from snakemake_interface_logger_plugins.base import LogHandlerBase
from snakemake_interface_logger_plugins.common import LogEvent

# What Snakemake adds to the names of flagged files.
FLAG = re.compile(r" \((pipe|service|nodelocal|update|before update|access: \w+)\)$")


class LogHandler(LogHandlerBase):
    """Writes jobs to the standard output and errors to the standard error, in place of Snakemake's own messages."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line for a job; nothing for other events, unless they are errors."""
        try:
            if getattr(record, "event", None) == LogEvent.JOB_INFO:
                print(json.dumps(describe(record), default=str))
            elif record.levelno >= logging.ERROR:
                print(record.getMessage(), file=sys.stderr)
        except Exception:
            self.handleError(record)

    @property
    def writes_to_stream(self) -> bool:
        return True

    @property
    def writes_to_file(self) -> bool:
        return False

    @property
    def has_filter(self) -> bool:
        # Snakemake's filter would hide jobs from a profile that says `quiet`.
        return True

    @property
    def has_formatter(self) -> bool:
        return True

    @property
    def needs_rulegraph(self) -> bool:
        return False


def describe(record: logging.LogRecord) -> dict[str, object]:
    """The fields of sambench.graph.PlannedJob."""
    job = vars(record)
    return {
        "rule": job["rule_name"],
        "wildcards": dict(job["wildcards"]),
        "inputs": [FLAG.sub("", file) for file in job["input"]],
        "outputs": [FLAG.sub("", file) for file in job["output"]],
        "benchmark": job["benchmark"],
        "resources": dict(job["resources"].items()),
    }

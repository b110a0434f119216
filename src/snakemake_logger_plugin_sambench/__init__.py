"""A logger plugin of Snakemake that tells the jobs of a run to a program: one JSON object per line.

    snakemake --dry-run --forceall --logger sambench

Snakemake finds it by the name of this package. `sambench.graph` reads the lines. Nothing heavy is imported here, since
every Snakemake imports every plugin. That is also why it is the place for one thing more: of a configuration that is no
YAML, Snakemake tells neither file nor line (and of one that is no UTF-8 a traceback); here it learns to.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

from snakemake.common import configfile
from snakemake_interface_common.exceptions import WorkflowError
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


def telling(load: Callable[..., Any]) -> Callable[..., Any]:
    """Snakemake's reader of configurations, with file and line where it fails."""

    @wraps(load)
    def wrapper(source: Any, *arguments: Any, **options: Any) -> Any:
        try:
            return load(source, *arguments, **options)
        except Exception as error:
            if not isinstance(source, (str, Path)):
                raise
            from sambench.config import read_yaml
            from sambench.errors import InputError

            try:
                read_yaml(Path(source))
            except InputError as told:
                raise WorkflowError(str(told)) from None
            if isinstance(error, WorkflowError):
                raise
            raise WorkflowError(f"{source}: {' '.join(str(error).split())[:200]}") from None

    return wrapper


# Absent in a Snakemake that reads configurations elsewhere: then its own words remain.
if hasattr(configfile, "_load_configfile") and not hasattr(configfile._load_configfile, "__wrapped__"):
    configfile._load_configfile = telling(configfile._load_configfile)

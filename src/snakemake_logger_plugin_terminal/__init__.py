"""A logger plugin of Snakemake for people: one line per finished job. The profiles choose it; the whole log is written
to .snakemake/log as always.

Snakemake finds it by the name of this package. Nothing heavy is imported here, since every Snakemake imports every
plugin.
"""

from __future__ import annotations

import logging
import sys
import time
from typing import Any

from snakemake_interface_logger_plugins.base import LogHandlerBase
from snakemake_interface_logger_plugins.common import LogEvent

# Of messages without an event, those that people want to see.
KEPT = ("Nothing to be done", "Unlock", "Error", "error")
INTERRUPTED = "interrupted: start again to continue"


class LogHandler(LogHandlerBase):
    """Lines instead of Snakemake's own messages; those of dry runs, with --verbose and of errors stay Snakemake's."""

    def __post_init__(self) -> None:
        from snakemake.logging import ColorizingTextHandler, DefaultFilter, DefaultFormatter

        told = self.common_settings
        self._plain = ColorizingTextHandler(
            nocolor=told.nocolor,
            stream=sys.stdout if told.stdout else sys.stderr,
            filter=DefaultFilter(told.quiet, told.debug_dag, told.verbose, told.dryrun, told.printshellcmds),
            formatter=DefaultFormatter(told.quiet, told.show_failed_logs),
        )
        self._everything = bool(told.dryrun or told.verbose or told.debug_dag)
        self._jobs: dict[int, dict[str, Any]] = {}
        self._interrupted = False

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line for a finished job, and what Snakemake has to say that is not about how it works."""
        try:
            if self._everything:
                self._as_snakemake(record)
            elif not self._interrupted:
                self._lines(record)
        except BrokenPipeError:
            raise
        except Exception:
            self.handleError(record)

    def _as_snakemake(self, record: logging.LogRecord) -> None:
        if self._plain.filter(record):
            self._plain.emit(record)

    def _lines(self, record: logging.LogRecord) -> None:
        event, message = getattr(record, "event", None), record.getMessage()
        if message.startswith("Terminating processes on user request"):
            self._interrupted = True
            self._say(INTERRUPTED)
        elif event == LogEvent.JOB_INFO:
            self._begin(vars(record))
        elif event == LogEvent.JOB_FINISHED:
            self._finish(vars(record)["job_id"])
        elif record.levelno >= logging.WARNING or (event is None and message.startswith(KEPT)):
            self._as_snakemake(record)

    def _begin(self, job: dict[str, Any]) -> None:
        from sambench.terminal import PROGRESS

        facts = ("rule_name", "wildcards", "output")
        self._jobs[job["jobid"]] = {name: job[name] for name in facts}
        PROGRESS.begin(job["jobid"], time.monotonic())

    def _finish(self, number: int) -> None:
        from sambench.terminal import PROGRESS, finding

        now = time.monotonic()
        seconds = PROGRESS.finish(number, now)
        job = self._jobs.pop(number, None)
        if job is not None and job["output"]:
            outputs = [str(file).partition(" (")[0] for file in job["output"]]
            self._say(PROGRESS.line(finding(job["rule_name"], dict(job["wildcards"]), outputs, seconds), now))

    def _say(self, line: str) -> None:
        if not {"all", "progress"} & {str(getattr(kind, "value", kind)) for kind in self.common_settings.quiet or ()}:
            print(line, file=self._plain.stream, flush=True)

    @property
    def writes_to_stream(self) -> bool:
        return True

    @property
    def writes_to_file(self) -> bool:
        return False

    @property
    def has_filter(self) -> bool:
        return True

    @property
    def has_formatter(self) -> bool:
        return True

    @property
    def needs_rulegraph(self) -> bool:
        return False

"""How a stage's script starts: with the values of its Snakemake job, or by hand with those of an earlier job.

A script has one function `main` with keyword-only parameters. Each is filled with the value of the same name among the
job's inputs, outputs, params, wildcards and `threads`: native lists and mappings, which never pass through a shell.
Every job leaves these values beside its log, as JSON; `sambench stage FILE.json` runs the job again by hand.
"""

from __future__ import annotations

import inspect
import json
import resource
import runpy
import sys
import time
import typing
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, TextIO

import cyclopts

from sambench.errors import InputError, in_one_line
from sambench.gpus import one_gpu

# No --no-flag and --empty-list beside every option of the command line.
PLAIN = cyclopts.Parameter(negative=())
SOURCES = ("input", "output", "params", "wildcards")


def run(main: Callable[..., Any]) -> None:
    """Run a script's `main` with the values of the Snakemake job that started the script.

    What it prints also goes to the job's log. An InputError, and what the machine refuses (a full disk, a folder that
    may not be written), end it with exit status 1 and one line on stderr; any other exception is a bug.
    """
    job = sys.modules["__main__"].__dict__.get("snakemake")
    if job is None:
        script = Path(sys.argv[0]).stem
        sys.exit(f"{script}: a script of the workflow; `sambench stage FILE.json` runs a job again by hand (see docs)")
    values = job_values(main, job)
    log = Path(job.log[0]) if job.log else None
    with in_one_line():
        stage = Path(inspect.getfile(main)).stem.rpartition(".")[2]
        record = {"stage": stage, "rule": job.rule, "arguments": values}
        with recorded(log, record), copied_to(log), leases(job.resources, values) as gpu:
            if gpu:
                print(f"GPU {gpu}", file=sys.stderr)
            call(main, values)


def leases(resources: Mapping[str, Any], values: Mapping[str, Any]) -> AbstractContextManager[str]:
    """A GPU of its own for a job that asks for one, on a machine of several.

    A device that the configuration names by its number (`cuda:1`) is that one, whoever else computes on it.
    """
    settings = [values.get("settings"), (values.get("model") or {}).get("runtime")]
    numbered = any(":" in str(each.get("device", "")) for each in settings if isinstance(each, Mapping))
    return one_gpu() if resources.get("gpu") and not numbered else nullcontext("")


@contextmanager
def recorded(log: Path | None, job: Mapping[str, Any]) -> Iterator[None]:
    """Write the record of a job beside its log: its values when it starts, and when it started and ended, in seconds
    since 1970, and its peak memory in MiB, when it ends well."""
    if log is None:
        yield
        return
    log.parent.mkdir(parents=True, exist_ok=True)
    file, times = log.with_suffix(".json"), {"started": time.time()}
    file.write_text(json.dumps({**job, **times}, indent=1, default=str), encoding="utf-8")
    yield
    times["ended"] = max(time.time(), times["started"])
    times["peak_memory_mib"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10, 1)
    file.write_text(json.dumps({**job, **times}, indent=1, default=str), encoding="utf-8")


def call(main: Callable[..., Any], values: Mapping[str, Any]) -> None:
    """Call a script's `main`; what its user can mend becomes one line and exit status 1."""
    with in_one_line():
        main(**typed(main, values))


def job_values(main: Callable[..., Any], job: Any) -> dict[str, Any]:
    """The values of a Snakemake job that the parameters of `main` name.

    Raises TypeError for a parameter that two kinds of values have, or none: a bug in the rule.
    """
    named: dict[str, list[Any]] = {"threads": [job.threads]}
    for source in SOURCES:
        for name, value in getattr(job, source).items():
            named.setdefault(name, []).append(value)
    values = {}
    for name, parameter in inspect.signature(main).parameters.items():
        found = named.get(name, [])
        if len(found) > 1 or not (found or parameter.default is not parameter.empty):
            raise TypeError(f"rule {job.rule}: parameter {name}: expected one value, found {len(found)}")
        if found:
            values[name] = _plain(found[0])
    return values


def _plain(value: Any) -> Any:
    """Snakemake's lists of files as lists of text."""
    if isinstance(value, str):
        return str(value)
    if isinstance(value, Mapping):
        return dict(value)
    if hasattr(value, "__iter__"):
        return [_plain(item) for item in value]
    return value


def typed(main: Callable[..., Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Text as Path where the parameter is a Path, a list of Paths or a mapping to Paths; a lone file of a list too."""
    hints = typing.get_type_hints(main)
    made: dict[str, Any] = {}
    for name, value in values.items():
        hint = hints.get(name)
        if hint in (Path, Path | None) and value is not None:
            made[name] = Path(value)
        elif hint in (list[Path], list[Path] | None) and value is not None:
            made[name] = [Path(item) for item in ([value] if isinstance(value, str) else value)]
        elif hint in (dict[str, Path], Mapping[str, Path]):
            made[name] = {key: Path(item) for key, item in value.items()}
        else:
            made[name] = value
    return made


class _Both:
    """A stream that writes to two."""

    def __init__(self, one: TextIO, two: TextIO) -> None:
        self.one, self.two = one, two

    def write(self, text: str) -> int:
        self.two.write(text)
        return self.one.write(text)

    def flush(self) -> None:
        self.one.flush()
        self.two.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.one, name)


@contextmanager
def copied_to(log: Path | None) -> Iterator[None]:
    """Copy stdout and stderr to a log, an exception's traceback included."""
    if log is None:
        yield
        return
    out, err = sys.stdout, sys.stderr
    with log.open("w", encoding="utf-8") as file:
        sys.stdout, sys.stderr = _Both(out, file), _Both(err, file)
        try:
            yield
        except Exception:
            import traceback

            traceback.print_exc(file=file)
            raise
        finally:
            sys.stdout, sys.stderr = out, err


def rerun(record: Path, scripts: Path) -> None:
    """Run a job again by hand. record: the JSON file beside its log. scripts: the folder of the workflow's scripts.

    Raises InputError when the file is no such record.
    """
    try:
        job = json.loads(record.read_text(encoding="utf-8"))
        script, arguments = scripts / f"{job['stage']}.py", job["arguments"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        remedy = "take a .json file of results/logs"
        raise InputError(record, expected="the values of a job", found=error, remedy=remedy) from None
    if not script.is_file():
        raise InputError(record, "stage", expected=f"a script of {scripts}", found=job["stage"])
    call(runpy.run_path(str(script))["main"], arguments)


def command(main: Callable[..., Any]) -> None:
    """Run a function as a command: its keyword-only parameters are the options, its docstring is the help."""
    app = cyclopts.App(help_format="markdown", default_parameter=PLAIN)
    app.default(main)
    guarded(app)


def guarded(app: cyclopts.App) -> None:
    """Call a command line; what its user can mend becomes one line and exit status 1."""
    with in_one_line():
        app()

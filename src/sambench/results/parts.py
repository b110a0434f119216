"""Tables by parts: what each (dataset, variant, runtime, prompt group) has to say is found once, and tables stack it.

A job reads the shards of one part and writes the lines of every such table, so that a variant that is added to a study
costs its own part and no other. Tables that put variants beside one another on the same prompts (results/paired.py) do
not come in parts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from sambench import records
from sambench.errors import InputError
from sambench.jobs import Job
from sambench.parquet import REMAKE, inputs, read_parquet, write_parquet
from sambench.provenance import digest, provenance
from sambench.results.table import Table, all_tables, concat, selected_tables, typed

if TYPE_CHECKING:
    from sambench.study import Study

FACTS = ["annotation_id", "image_id", "category_id", "area", "iscrowd"]


def by_parts(*, name: str, schema: pa.Schema, by_prompt: bool = False, **rest: Any) -> Table:
    """A table that only stacks its parts; `rest` are the other fields of Table, its `part` among them.

    by_prompt: all variants of a prompt set stand together; else all prompt sets of a variant.
    """

    def build(results: Path, settings: Mapping[str, Any]) -> pd.DataFrame:
        parts = []
        for names, config_digest in settings["jobs"]:
            job = Job(*names)
            file = Path(job.part_file(results, name))
            parts.append(read_parquet(file, schema, config_digest=config_digest).to_pandas())
        rows = concat(parts, schema)
        if not by_prompt or rows.empty:
            return rows
        datasets, groups = list(dict.fromkeys(names[0] for names, _ in settings["jobs"])), settings["groups"]
        order = [
            (datasets.index(names[0]), list(groups).index(names[3]), groups[names[3]].index(prompt))
            for (names, _), part in zip(settings["jobs"], parts, strict=True)
            for prompt in part["prompt"]
        ]
        return rows.iloc[sorted(range(len(rows)), key=order.__getitem__)].reset_index(drop=True)

    def sources(study: Study) -> list[str]:
        return files(study, name)

    return Table(name=name, schema=schema, sources=sources, settings=settings, build=build, **rest)


def files(study: Study, table: str) -> list[str]:
    """The parts of a table."""
    return [job.part_file(study.results, table) for job in study.prompted_jobs()]


def settings(study: Study) -> dict[str, Any]:
    """What a table needs to find its parts and to know that they are of this study."""
    return {
        "jobs": [[list(job), digest(part_settings(study, job))] for job in study.prompted_jobs()],
        "groups": {group: study.prompt_types(group) for group in study["prompt_groups"]},
    }


def part_settings(study: Study, job: Job) -> dict[str, Any]:
    """What decides about a part, besides its shards: for `write_parts`."""
    return {
        "types": study.prompt_types(job.group),
        "selections": study["selections"],
        "statistics": study.bootstrap,
        "config_digest": study.segany_digest(job.variant, job.runtime),
    }


def parted(study: Study) -> list[str]:
    """The names of a study's tables that come in parts."""
    return [table.name for table in selected_tables(study) if table.part is not None]


def write_parts(
    job: Job,
    tables: Iterable[str],
    results: Path,
    shards: Sequence[Path],
    prompts: Path,
    instances: Path,
    settings: Mapping[str, Any],
) -> None:
    """Write one part of each table from the shards of a job.

    settings: of `part_settings`. One prompt set is in memory at a time.

    Raises InputError when a file is not what this study's job wrote for the instances and prompts that are here, or a
    planned prompt was not scored exactly once.
    """
    chosen = {name: all_tables()[name] for name in tables}
    lines: dict[str, list[Mapping[str, Any]]] = {name: [] for name in chosen}
    for prompt, rows in prompt_sets(shards, prompts, instances, settings):
        for name, table in chosen.items():
            assert table.part is not None, f"{name} does not come in parts"
            lines[name] += table.part(job, prompt, rows, settings)
    origin = provenance(dict(settings)) | inputs(instances=instances, prompts=prompts, segany=shards)
    for name, table in chosen.items():
        write_parquet(Path(job.part_file(results, name)), typed(lines[name], table.schema), table.schema, origin)


def prompt_sets(
    shards: Sequence[Path], prompts: Path, instances: Path, settings: Mapping[str, Any]
) -> Iterator[tuple[str, pd.DataFrame]]:
    """Each prompt set of a job with its rows (columns of records.SEGANY), checked, in the order in which they occur.

    Raises InputError as `write_parts` does.
    """
    made_of = inputs(instances=instances)
    truth = read_parquet(instances, records.INSTANCES, columns=FACTS).to_pandas()
    everything = {"config_digest": settings["config_digest"], "made_of": made_of | inputs(prompts=prompts)}
    having: dict[str, list[Path]] = {}  # the shards that have rows of a prompt set
    for file in shards:
        names = read_parquet(file, records.SEGANY, columns=["prompt"], **everything)["prompt"]
        for prompt in pc.unique(names).to_pylist():
            having.setdefault(prompt, []).append(file)
    for prompt in dict.fromkeys([*having, *settings["types"]]):
        where = ("prompt", prompt)
        files = having.get(prompt, [])
        parts = [read_parquet(file, records.SEGANY, where=where, **everything) for file in files]
        rows = pa.concat_tables([records.SEGANY.empty_table(), *parts]).to_pandas()
        check_facts(rows, np.repeat(np.array(files, dtype=object), [len(part) for part in parts]), truth)
        keys = ["annotation_id", "prompt"]
        planned = read_parquet(prompts, records.PROMPTS, columns=keys, where=where, made_of=made_of).to_pandas()
        check_complete(rows, planned, shards[0].parent.as_posix())
        yield prompt, rows


def check_facts(rows: pd.DataFrame, files: np.ndarray, instances: pd.DataFrame) -> None:
    """What rows say of their instances is what the instances say. files: (N,) the file of each row.

    Raises InputError that names the first file where that is not so.
    """
    position = pd.Index(instances["annotation_id"]).get_indexer(rows["annotation_id"])
    wrong = {"annotation_id": position < 0}
    for name in ("image_id", "category_id", "area", "iscrowd"):
        wrong[name] = (instances[name].to_numpy()[position] != rows[name].to_numpy()) & (position >= 0)
    for name, where in wrong.items():
        if where.any():
            row = int(where.argmax())
            raise InputError(
                files[row],
                name,
                expected="what the dataset's instances say",
                found=f"{rows[name].iloc[row]} of annotation {rows['annotation_id'].iloc[row]}",
                remedy=REMAKE,
            )


def check_complete(results: pd.DataFrame, prompts: pd.DataFrame, where: str) -> None:
    """Every planned prompt exactly once.

    Raises InputError that counts what is missing, doubled or not planned.
    """
    keys = ["annotation_id", "prompt"]
    counts = results.groupby(keys).size()
    planned = pd.MultiIndex.from_frame(prompts[keys])
    missing, unplanned = planned.difference(counts.index), counts.index.difference(planned)
    doubled = int((counts > 1).sum())
    if len(missing) or len(unplanned) or doubled:
        raise InputError(
            where,
            expected=f"each of {len(planned)} planned prompts once",
            found=f"{len(missing)} missing, {doubled} more than once, {len(unplanned)} not planned",
            remedy="delete the shards of this job and run again",
        )

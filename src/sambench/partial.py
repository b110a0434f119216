"""What a job has finished, kept until all of it is: a job that was killed goes on where it was.

A job makes its rows piece after piece, always the same pieces in the same order. Finished ones lie in files beside the
results, as Snakemake deletes the outputs of a job that failed. A file is written every few minutes, has its name when
it is whole, and says by a digest what decided its numbers and what its rows are; of another configuration, other
weights or code, or damaged, it is not used. The rows of an output are then read from these files, piece by piece, so
that an undisturbed job and one that was killed write the same.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import secrets
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pyarrow as pa

from sambench.files import atomic
from sambench.jobs import identity
from sambench.parquet import checked, digest_of

KEEP_SECONDS = 120.0  # what a killed job loses at most, beside the piece at which it was
KEEP_ROWS = 40_000  # of finished pieces that are in memory at once
_SCHEMA = "sambench.partial"
_OPTIONS = pa.ipc.IpcWriteOptions(compression="zstd")


def partial_folder(output: Path) -> Path:
    """Where a job with this output keeps what it has finished: `partial` in the folder of results."""
    root = output.parents[max(len(identity(output)) - 1, 0)]
    return root / "partial" / output.relative_to(root).with_suffix("")


@dataclass(frozen=True)
class _Part:
    """Pieces from `first` on, one record batch each, in one file per table."""

    first: int
    count: int
    files: dict[str, Path]


class Partial:
    """The finished pieces of a job, from the first one on.

    folder: for the files. key: a digest of all that decides the numbers. schemas: of the tables that each piece has.
    title: of what is said about files that cannot be used.
    """

    def __init__(self, folder: Path, key: str, schemas: Mapping[str, pa.Schema], title: str = "") -> None:
        self.folder, self.key, self.schemas = folder, key, dict(schemas)
        # A process that outlives its Snakemake may write here too: each one has files of its own.
        self._token = secrets.token_hex(4)
        self._parts: list[_Part] = []
        self._waiting: list[dict[str, pa.RecordBatch]] = []
        self._kept = time.monotonic()
        self._take(title)

    @property
    def pieces(self) -> int:
        """How many pieces are finished."""
        return self._saved + len(self._waiting)

    @property
    def _saved(self) -> int:
        return sum(part.count for part in self._parts)

    def add(self, tables: Mapping[str, pd.DataFrame]) -> None:
        """Add the next piece. Raises ValueError as `write_parquet` does."""
        self._waiting.append({name: _batch(checked(name, tables[name], self.schemas[name])) for name in self.schemas})
        rows = sum(batch.num_rows for piece in self._waiting for batch in piece.values())
        if rows >= KEEP_ROWS or time.monotonic() - self._kept >= KEEP_SECONDS:
            self._keep()

    def batches(self, name: str, columns: Sequence[int] | None = None) -> Iterator[pa.RecordBatch]:
        """The rows of one table, a record batch per piece. columns: only these, by their places."""
        for part in self._parts:
            yield from _read(part.files[name], columns)
        for piece in self._waiting:
            yield piece[name] if columns is None else piece[name].select(list(columns))

    def remove(self) -> None:
        """Remove the files: the outputs are written."""
        for part in self._parts:
            for file in part.files.values():
                file.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # not there, or somebody else's files are in it
            self.folder.rmdir()

    def _keep(self) -> None:
        """Write what waits. The file of the first table comes last: with it the others are there."""
        first, count = self._saved, len(self._waiting)
        files = {name: self._file(first, name) for name in self.schemas}
        for name, schema in reversed(self.schemas.items()):
            batches = [piece[name] for piece in self._waiting]
            facts = {"key": self.key, "first": first, "count": count, "rows": _rows(name, schema, first, batches)}
            said = schema.with_metadata({_SCHEMA: json.dumps(facts)})
            with atomic(files[name]) as temporary, pa.ipc.new_file(str(temporary), said, options=_OPTIONS) as writer:
                for batch in batches:
                    writer.write_batch(batch.replace_schema_metadata(said.metadata))
        self._parts.append(_Part(first, count, files))
        self._waiting = []
        self._kept = time.monotonic()

    def _file(self, first: int, name: str) -> Path:
        return self.folder / f"{first}.{self._token}.{name}.arrow"

    def _take(self, title: str) -> None:
        """Take over files that earlier processes left, as far as they follow one another; the others go."""
        lead, *more = self.schemas
        refused: list[str] = []
        found: dict[int, _Part] = {}
        for file in self.folder.glob(f"*.{lead}.arrow"):
            stem = file.name.removesuffix(f"{lead}.arrow")
            files = {lead: file, **{name: file.with_name(f"{stem}{name}.arrow") for name in more}}
            try:
                facts = [self._verified(name, each) for name, each in files.items()]
                if len({(first, count) for first, count in facts}) > 1:
                    raise ValueError("broken")
                found[facts[0][0]] = _Part(*facts[0], files)
            except ValueError as error:
                refused.append(str(error))
        while (part := found.pop(self._saved, None)) and part.count:
            mine = {name: file.rename(self._file(part.first, name)) for name, file in reversed(part.files.items())}
            self._parts.append(_Part(part.first, part.count, mine))
        taken = {file for part in self._parts for file in part.files.values()}
        for file in {*self.folder.glob("*")} - taken:
            file.unlink(missing_ok=True)
        if refused:
            why = ", ".join(f"{refused.count(reason)} {reason}" for reason in dict.fromkeys(refused))
            print(f"{title}: what an earlier run had finished is not used: {why}", file=sys.stderr)

    def _verified(self, name: str, file: Path) -> tuple[int, int]:
        """(first piece, number of pieces) of a file. Raises ValueError, in a word, when it cannot be used."""
        schema = self.schemas[name]
        try:
            with pa.OSFile(str(file)) as source, pa.ipc.open_file(source) as reader:
                facts = json.loads((reader.schema.metadata or {})[_SCHEMA.encode()])
                if facts["key"] != self.key or reader.schema.remove_metadata() != schema.remove_metadata():
                    raise ValueError(OTHER)
                batches = [reader.get_batch(number) for number in range(reader.num_record_batches)]
                if len(batches) == facts["count"] and facts["rows"] == _rows(name, schema, facts["first"], batches):
                    return int(facts["first"]), int(facts["count"])
        except Exception as error:  # a damaged file makes pyarrow stumble over whatever its bytes happen to say
            if str(error) == OTHER:
                raise
        raise ValueError("broken")


OTHER = "of another configuration, weights, code or machine"


def _batch(table: pa.Table) -> pa.RecordBatch:
    """A table as one record batch, also one without rows."""
    return pa.RecordBatch.from_arrays([column.combine_chunks() for column in table.columns], schema=table.schema)


def _rows(name: str, schema: pa.Schema, first: int, batches: Sequence[pa.RecordBatch]) -> str:
    """A digest of the rows of a table and of which pieces they are."""
    counts = [first, *(batch.num_rows for batch in batches)]
    values = digest_of(schema, sum(counts[1:]), lambda at: (batch.column(at) for batch in batches))
    return hashlib.sha256(f"{name} {counts} {values}".encode()).hexdigest()


def _read(file: Path, columns: Sequence[int] | None) -> Iterator[pa.RecordBatch]:
    # Not mapped into memory: a file that is cut meanwhile would end the process.
    options = pa.ipc.IpcReadOptions(included_fields=None if columns is None else list(columns))
    with pa.OSFile(str(file)) as source, pa.ipc.open_file(source, options=options) as reader:
        yield from (reader.get_batch(number).replace_schema_metadata() for number in range(reader.num_record_batches))

"""Parquet files of sambench: written under a schema with their origin in the metadata, and read back the same way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from sambench.errors import InputError
from sambench.files import atomic

SCHEMA_VERSION = "1"
PREFIX = b"sambench."


def write_parquet(path: Path, frame: pd.DataFrame | pa.Table, schema: pa.Schema, provenance: Mapping[str, str]) -> None:
    """Write rows under a schema, with provenance in the file's metadata, to a temporary name first.

    Raises ValueError when a column is missing, unexpected or of another type: a bug, not the user's mistake.
    """
    if isinstance(frame, pd.DataFrame):
        extra, missing = set(frame.columns) - set(schema.names), set(schema.names) - set(frame.columns)
        if extra or missing:
            raise ValueError(f"{path.name}: missing columns {sorted(missing)}, unexpected {sorted(extra)}")
        table = pa.Table.from_pandas(frame, schema=schema, preserve_index=False)
    else:
        table = frame.select(schema.names).cast(schema)
    metadata = {PREFIX + b"schema_version": SCHEMA_VERSION.encode()}
    metadata |= {PREFIX + key.encode(): value.encode() for key, value in provenance.items()}
    with atomic(path) as temporary:
        pq.write_table(table.replace_schema_metadata(metadata), temporary, compression="zstd")


def read_parquet(
    path: Path, schema: pa.Schema, *, columns: Sequence[str] | None = None, where: tuple[str, str] | None = None
) -> pa.Table:
    """Read a file that `write_parquet` made.

    columns: only these. where: (column, value), only the rows that have the value.

    Raises InputError when it is no such file or its columns are others.
    """
    filters = [(where[0], "=", where[1])] if where else None
    try:
        found = pq.read_schema(path, memory_map=True).remove_metadata()
        if found == schema:
            names = None if columns is None else list(columns)
            return pq.read_table(path, memory_map=True, columns=names, filters=filters)
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(path, expected="a Parquet file of sambench", found=str(error).splitlines()[0]) from None
    raise InputError(
        path,
        "columns",
        expected=", ".join(schema.names),
        found=", ".join(found.names),
        remedy="delete the file and run again: another version wrote it (docs/renames.md)",
    )


def read_provenance(path: Path) -> dict[str, str]:
    """What `write_parquet` was told about the origin of a file."""
    metadata = pq.read_schema(path).metadata or {}
    return {
        key.removeprefix(PREFIX).decode(): value.decode() for key, value in metadata.items() if key.startswith(PREFIX)
    }

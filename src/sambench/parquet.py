"""Parquet files of sambench: written under a schema with their origin in the metadata, and verified when they are read.

A file says what it is (`stage`, `dataset`, `variant`, ..., which follow from its path), what it was made of (`input.*`,
see `inputs`), what its rows are (`rows_sha256`), and seals all of that (`seal`). A file in another's place, a changed
number, a flipped bit or a value that cannot be is an InputError that names the file and how to make it again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sambench.digests import digest
from sambench.errors import InputError
from sambench.files import atomic
from sambench.jobs import identity
from sambench.record_checks import Finding, impossible

SCHEMA_VERSION = "1"
PREFIX = b"sambench."
ROWS, SEAL, INPUT = "rows_sha256", "seal", "input."
REMAKE = "delete it and run again"
OTHER_VERSION = f"{REMAKE}: another version wrote it (docs/renames.md)"


def write_parquet(path: Path, frame: pd.DataFrame | pa.Table, schema: pa.Schema, provenance: Mapping[str, str]) -> None:
    """Write rows under a schema, with provenance in the file's metadata, to a temporary name first.

    provenance: what decided about the content, and the digests of what it was made of (`inputs`).

    Raises ValueError when a column is missing, unexpected or of another type, or a value cannot be: a bug, not the
    user's mistake.
    """
    if isinstance(frame, pd.DataFrame):
        extra, missing = set(frame.columns) - set(schema.names), set(schema.names) - set(frame.columns)
        if extra or missing:
            raise ValueError(f"{path.name}: missing columns {sorted(missing)}, unexpected {sorted(extra)}")
        table = pa.Table.from_pandas(frame, schema=schema, preserve_index=False)
    else:
        table = frame.select(schema.names).cast(schema)
    if finding := impossible(table, schema):
        raise ValueError(f"{path.name}: {': '.join(finding)}")
    facts = {"schema_version": SCHEMA_VERSION, **identity(path), **provenance, ROWS: rows_digest(table)}
    metadata = {PREFIX + key.encode(): value.encode() for key, value in {**facts, SEAL: _seal(facts)}.items()}
    with atomic(path) as temporary:
        pq.write_table(table.replace_schema_metadata(metadata), temporary, compression="zstd", write_page_checksum=True)


def read_parquet(
    path: Path,
    schema: pa.Schema,
    *,
    columns: Sequence[str] | None = None,
    where: tuple[str, str] | None = None,
    config_digest: str = "",
    made_of: Mapping[str, str] | None = None,
) -> pa.Table:
    """Read a file that `write_parquet` made.

    columns: only these. where: (column, value), only the rows that have the value. config_digest: the one that the file
    must have. made_of: the `inputs` that it must have been made of; of these, what the file does not name is not
    compared. Empty: not compared.

    The whole file is verified, and once in a process as long as it is the same file.

    Raises InputError when it is no such file, its columns are others, its content is not what was written, it is
    another job's or another configuration's, or a value is impossible.
    """
    facts, table = _verified(path, schema)
    if config_digest and facts.get("config_digest") != config_digest:
        raise InputError(
            path,
            "config_digest",
            expected=f"that of this study, {config_digest[:12]}",
            found=facts.get("config_digest", "none")[:12],
            remedy=REMAKE,
        )
    for name, expected in (made_of or {}).items():
        if facts.get(name, expected) != expected:
            word = name.removeprefix(INPUT)
            raise InputError(path, name, expected=f"the {word} that are here", found="others", remedy=REMAKE)
    names = schema.names if columns is None else list(columns)
    if table is None:
        return _read(path, columns=names, filters=[(where[0], "=", where[1])] if where else None)
    return (table.filter(pc.equal(table[where[0]], where[1])) if where else table).select(names)


def _verified(path: Path, schema: pa.Schema) -> tuple[dict[str, str], pa.Table | None]:
    """What a file says of itself, once it is what was written there; and its rows, where it was read for that."""
    try:
        stat = path.stat()
    except OSError as error:
        raise _unreadable(path, error) from None
    version = (str(path.absolute()), stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
    known = _VERIFIED.get(version)
    if known is not None and known[0] == schema:
        return known[1], None
    table = _read(path)
    found = table.schema.remove_metadata()
    if found != schema:
        expected = ", ".join(schema.names)
        raise InputError(path, "columns", expected=expected, found=_difference(found, schema), remedy=OTHER_VERSION)
    facts = _facts(path, table.schema.metadata)
    _verify_facts(path, facts)
    if rows_digest(table) != facts[ROWS]:
        raise InputError(path, "rows", expected="those that were written", found="others", remedy=REMAKE)
    refuse(path, impossible(table, schema))
    _VERIFIED[version] = schema, facts
    return facts, table


_VERIFIED: dict[tuple[str, int, int, int, int], tuple[pa.Schema, dict[str, str]]] = {}


def _read(path: Path, **what: Any) -> pa.Table:
    try:
        # Not mapped into memory: a file that is cut meanwhile would end the process.
        table = pq.read_table(path, page_checksum_verification=True, **what)
        list(table.schema.names)  # raises where one is no text
    except Exception as error:  # a damaged file makes pyarrow stumble over whatever its bytes happen to say
        raise _unreadable(path, error) from None
    return table


def refuse(path: Path, finding: Finding | None) -> None:
    """Raise InputError when there is a finding about the content of a file (record_checks.py)."""
    if finding:
        raise InputError(path, finding[0], expected=finding[1], found=finding[2], remedy=REMAKE)


def count_rows(path: Path) -> int:
    """How many rows a file has, without reading them."""
    return int(pq.read_metadata(path).num_rows)


def read_provenance(path: Path) -> dict[str, str]:
    """What `write_parquet` was given about the origin of a file, and what follows from its path.

    Raises InputError when it is no file that `write_parquet` made.
    """
    try:
        metadata = pq.read_schema(path).metadata
    except Exception as error:
        raise _unreadable(path, error) from None
    facts = _facts(path, metadata)
    _verify_facts(path, facts)
    return {key: value for key, value in facts.items() if key not in (ROWS, SEAL)}


def inputs(**files: Path | Iterable[Path]) -> dict[str, str]:
    """The digests of what a file is made of, for its provenance: `input.NAME`.

    Of Parquet files those of their rows, so that a file that was made again with the same rows is the same; of other
    files those of their bytes; of several files one digest.
    """
    found = {}
    for name, given in files.items():
        paths = [given] if isinstance(given, Path) else list(given)
        digests = [content_digest(path) for path in paths]
        if digests:
            one = digests[0] if len(digests) == 1 else hashlib.sha256(" ".join(digests).encode()).hexdigest()
            found[f"{INPUT}{name}"] = one
    return found


def content_digest(path: Path) -> str:
    """The digest of a file's rows as it names them; of its bytes where it is no Parquet file of sambench."""
    if path.suffix == ".parquet":
        try:
            metadata = pq.read_schema(path).metadata or {}
        except Exception as error:
            raise _unreadable(path, error) from None
        if PREFIX + ROWS.encode() in metadata:
            return str(_facts(path, metadata)[ROWS])
    return digest(path)


def rows_digest(table: pa.Table) -> str:
    """The SHA-256 of the values of a table: the same however a file stores them."""
    hasher = hashlib.sha256()
    for field, column in zip(table.schema, table.columns, strict=True):
        # What a nested type holds has another name in Parquet.
        kind = str(field.type) if not pa.types.is_nested(field.type) else f"nested in {field.type.num_fields}"
        hasher.update(f"{field.name} {kind} {len(column)}\n".encode())
        _add_values(hasher, column.combine_chunks())
    return hasher.hexdigest()


def _add_values(hasher: hashlib._Hash, values: pa.Array | pa.ChunkedArray) -> None:
    """The nulls, then the values that are there. What a buffer holds instead of a null is arbitrary."""
    if isinstance(values, pa.ChunkedArray):  # of no chunk, or of more than fits into one
        values = pa.concat_arrays(values.chunks) if values.num_chunks else pa.array([], values.type)
    hasher.update(values.is_valid().to_numpy(zero_copy_only=False).tobytes())
    there = values.drop_null()
    if pa.types.is_list(there.type):
        hasher.update(pc.list_value_length(there).to_numpy(zero_copy_only=False).tobytes())
        _add_values(hasher, there.flatten())
    elif pa.types.is_string(there.type) or pa.types.is_binary(there.type):
        hasher.update(pc.binary_length(there).to_numpy(zero_copy_only=False).tobytes())
        hasher.update(b"".join(there.cast(pa.binary()).to_pylist()))
    elif pa.types.is_nested(there.type):
        hasher.update(repr(there.to_pylist()).encode())
    else:
        hasher.update(there.to_numpy(zero_copy_only=False).tobytes())


def _seal(facts: Mapping[str, str]) -> str:
    """One digest of all that a file says about itself, that of its rows among it."""
    lines = [f"{key}={value}" for key, value in sorted(facts.items()) if key != SEAL]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _facts(path: Path, metadata: Mapping[bytes, bytes] | None) -> dict[str, str]:
    try:
        return {
            key.removeprefix(PREFIX).decode(): value.decode()
            for key, value in (metadata or {}).items()
            if key.startswith(PREFIX)
        }
    except UnicodeDecodeError:
        raise InputError(path, expected="metadata as it was written", found="other bytes", remedy=REMAKE) from None


def _verify_facts(path: Path, facts: Mapping[str, str]) -> None:
    if ROWS not in facts or SEAL not in facts:
        raise InputError(path, expected="a file that says what it is", found="none of it", remedy=OTHER_VERSION)
    if _seal(facts) != facts[SEAL]:
        raise InputError(path, "metadata", expected="what was written", found="something else", remedy=REMAKE)
    for name, expected in identity(path).items():
        if facts.get(name) != expected:
            found = facts.get(name, "none")
            raise InputError(path, name, expected=expected, found=found, remedy=f"another job's file; {REMAKE}")


def _unreadable(path: Path, error: Exception) -> InputError:
    if isinstance(error, FileNotFoundError):
        return InputError(path, expected="a Parquet file of sambench", found="none", remedy="run again")
    if isinstance(error, PermissionError):
        return InputError(path, expected="a file that may be read", found="no permission")
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return InputError(path, expected="a Parquet file of sambench", found=lines[0][:200], remedy=REMAKE)


def _difference(found: pa.Schema, schema: pa.Schema) -> str:
    """The names of other columns, or the types where names are the same."""
    if found.names != schema.names:
        return ", ".join(found.names)[:200]
    other = [f"{a.name} of {a.type}" for a, b in zip(found, schema, strict=True) if a != b]
    return ", ".join(other)[:200]

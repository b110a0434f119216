"""Parquet files of sambench: written under a schema with their origin in the metadata, and verified when they are read.

A file says what it is (`stage`, `dataset`, `variant`, ..., which follow from its path), what it was made of (`input.*`,
see `inputs`), what its rows are (`rows_sha256`), and seals all of that (`seal`). A file in another's place, a changed
number, a flipped bit or a value that cannot be is an InputError that names the file and how to make it again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sambench.digests import digest
from sambench.errors import InputError
from sambench.files import atomic
from sambench.jobs import identity
from sambench.record_checks import Finding, impossible, key_of, repeated

SCHEMA_VERSION = "1"
PREFIX = b"sambench."
ROWS, SEAL, INPUT = "rows_sha256", "seal", "input."
ROW_GROUP = 100_000  # rows
LARGE = 64 * 2**20  # bytes, unpacked, above which a file is verified group by group
_FORMAT = {"compression": "zstd", "write_page_checksum": True}
REMAKE = "delete it and run again"
OTHER_VERSION = f"{REMAKE}: another version wrote it (docs/renames.md)"


def write_parquet(path: Path, frame: pd.DataFrame | pa.Table, schema: pa.Schema, provenance: Mapping[str, str]) -> None:
    """Write rows under a schema, with provenance in the file's metadata, to a temporary name first.

    provenance: what decided about the content, and the digests of what it was made of (`inputs`).

    Raises ValueError when a column is missing, unexpected or of another type, or a value cannot be: a bug, not the
    user's mistake.
    """
    table = checked(path.name, frame, schema)
    metadata = _metadata(path, provenance, rows_digest(table))
    with atomic(path) as temporary:
        pq.write_table(table.replace_schema_metadata(metadata), temporary, row_group_size=ROW_GROUP, **_FORMAT)


def write_batches(
    path: Path,
    schema: pa.Schema,
    provenance: Mapping[str, str],
    batches: Callable[[Sequence[int] | None], Iterable[pa.RecordBatch]],
) -> None:
    """Write a file as `write_parquet` does, batch after batch. Only those of one row group are in memory.

    batches: yields the rows (see `checked`), as often as it is called, all columns or those in these places. For
    schemas whose rows have no key.
    """
    assert not key_of(schema), "repetitions would have to be found across batches"
    count = sum(batch.num_rows for batch in batches([0]))
    found = digest_of(schema, count, lambda at: (batch.column(0) for batch in batches([at])))
    with atomic(path) as temporary:
        made = schema.with_metadata(_metadata(path, provenance, found))
        with pq.ParquetWriter(temporary, made, **_FORMAT) as file:
            waiting: list[pa.RecordBatch] = []
            for batch in batches(None):
                waiting.append(batch)
                if sum(each.num_rows for each in waiting) >= ROW_GROUP:
                    file.write_table(pa.Table.from_batches(waiting))
                    waiting = []
            if waiting:
                file.write_table(pa.Table.from_batches(waiting))


def checked(name: str, frame: pd.DataFrame | pa.Table, schema: pa.Schema) -> pa.Table:
    """Rows under a schema. name: of what they are for. Raises ValueError as `write_parquet` does."""
    if isinstance(frame, pd.DataFrame):
        extra, missing = set(frame.columns) - set(schema.names), set(schema.names) - set(frame.columns)
        if extra or missing:
            raise ValueError(f"{name}: missing columns {sorted(missing)}, unexpected {sorted(extra)}")
        # What has no value at all is a column of floats to pandas, which Arrow makes no lists of.
        lists = {field.name: object for field in schema if pa.types.is_list(field.type)}
        table = pa.Table.from_pandas(frame.astype(lists), schema=schema, preserve_index=False)
    else:
        table = frame.select(schema.names).cast(schema)
    if finding := impossible(table, schema):
        raise ValueError(f"{name}: {': '.join(finding)}")
    return table.replace_schema_metadata(None)


def _metadata(path: Path, provenance: Mapping[str, str], rows: str) -> dict[bytes, bytes]:
    facts = {"schema_version": SCHEMA_VERSION, **identity(path), **provenance, ROWS: rows}
    return {PREFIX + key.encode(): value.encode() for key, value in {**facts, SEAL: _seal(facts)}.items()}


def read_parquet(
    path: Path,
    schema: pa.Schema,
    *,
    columns: Sequence[str] | None = None,
    where: tuple[str, str | Collection[int]] | None = None,
    config_digest: str = "",
    made_of: Mapping[str, str] | None = None,
) -> pa.Table:
    """Read a file that `write_parquet` made.

    columns: only these. where: (column, value or values), only the rows that have it or one of them. config_digest: the
    one that the file must have. made_of: the `inputs` that it must have been made of; of these, what the file does not
    name is not compared. Empty: not compared.

    The whole file is verified, and once in a process as long as it is the same file; a large one piece by piece.

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
    if table is not None:
        return _chosen(table, where).select(names)
    if where is None:
        return _read(path, columns=names)
    with _opened(path) as file:
        needed = list(dict.fromkeys([*names, where[0]]))
        parts = [_chosen(each, where).select(names) for each in _row_groups(path, file, needed)]
        return pa.concat_tables([file.schema_arrow.empty_table().select(names).replace_schema_metadata(None), *parts])


def _chosen(table: pa.Table, where: tuple[str, str | Collection[int]] | None) -> pa.Table:
    if where is None:
        return table
    name, wanted = where
    column = table[name]
    same = pc.equal(column, wanted) if isinstance(wanted, str) else pc.is_in(column, pa.array(wanted, column.type))
    return table.filter(same).replace_schema_metadata(None)


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
    table = None
    with _opened(path) as file:
        said = file.schema_arrow
        groups = [file.metadata.row_group(number) for number in range(file.metadata.num_row_groups)]
        if sum(group.total_byte_size for group in groups) <= LARGE:
            table = _read(path)
            said = table.schema
        found = said.remove_metadata()
        if found != schema:
            expected = ", ".join(schema.names)
            raise InputError(path, "columns", expected=expected, found=_difference(found, schema), remedy=OTHER_VERSION)
        facts = _facts(path, said.metadata)
        _verify_facts(path, facts)
        if table is not None:
            digest_found = rows_digest(table)
        else:
            digest_found = digest_of(
                found,
                file.metadata.num_rows,
                lambda at: (
                    chunk for part in _row_groups(path, file, [schema.names[at]]) for chunk in part.column(0).chunks
                ),
            )
        if digest_found != facts[ROWS]:
            raise InputError(path, "rows", expected="those that were written", found="others", remedy=REMAKE)
        for part in _row_groups(path, file) if table is None else [table]:
            refuse(path, impossible(part, schema))
        if table is None and (key := key_of(schema)):
            refuse(path, repeated(_read(path, columns=list(key)), key))
    _VERIFIED[version] = schema, facts
    return facts, table


@contextmanager
def _opened(path: Path) -> Iterator[pq.ParquetFile]:
    try:
        file = pq.ParquetFile(path, page_checksum_verification=True)
        list(file.schema_arrow.names)
    except Exception as error:
        raise _unreadable(path, error) from None
    with file:
        yield file


def _row_groups(path: Path, file: pq.ParquetFile, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
    """The rows of a file, one group of them after the other."""
    for number in range(file.metadata.num_row_groups):
        try:
            table = file.read_row_group(number, columns=columns)
        except Exception as error:
            raise _unreadable(path, error) from None
        yield table


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
    return digest_of(table.schema, table.num_rows, lambda at: table.column(at).chunks)


def digest_of(schema: pa.Schema, rows: int, chunks: Callable[[int], Iterable[pa.Array]]) -> str:
    """`rows_digest` of rows that come in pieces.

    chunks: the values of a column by its place, array after array, as often as they are asked for.
    """
    hasher = hashlib.sha256()
    for at, field in enumerate(schema):
        # What a nested type holds has another name in Parquet.
        kind = str(field.type) if not pa.types.is_nested(field.type) else f"nested in {field.type.num_fields}"
        hasher.update(f"{field.name} {kind} {rows}\n".encode())
        for stream in _streams(field.type):
            stream(hasher, chunks(at))
    return hasher.hexdigest()


Stream = Callable[["hashlib._Hash", Iterable[pa.Array]], None]


def _streams(kind: pa.DataType) -> list[Stream]:
    """What is taken of a column, one after the other: the nulls, then the values that are there. What a buffer holds
    instead of a null is arbitrary."""

    def stream(values: Callable[[pa.Array], Any]) -> Stream:
        def take(hasher: hashlib._Hash, chunks: Iterable[pa.Array]) -> None:
            for chunk in chunks:
                hasher.update(values(chunk))

        return take

    def inside(inner: Stream) -> Stream:
        return lambda hasher, chunks: inner(hasher, (chunk.drop_null().flatten() for chunk in chunks))

    nulls = stream(lambda chunk: _plain(chunk.is_valid()))
    if pa.types.is_list(kind):
        lengths = stream(lambda chunk: _plain(pc.list_value_length(chunk.drop_null())))
        return [nulls, lengths, *(inside(inner) for inner in _streams(kind.value_type))]
    if pa.types.is_string(kind) or pa.types.is_binary(kind):
        lengths = stream(lambda chunk: _plain(pc.binary_length(chunk.drop_null())))
        return [nulls, lengths, stream(lambda chunk: _content(chunk.drop_null()))]
    if pa.types.is_nested(kind):

        def written(hasher: hashlib._Hash, chunks: Iterable[pa.Array]) -> None:
            hasher.update(repr([value for chunk in chunks for value in chunk.drop_null().to_pylist()]).encode())

        return [nulls, written]
    return [nulls, stream(lambda chunk: _plain(chunk.drop_null()))]


def _plain(values: pa.Array) -> bytes:
    return bytes(values.to_numpy(zero_copy_only=False).tobytes())


def _content(values: pa.Array) -> memoryview | bytes:
    """The bytes of texts or binary values, one after the other."""
    if not len(values):
        return b""
    ends = np.frombuffer(values.buffers()[1], dtype=np.int32)[values.offset : values.offset + len(values) + 1]
    return memoryview(values.buffers()[2] or b"")[ends[0] : ends[-1]]


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

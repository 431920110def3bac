"""A fleet's rows as one Parquet file, for DuckDB, Spark and their kin."""

from __future__ import annotations

from pathlib import Path

from harness.diagnose.fleet.judgement import COLUMNS
from harness.diagnose.fleet.store import Store
from harness.errors import HarnessError, errno_text


def write(store: Store, path: Path) -> None:
    """Write every row, 50,000 at a time. Raises HarnessError without pyarrow, or when the file cannot be written."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise HarnessError("write Parquet", str(error), "pip install 'msp-harness[parquet]'") from error
    types = [(name, pyarrow.int64() if name == "notes" else pyarrow.string()) for name in COLUMNS]
    schema = pyarrow.schema([pyarrow.field(name, kind, nullable=False) for name, kind in types])
    work = path.with_name(f".{path.name}.unfinished")
    try:
        with parquet.ParquetWriter(work, schema, compression="zstd") as writer:
            for rows in store.batches():
                columns = [pyarrow.array([row[at] for row in rows], kind) for at, (_, kind) in enumerate(types)]
                writer.write_table(pyarrow.Table.from_arrays(columns, schema=schema))
        work.replace(path)
    except OSError as error:
        number = error.errno or 0
        raise HarnessError(f"write {path}", errno_text(number), "give another path", errno=number) from error
    finally:
        work.unlink(missing_ok=True)

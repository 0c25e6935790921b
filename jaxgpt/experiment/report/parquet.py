"""results.parquet: the rows of results.csv with their types, for dataframes."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

from jaxgpt.errors import from_extra
from jaxgpt.experiment.results import Row


def library() -> Any:
    """pyarrow. Raises UserError naming the extra where it is not installed."""
    return from_extra("pyarrow", "parquet", "results.parquet needs")


def parquet(rows: Iterable[Row]) -> bytes:
    """A Parquet file with a column for each field of a row: texts, 64-bit integers, 64-bit floats."""
    arrow, table_file = library(), from_extra("pyarrow.parquet", "parquet", "results.parquet needs")
    types = {"str": arrow.string(), "int": arrow.int64(), "float": arrow.float64()}
    schema = arrow.schema([(field.name, types[str(field.type)]) for field in dataclasses.fields(Row)])
    table = arrow.Table.from_pylist([dataclasses.asdict(row) for row in rows], schema=schema)
    sink = arrow.BufferOutputStream()
    table_file.write_table(table, sink)
    return sink.getvalue().to_pybytes()

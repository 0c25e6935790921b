from __future__ import annotations

import io
from collections.abc import Callable

import pytest

from jaxgpt.experiment.report import Report
from jaxgpt.experiment.report.parquet import parquet
from jaxgpt.experiment.results import Row


@pytest.mark.torch  # the extra parquet, which hf brings
def test_rows_are_read_back_with_their_types(make_report: Callable[..., Report]):
    import pyarrow.parquet

    rows = make_report().results.rows
    content = parquet(rows)
    table = pyarrow.parquet.read_table(io.BytesIO(content))
    assert [Row(**row) for row in table.to_pylist()] == list(rows)
    assert {name: str(table.schema.field(name).type) for name in table.column_names} == {
        "experiment": "string", "variant": "string", "seed": "int64", "metric": "string", "context": "int64",
        "value": "double", "unit": "string",
    }  # fmt: skip
    assert parquet(rows) == content, "byte for byte"
    assert pyarrow.parquet.read_table(io.BytesIO(parquet([]))).num_rows == 0

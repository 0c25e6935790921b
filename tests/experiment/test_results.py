from __future__ import annotations

import math
import random
from pathlib import Path

import numpy as np
import pytest

from jaxgpt.errors import UserError
from jaxgpt.experiment.results import (
    MissingResult,
    Results,
    Row,
    Timing,
    log_timing,
    read_results,
    read_timings,
    write_results,
    write_timings,
)

ROWS = [
    Row("e", variant, seed, "fixed_target_nll", context, math.sin(seed + context) / 3, "nats/token")
    for variant in ("rope", "alibi")
    for seed in (10, 2)
    for context in (512, 64)
]


def test_csv_has_the_same_bytes_whatever_the_order_of_rows(tmp_path: Path):
    paths = []
    for number in range(3):
        rows = [*ROWS, ROWS[0]]
        random.Random(number).shuffle(rows)
        paths.append(tmp_path / f"{number}.csv")
        write_results(paths[-1], rows)
    first, *others = [path.read_bytes() for path in paths]
    assert all(other == first for other in others)
    lines = first.decode().splitlines()
    assert lines[0] == "experiment,variant,seed,metric,context,value,unit"
    assert lines[1].startswith("e,alibi,2,fixed_target_nll,64,"), "seeds and contexts are ordered as numbers"
    assert len(lines) == 1 + len(ROWS)


def test_csv_reads_back_equal(tmp_path: Path):
    odd = [Row("e", "a, b", 0, "m", 1, 0.1 + 0.2, "x"), Row("e", "a, b", 1, "m", 1, float("inf"), "x")]
    write_results(tmp_path / "results.csv", [*ROWS, *odd])
    assert read_results(tmp_path / "results.csv") == sorted([*ROWS, *odd])


def test_numpy_scalars_are_written_as_plain_numbers(tmp_path: Path):
    value = np.float32(0.1)
    write_results(tmp_path / "results.csv", [Row("e", "v", 0, "m", 1, value, "x")])  # type: ignore[arg-type]
    assert read_results(tmp_path / "results.csv")[0].value == float(value)


def test_timings_read_back_equal(tmp_path: Path):
    timings = [Timing("rope", 1, "step_time", 0.25, "s"), Timing("alibi", 0, "step_time", 0.5, "s")]
    write_timings(tmp_path / "timings.csv", timings)
    assert read_timings(tmp_path / "timings.csv") == sorted(timings)


def test_conflicting_measurements_are_refused():
    again = Row("e", "rope", 2, "fixed_target_nll", 64, 9.0, "nats/token")
    with pytest.raises(UserError, match=r"rope seed 2: fixed_target_nll at context 64 was measured twice"):
        Results([*ROWS, again], 64)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n", r"the first line must be experiment,variant"),
        ("experiment,variant,seed,metric,context,value,unit\ne,v,0,m,1\n", r"line 2: 'e,v,0,m,1' is not a row"),
        ("experiment,variant,seed,metric,context,value,unit\ne,v,x,m,1,2,u\n", r"line 2"),
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, text: str, message: str):
    path = tmp_path / "results.csv"
    path.write_text(text)
    with pytest.raises(UserError, match=message) as error:
        read_results(path)
    assert str(path) in str(error.value)


def test_a_missing_file_is_named(tmp_path: Path):
    with pytest.raises(UserError, match=r"none\.csv: cannot be read"):
        read_results(tmp_path / "none.csv")


def test_lookups():
    results = Results(ROWS, 64, variants=["rope", "alibi", "never run"])
    assert results.variants == ("rope", "alibi")
    assert results.values("rope", "fixed_target_nll", 64) == {2: math.sin(66) / 3, 10: math.sin(74) / 3}
    assert list(results.values("rope", "fixed_target_nll", 64)) == [2, 10]
    assert results.contexts("fixed_target_nll") == [64, 512]
    assert results.metrics("rope") == ["fixed_target_nll"]
    assert results.metrics("5-gram") == []
    assert results.seeds("alibi") == [2, 10]
    assert results.unit("fixed_target_nll") == "nats/token"
    assert results.has("rope", "fixed_target_nll", 512)
    assert not results.has("rope", "fixed_target_nll", 1024)


def test_order_of_variants_is_that_of_the_experiment_and_baselines_stand_apart():
    rows = [*ROWS, Row("e", "5-gram", 0, "fixed_target_nll", 64, 3.0, "nats/token")]
    assert Results(rows, 64).variants == ("rope", "alibi")
    assert Results(rows, 64, variants=["alibi"]).variants == ("alibi", "rope")
    assert Results(rows, 64).baselines == ("5-gram",)


def test_missing_results_are_named():
    results = Results(ROWS, 64)
    with pytest.raises(MissingResult, match=r"no results of a variant 'rop'; did you mean 'rope'"):
        results.values("rop", "fixed_target_nll", 64)
    with pytest.raises(MissingResult, match=r"rope: no results of 'sliding_nll'"):
        results.values("rope", "sliding_nll", 64)
    with pytest.raises(
        MissingResult, match=r"rope: fixed_target_nll was not measured at context 32 \(only at 64, 512\)"
    ):
        results.values("rope", "fixed_target_nll", 32)
    with pytest.raises(MissingResult, match=r"no results of 'nll'"):
        results.unit("nll")


def test_variants_may_have_lengths_of_their_own():
    results = Results(ROWS, 64, lengths={"rope": 32})
    assert (results.length("rope"), results.length("alibi")) == (32, 64)
    assert results.lengths == [32, 64]
    assert Results(ROWS, 64).lengths == [64]


def test_timings_are_looked_up_as_logarithms_and_are_no_rows():
    results = Results(ROWS, 64, timings=[Timing("rope", 0, "step_time", 20.0, "ms")])
    assert results.values("rope", log_timing("step_time"), 0) == {0: pytest.approx(math.log(20))}
    assert results.rows == Results(ROWS, 64).rows

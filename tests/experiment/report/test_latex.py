"""results.tex: what LaTeX would choke on or set as something else, and that rows have as many cells as columns."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable

import pytest

from jaxgpt.experiment.claims import evaluate_claims
from jaxgpt.experiment.report import Report
from jaxgpt.experiment.report.latex import escape, latex
from jaxgpt.experiment.results import Results, Row

Make = Callable[..., Report]


def floats(text: str) -> list[str]:
    return re.findall(r"\\begin\{table\}.*?\\end\{table\}", text, re.DOTALL)


def rows(table: str) -> list[list[str]]:
    """The cells of all rows between the rules."""
    body = table[table.index(r"\toprule") : table.index(r"\bottomrule")]
    lines = [line.strip() for line in body.splitlines()]
    lines = [line for line in lines if line not in ("", r"\toprule", r"\midrule")]
    assert all(line.endswith(r"\tabularnewline") for line in lines)
    return [re.split(r"(?<!\\)\s?& ", line.removesuffix(r" \tabularnewline")) for line in lines]


def columns(table: str) -> int:
    spec = re.search(r"\\begin\{tabular\}\{(.*)\}", table)
    assert spec is not None
    return len(re.sub(r"p\{[^}]*\}", "p", spec[1]))


def check(text: str) -> None:
    """What TeX would stop at: braces without a partner, rows of another length, signs it takes for its own."""
    plain = re.sub(r"\\[\\{}]", "", text)
    depth = 0
    for sign in plain:
        depth += (sign == "{") - (sign == "}")
        assert depth >= 0
    assert depth == 0
    for table in floats(text):
        assert {len(cells) for cells in rows(table)} == {columns(table)}
        for cells in rows(table):
            for cell in cells:
                assert not re.search(r"(?<!\\)[&#_%~^<>|\"]", cell), cell
                assert len(re.findall(r"(?<!\\)\$", cell)) % 2 == 0, cell
    assert len(set(re.findall(r"\\label\{(.*)\}", text))) == len(floats(text))


def test_perplexity_with_intervals_and_verdicts(make_report: Make):
    text = latex(make_report())
    check(text)
    perplexity, verdicts = floats(text)
    assert r"\caption{Fixed targets: perplexity. Geometric mean over seeds [95\% t interval, unadjusted]" in perplexity
    assert rows(perplexity)[0][:4] == ["variant", "32 (L/4)", "64 (L/2)", "128 (L)"]
    name, *cells = rows(perplexity)[1]
    assert (name, len(cells)) == ("sinusoidal \\dag{}" if "\\dag" in name else "sinusoidal", 7)
    assert all(re.fullmatch(r"\d+\.\d+", cell) for cell in cells)
    blank, *intervals = rows(perplexity)[2]
    assert blank == ""
    assert all(re.fullmatch(r"\\scriptsize \[\d+\.\d+, \d+\.\d+\]", cell) for cell in intervals)
    assert rows(perplexity)[-1][0] == "5-gram", "whose one seed has no interval, and no second line"
    assert rows(verdicts)[0] == ["claim", "verdict", "rule", "estimate", "seeds"]
    assert "headline" in verdicts
    assert r"R\_rope(4L) / R\_alibi(4L) $\geq$ 1.3" in verdicts


def test_one_seed_has_no_second_lines_and_no_claims_no_second_table(make_report: Make):
    text = latex(make_report(seeds=1, verdicts=[]))
    check(text)
    (perplexity,) = floats(text)
    assert len(rows(perplexity)) == 1 + 6
    assert "scriptsize" not in text


def test_accuracy_by_panel(make_report: Make):
    values = [("a_b", 10, 0.5), ("a_b", 20, 0.25), ("50%", 10, 1.0)]
    found = [
        Row("x", name, seed, "task_exact_match", context, value - 0.01 * seed, "share")
        for name, context, value in values
        for seed in range(3)
    ]
    report = make_report(results=Results(found, 20), verdicts=[], labels={}, panels={"a_b": "One & two", "50%": "{3}"})
    text = latex(report)
    check(text)
    one, two = floats(text)
    assert r"\caption{\{3\}: exact match." in text
    assert r"\caption{One \& two: exact match." in text
    assert {r"a\_b", r"50\%"} == {rows(one)[1][0], rows(two)[1][0]}


def test_nothing_measured_is_no_table(make_report: Make):
    report = make_report()
    nothing = dataclasses.replace(report, results=Results([], 128), verdicts=evaluate_claims([], report.results))
    assert floats(latex(nothing)) == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (r"a_b & 50% of #1 {x} $5 \cmd", r"a\_b \& 50\% of \#1 \{x\} \$5 \textbackslash{}cmd"),
        ("~ ^ < > |", r"\textasciitilde{} \textasciicircum{} \textless{} \textgreater{} \textbar{}"),
        ("-0.5 [-1.25, 3]", "$-$0.5 [$-$1.25, 3]"),
        ("rope-2keys, 5-gram, 1e-05 = -3", "rope-2keys, 5-gram, 1e-05 = $-$3"),
        ("– † ≥ 1×2 … −4", r"-- \dag{} $\geq$ 1$\times$2 \dots{} $-$4"),
        ("a <= 1 and b >= 2", r"a $\leq$ 1 and b $\geq$ 2"),
        ('say "so"\nand on', "say ''so'' and on"),
        ("plain é", "plain é"),
    ],
)
def test_escapes(text: str, expected: str):
    assert escape(text) == expected

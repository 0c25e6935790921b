from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable

import pytest

from jaxgpt.experiment.contrasts import R, at_least, at_most, nll, show
from jaxgpt.experiment.report.bars import interval_bar
from jaxgpt.experiment.results import Results


@pytest.mark.parametrize("seeds", [1, 3])
@pytest.mark.parametrize(
    "test", [at_least(R("rope", 4), 1.5), at_most(R("rope", 4), 1.05), show(nll("rope", 1) - nll("alibi", 1))], ids=str
)
def test_the_mark_lies_on_its_side_of_the_bound(trial: Callable[..., Results], test, seeds: int):
    part = test.assess(trial(seeds=seeds)).deciding
    svg = ElementTree.fromstring(interval_bar(part, "#00735c"))
    marks = [float(mark.attrib["cx"]) for mark in svg.findall("circle")]
    bound, bar = (line.attrib for line in svg.findall("line"))
    neutral = part.bound if part.bound is not None else 0.0
    assert (marks[0] > float(bound["x1"])) == (part.interval.mean > neutral)
    assert float(bar["x1"]) <= marks[0] <= float(bar["x2"])
    assert len(svg.findall("rect")) == (1 if part.side is None else 2)
    assert svg.attrib["aria-label"].startswith(part.text)


def test_equal_numbers_do_not_divide_by_zero(trial: Callable[..., Results]):
    part = at_most(R("rope", 1), 1.0).assess(trial()).deciding
    assert re.search(r'cx="[\d.]+"', interval_bar(part, "#000000"))

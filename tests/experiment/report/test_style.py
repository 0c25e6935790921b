from __future__ import annotations

from collections.abc import Callable

from jaxgpt.experiment.report import Report
from jaxgpt.experiment.report.style import looks
from jaxgpt.experiment.results import Results, Row


def test_no_two_variants_look_alike_and_baselines_are_grey(make_report: Callable[..., Report]):
    rows = [Row("e", f"v{i:02}", 0, "fixed_target_nll", 8, 3.0, "nats/token") for i in range(20)]
    rows.append(Row("e", "5-gram", 0, "fixed_target_nll", 8, 3.0, "nats/token"))
    found = looks(make_report(results=Results(rows, 8)))
    arms = [look for variant, look in found.items() if variant != "5-gram"]
    assert len({(look.colour, look.line) for look in arms}) == 20
    assert found["5-gram"].colour not in {look.colour for look in arms}
    assert found["v00"].faint(0.5) == "rgba(0,114,178,0.5)"

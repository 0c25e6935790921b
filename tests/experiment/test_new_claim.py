"""The claim that CONTRIBUTING.md shows is one function, and gets its verdict."""

import re
from pathlib import Path

from jaxgpt.experiment.claims import evaluate_claims

TEXT = (Path(__file__).resolve().parents[2] / "CONTRIBUTING.md").read_text(encoding="utf-8")


def test_a_new_claim_is_one_function(trial):
    shown = re.search(r"^## Add a claim.*?```python\n(.*?)```", TEXT, re.MULTILINE | re.DOTALL)
    assert shown is not None
    names: dict = {}
    exec(shown[1], names)
    (verdict,) = evaluate_claims([names["costs_little_at_home"]()], trial())
    assert verdict.verdict == "supported"
    assert verdict.rule == "PPL_yarn(L) / PPL_rope(L) <= 1.1"
    assert verdict.gate == "passed"

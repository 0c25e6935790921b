from __future__ import annotations

import re
from collections.abc import Callable

from jaxgpt.experiment.report import Report
from jaxgpt.experiment.report.markdown import markdown


def test_headline_verdict_comes_first_and_all_parts_follow(make_report: Callable[..., Report]):
    text = markdown(make_report(), {"perplexity.png": "Caption one", "a.png": "two", "training.png": "three"})
    blocks = text.split("\n\n")
    assert blocks[0] == "# RoPE or ALiBi beyond the training length?"
    assert blocks[1].startswith("**SUPPORTED**: RoPE degrades at least 1.3 times as much as ALiBi. (`R_rope(4L) / ")
    assert blocks[2].startswith("- **SUPPORTED**: ALiBi stays flat.")
    titles = re.findall(r"^## (.*)$", text, re.MULTILINE)
    assert titles[:4] == ["Fixed targets: perplexity", "Verdicts", "Shown, not judged", "Context gate"]
    assert titles[-2:] == ["Notes", "How to repeat this"]
    assert "![Caption one](perplexity.png)" in text
    assert "```\npython experiments/run.py --exp trial\n```" in text
    assert "- scale: laptop" in text


def test_tables_are_well_formed(make_report: Callable[..., Report]):
    text = markdown(make_report(), {})
    for block in re.findall(r"(?:^\|.*\|\n)+", text, re.MULTILINE):
        widths = {len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}
        assert len(widths) == 1


def test_a_report_of_nothing_much_still_reads(make_report: Callable[..., Report]):
    text = markdown(make_report(title="", verdicts=[], runs=[], timings=[], facts={}, notes=[], command=""), {})
    assert text.startswith("# trial\n\n## Fixed targets: perplexity")
    assert "## Verdicts" not in text
    assert "```" not in text

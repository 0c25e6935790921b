"""The page as text, and as headless Chromium draws it."""

from __future__ import annotations

import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest

from jaxgpt.experiment.report import Report
from jaxgpt.experiment.report.page import page
from tests.experiment.browser import Browser

Make = Callable[..., Report]


class Outline(HTMLParser):
    """Tags in order with their attributes, and the text outside scripts."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        if self.tags and self.tags[-1][0] not in ("script", "style"):
            self.text += data

    def count(self, tag: str) -> int:
        return sum(name == tag for name, _ in self.tags)


def test_page_is_self_contained_and_puts_the_headline_first(make_report: Make):
    outline = Outline(page(make_report()))
    links = [value for _, attributes in outline.tags for key, value in attributes.items() if key in ("src", "href")]
    assert links == ["data:,"]
    assert outline.count("table") == 8, "six of measurements, the gate, the runs"
    assert outline.count("svg") == 6, "a bar for every part of every claim that was measured"
    assert outline.text.index("RoPE degrades at least 1.3 times") < outline.text.index("ALiBi stays flat")
    assert "RoPE <rises> & falls | by turns." in outline.text, "text is escaped"
    for words in ("2 supported", "1 contradicted", "1 not resolved", "1 shown", "Press et al. 2022", "t5-seed0 is not"):
        assert words in outline.text


def test_the_same_report_makes_the_same_page(make_report: Make):
    assert page(make_report()) == page(make_report())


def test_page_without_claims_and_curves(make_report: Make):
    text = page(make_report(title="", verdicts=[], curves=[], timings=[], runs=[], notes=[], command=""))
    outline = Outline(text)
    assert "Claims" not in outline.text
    assert "Training" not in outline.text
    assert outline.count("table") == 7


def dump(browser: Browser, html: Path) -> str:
    """The page after its scripts have run."""
    browser.open(html.as_uri(), height=4000)
    browser.wait("[...document.querySelectorAll('.plotly-graph-div')].every((one) => one.querySelector('g.trace'))")
    return browser.evaluate("document.documentElement.outerHTML")


@pytest.mark.browser
def test_chromium_draws_the_curves_without_a_word_on_the_console(make_report: Make, tmp_path: Path, browser: Browser):
    html = tmp_path / "index.html"
    html.write_text(page(make_report()), encoding="utf-8")
    dom = dump(browser, html)
    assert browser.console == []
    drawn = {name: dom.split(f'id="{name}"', 1)[1] for name in ("contexts", "positions", "training")}
    for name, lines in (("contexts", 11), ("positions", 10), ("training", 16)):
        figure = drawn[name].split("</section>", 1)[0]
        traces = re.findall(r'<g class="trace scatter', figure)
        assert len(traces) == lines, name
        paths = re.findall(r'class="js-line"[^>]* d="M[\d.,-]+L', figure) + re.findall(r'class="point"', figure)
        assert len(paths) >= 5, name
    assert dom.count("<table") == 8
    assert ">relative to L<" not in dom.split('id="positions"')[0], "only the chosen view is named"
    assert "training length L" in dom


@pytest.mark.browser
def test_an_error_on_the_console_would_be_seen(tmp_path: Path, browser: Browser):
    html = tmp_path / "index.html"
    html.write_text("<html><body><script>missing.call()</script></body></html>")
    dump(browser, html)
    assert any("missing is not defined" in line for line in browser.console)

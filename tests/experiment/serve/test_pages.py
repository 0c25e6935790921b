"""The pages as headless Chromium draws them."""

from __future__ import annotations

import json
import shutil

import pytest

from tests.experiment.browser import Browser
from tests.experiment.serve.conftest import Shelf, Visitor, line, write

pytestmark = pytest.mark.browser

RUN = "rope-seed0-0abc"
LAST_X = "Math.max(...document.getElementById('curves').data.flatMap((trace) => trace.x))"
RANGE = "document.getElementById('curves')._fullLayout.xaxis.range.map(Math.round)"


def ready(browser: Browser, url: str, **window: object) -> None:
    """Open a page and wait for its curve."""
    browser.open(url, **window)  # type: ignore[arg-type]
    browser.wait("document.querySelector('#curves .js-line')")


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [400, 1400])
def test_pages_are_drawn_without_a_word_on_the_console(
    full: Shelf, visit: Visitor, browser: Browser, width: int, dark: bool
):
    overflow = "document.documentElement.scrollWidth - innerWidth"
    browser.open(visit.server.url, width, dark=dark)
    browser.wait("document.querySelector('#experiments a')?.textContent === 'trial'")
    assert browser.evaluate(overflow) <= 0
    ready(browser, f"{visit.server.url}experiment/trial", width=width, dark=dark)
    browser.wait("document.querySelector('#contexts .js-line') && document.querySelector('#between td')")
    assert browser.evaluate("document.querySelectorAll('#curves .js-line').length") == 4, "a band and a line each"
    assert browser.evaluate("document.querySelectorAll('#runs tbody tr').length") == 7
    assert browser.evaluate("document.querySelectorAll('#comparison tbody tr').length") == 4
    assert browser.evaluate("document.querySelector('#differences tbody').textContent").startswith(
        "model.position.type"
    )
    assert browser.evaluate(overflow) <= 0
    ready(browser, f"{visit.server.url}run/trial/{RUN}", width=width, dark=dark)
    browser.wait("document.getElementById('log').textContent === 'began\\nended\\n'")
    assert "model.width32" in browser.evaluate("document.getElementById('config').textContent")
    assert browser.evaluate(overflow) <= 0
    assert browser.console == []


def test_what_is_appended_appears_and_zoom_selection_and_scroll_stay(full: Shelf, visit: Visitor, browser: Browser):
    ready(browser, f"{visit.server.url}experiment/trial")
    assert browser.evaluate(LAST_X) == 200
    browser.evaluate("window.same = true")
    before = browser.evaluate(RANGE)
    plot = "document.querySelector('#curves .nsewdrag').getBoundingClientRect()"
    left, top, width = (browser.evaluate(f"{plot}.{side}") for side in ("left", "top", "width"))
    browser.drag((left + 0.2 * width, top + 60), (left + 0.7 * width, top + 200))
    browser.wait(f"{RANGE}.join() !== '{','.join(map(str, before))}'")
    zoomed = browser.evaluate(RANGE)
    browser.evaluate("scrollTo(0, 333)")
    browser.evaluate("getSelection().selectAllChildren(document.querySelector('#runs tbody td'))")
    with (full.root / "trial" / RUN / "metrics.jsonl").open("a") as file:
        file.write(line(240, 2.5))
    browser.wait(f"{LAST_X} === 240")
    browser.wait("document.getElementById('runs').textContent.includes('240/200')")
    assert browser.evaluate("window.same"), "the page was not loaded again"
    assert browser.evaluate(RANGE) == zoomed
    assert browser.evaluate("scrollY") == 333
    assert browser.evaluate("getSelection().toString()") == "alibi"
    assert browser.console == []


def test_a_log_grows_and_its_text_stays_text(full: Shelf, visit: Visitor, browser: Browser):
    ready(browser, f"{visit.server.url}run/trial/{RUN}")
    with (full.root / "trial" / RUN / "log.txt").open("a") as file:
        file.write("<script>window.broken = 1</script><img src=x onerror='window.broken = 2'>\n")
    browser.wait("document.getElementById('log').textContent.includes('<script>window.broken = 1</script>')")
    assert browser.evaluate("document.querySelectorAll('#log script, #log img').length") == 0
    assert browser.evaluate("window.broken === undefined")
    write(full.root / "trial" / RUN / "status.json", {"state": "failed", "message": "<b>loss</b> is no number"})
    browser.wait("document.getElementById('message').textContent === '<b>loss</b> is no number'")
    assert browser.evaluate("document.querySelector('#facts .state').textContent") == "failed"
    assert browser.console == []


def test_a_run_shows_its_other_numbers_too(full: Shelf, visit: Visitor, browser: Browser):
    ready(browser, f"{visit.server.url}run/trial/{RUN}?show=tokens_per_second")
    title = "document.getElementById('curves').layout.yaxis.title.text"
    assert browser.evaluate(title) == "tokens_per_second"
    assert browser.evaluate("document.getElementById('show').value") == "tokens_per_second"
    browser.evaluate("(document.getElementById('show').value = 'loss')")
    browser.evaluate("document.getElementById('show').dispatchEvent(new Event('input'))")
    browser.wait(f"{title} === 'nats per token'")
    assert browser.console == []


def test_names_are_text_wherever_they_stand(shelf: Shelf, visit: Visitor, browser: Browser):
    name = "<img src=x onerror=alert(1)> & '\"#?% é"
    folder = shelf.run("rope", experiment=name, evaluated=("rope",))
    request = json.loads((folder / "request.json").read_text())
    request["variant"] = request["evaluations"][0]["variant"] = name
    request["config"][name] = name
    write(folder / "request.json", request)
    write(folder / "environment.json", {name: name})
    browser.open(visit.server.url)
    browser.wait("document.querySelector('#experiments a')")
    browser.evaluate("document.querySelector('#experiments a').click()")
    browser.wait("document.querySelector('#curves .js-line') && document.querySelector('#contexts .js-line')")
    assert browser.evaluate("document.getElementById('name').textContent") == name
    assert browser.evaluate("document.querySelector('#runs a').textContent") == name
    browser.evaluate("document.querySelector('#runs a').click()")
    browser.wait("location.pathname.startsWith('/run/') && document.querySelector('#curves .js-line')")
    assert name in browser.evaluate("document.getElementById('environment').textContent")
    assert browser.evaluate("document.querySelectorAll('main img').length") == 0
    assert browser.console == []


def test_controls_choose_what_is_drawn_and_stay_in_the_address(full: Shelf, visit: Visitor, browser: Browser):
    ready(browser, f"{visit.server.url}experiment/trial")
    change = "((id, value) => { const one = document.getElementById(id); one.value = value; %s })"
    change %= "one.dispatchEvent(new Event('input'));"
    browser.evaluate(f"{change}('x', 'tokens')")
    browser.wait(f"{LAST_X} === 200 * 128")
    browser.evaluate(f"{change}('lines', 'means')")
    browser.wait("document.querySelectorAll('#curves .js-line').length === 2")
    browser.evaluate(f"{change}('lines', 'runs')")
    browser.wait("document.querySelectorAll('#curves .js-line').length === 6")
    browser.evaluate("document.querySelector('#arms input[value=rope]').click()")
    browser.wait("document.querySelectorAll('#curves .js-line').length === 3")
    browser.evaluate(f"{change}('filter', 'rope 2/2')")
    browser.wait("document.getElementById('count').textContent === '3 of 7 runs'")
    assert browser.evaluate("location.search") == "?x=tokens&lines=runs&filter=rope+2%2F2"
    ready(browser, browser.evaluate("location.href"))
    browser.wait("document.querySelectorAll('#curves .js-line').length === 6")
    browser.wait("document.getElementById('count').textContent === '3 of 7 runs'")
    assert browser.console == []


def test_a_column_sorts_by_number(full: Shelf, visit: Visitor, browser: Browser):
    write(full.root / "trial" / RUN / "status.json", {"state": "running", "step": 1000, "steps": 2000})
    ready(browser, f"{visit.server.url}experiment/trial")
    first = "document.querySelector('#runs tbody tr').cells[3].textContent"
    for wanted in ("0", "1,000/2,000"):  # the baseline has no steps
        browser.evaluate("document.querySelector('#runs th:nth-child(4) button').click()")
        assert browser.evaluate(first).replace("0/0", "0") in (wanted, "")
    assert browser.evaluate("document.querySelector('#runs th:nth-child(4)').ariaSort") == "descending"


def test_what_is_gone_is_said(full: Shelf, visit: Visitor, browser: Browser):
    ready(browser, f"{visit.server.url}run/trial/{RUN}")
    shutil.rmtree(full.root / "trial" / RUN)
    browser.wait("document.getElementById('status').textContent.startsWith('This is no longer there')")
    assert browser.evaluate("document.getElementById('log').textContent") == "began\nended\n"


def test_a_report_is_shown_without_an_origin(full: Shelf, visit: Visitor, browser: Browser):
    script = f"<script>fetch('{visit.server.url}api/experiments').catch(() => document.title = 'kept out')</script>"
    (full.root / "trial" / "report" / "index.html").write_text(script)
    browser.open(f"{visit.server.url}report/trial")
    browser.wait("document.title === 'kept out'")
    assert browser.evaluate("origin") == "null"

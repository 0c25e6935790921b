"""Studies on disk: asked, told, pruned, and mended.

Marked `extras`: they need Optuna.
"""

import dataclasses
import math
from pathlib import Path

import pytest

from jaxgpt.errors import UserError
from jaxgpt.experiment.search import Choice, Float, Int, Median, Search
from jaxgpt.experiment.search.study import alone, open_studies

pytestmark = pytest.mark.extras

SEARCH = Search(
    {
        "train.learning_rate": Float(1e-4, 1e-2, log=True),
        "model.num_layers": Int(2, 8, step=2),
        "model.position": Choice(("rope", "alibi", None)),
    },
    pruner=Median(startup=2, warmup=0.5),
)


def study(folder, search=SEARCH):
    with alone(folder):
        return open_studies(folder, search, {"rope": 100})["rope"]


def test_points_lie_in_their_space_and_come_back_from_disk(tmp_path):
    asked = [study(tmp_path).ask() for _ in range(20)]
    for one in asked:
        assert 1e-4 <= one.point["train.learning_rate"] <= 1e-2
        assert one.point["model.num_layers"] in (2, 4, 6, 8)
        assert one.point["model.position"] in ("rope", "alibi", None)
        assert (one.state, one.loss) == ("open", None)
    assert study(tmp_path).trials() == asked
    assert len({one.point["train.learning_rate"] for one in asked}) == 20


def test_nothing_is_made_where_nothing_is_searched(tmp_path):
    assert open_studies(tmp_path, SEARCH, {"rope": 100}, create=False) == {}
    assert list(tmp_path.iterdir()) == []
    study(tmp_path)
    assert list(open_studies(tmp_path, SEARCH, {"rope": 100, "alibi": 100}, create=False)) == ["rope"]


def test_a_trial_is_told_once(tmp_path):
    one = study(tmp_path)
    first, second, third, fourth = (one.ask() for _ in range(4))
    one.tell(first.number, 3.5)
    one.tell(first.number, 4.5)
    one.prune(first.number)
    one.tell(second.number, math.nan)
    one.report(third.number, {10: 4.0, 20: 3.75})
    one.prune(third.number)
    one.give_up(fourth.number)
    assert [(trial.state, trial.loss) for trial in study(tmp_path).trials()] == [
        ("told", 3.5),
        ("told", math.inf),
        ("pruned", 3.75),
        ("impossible", None),
    ]


def test_above_the_median_a_trial_should_end_but_not_before_its_warm_up(tmp_path):
    one = study(tmp_path)
    for loss in (3.0, 3.1, 3.2):
        number = one.ask().number
        one.report(number, dict.fromkeys(range(10, 101, 10), loss))
        one.tell(number, loss)
    number = one.ask().number
    assert not one.report(number, {10: 4.0})
    assert not one.report(number, {10: 4.0, 40: 4.0})
    assert one.report(number, {10: 4.0, 40: 4.0, 50: 4.0})
    better = one.ask().number
    assert not one.report(better, {50: 3.05})
    one.prune(number)
    assert one.report(number, {60: 4.0}), "another launcher pruned it"
    never = study(tmp_path / "other", dataclasses.replace(SEARCH, pruner=None))
    assert not never.report(never.ask().number, {99: 99.0})


def test_what_decides_is_found_where_enough_is_known(tmp_path):
    one = study(tmp_path, dataclasses.replace(SEARCH, sampler="random"))
    assert one.importances() == {}
    for _ in range(40):
        trial = one.ask()
        one.tell(trial.number, abs(math.log10(trial.point["train.learning_rate"]) + 2))
    one.tell(one.ask().number, math.inf)
    found = one.importances()
    assert found.keys() == SEARCH.space.keys()
    assert max(found, key=lambda path: found[path]) == "train.learning_rate"
    assert sum(found.values()) == pytest.approx(1.0)


def test_half_a_line_at_the_end_is_cut_off(tmp_path):
    study(tmp_path).ask()
    journal = tmp_path / "search" / "journal.log"
    whole = journal.read_text()
    journal.write_text(whole + whole[:20])
    again = study(tmp_path)
    assert journal.read_text() == whole
    again.ask()
    assert len(study(tmp_path).trials()) == 2


def test_a_damaged_journal_is_named(tmp_path):
    study(tmp_path).ask()
    journal = tmp_path / "search" / "journal.log"
    journal.write_text("nonsense\n" + journal.read_text())
    with pytest.raises(UserError, match=r"journal\.log: cannot be read .*; mend it, or remove it to search anew"):
        open_studies(tmp_path, SEARCH, {"rope": 100}, create=False)


def test_a_full_disk_is_named_and_leaves_no_half_of_a_line(tmp_path, monkeypatch):
    one = study(tmp_path)
    number = one.ask().number
    journal = tmp_path / "search" / "journal.log"
    whole = journal.read_text()

    def full(handle):
        with journal.open("a") as file:
            file.write("{")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        with pytest.raises(UserError, match=r"journal\.log: cannot be written \(No space left on device\)"):
            one.tell(number, 3.0)
    assert journal.read_text().startswith(whole)
    assert journal.read_text().endswith("\n")
    study(tmp_path).ask()


def test_the_lock_of_a_killed_process_can_be_told_by_its_age(tmp_path, monkeypatch):
    """Optuna waits for ever for a link that leads nowhere, as one from a relative path to itself does."""
    monkeypatch.chdir(tmp_path)
    with alone(Path("runs")):
        study = open_studies(Path("runs"), SEARCH, {"a": 10})["a"]
    lock = study._storage._backend._lock
    lock.acquire()
    [link] = tmp_path.glob("runs/search/journal*.lock")
    assert link.is_symlink()
    assert link.exists()
    lock.release()

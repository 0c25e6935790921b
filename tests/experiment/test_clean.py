"""What nobody needs is found and removed; what somebody may need is not."""

import dataclasses

from jaxgpt.experiment import clean
from jaxgpt.lease import locked


def fill(run, size=1000):
    (run.folder.path / "checkpoints").mkdir(parents=True)
    (run.folder.path / "request.json").write_text("{}")
    (run.folder.path / "checkpoints" / "weights").write_bytes(b"x" * size)


def test_folders_of_another_plan_are_found_and_removed(toy):
    old, plan = toy.plan(["train.steps=8"]), toy.plan()
    for run in (*old.runs, *plan.runs[:3]):
        if not run.folder.path.exists():  # the baseline is the same
            fill(run)
    (plan.directory / "report").mkdir()
    found = clean.unused(plan.directory, plan.runs)
    assert {one.path for one in found} == {run.folder.path for run in old.runs} - {run.folder.path for run in plan.runs}
    assert all(one.size >= 1000 for one in found)
    assert clean.remove(found) == []
    assert clean.unused(plan.directory, plan.runs) == []
    assert plan.runs[1].folder.path.exists()
    assert sorted(path.name for path in plan.directory.iterdir() if path.name.startswith(".")) == []


def test_weights_that_a_run_begins_with_are_kept(toy):
    old, plan = toy.plan(["train.steps=8"]), toy.plan()
    for run in old.runs:
        fill(run)
    start = {"folder": str(old.runs[1].folder.path), "hash": old.runs[1].hash}
    child = dataclasses.replace(plan.runs[1], config={**plan.runs[1].config, "start": start})
    found = {one.path for one in clean.unused(plan.directory, [child])}
    assert old.runs[1].folder.path not in found
    assert old.runs[2].folder.path in found


def test_a_folder_that_is_written_to_is_left(toy):
    run = toy.plan().runs[1]
    fill(run)
    found = clean.chosen([run])
    with locked(run.folder.path):
        assert clean.remove(found) == found
    assert clean.remove(found) == []
    assert not run.folder.path.exists()


def test_what_a_killed_removal_left_goes_with_the_next(toy):
    old, plan = toy.plan(["train.steps=8"]), toy.plan()
    run = old.runs[1]
    fill(run)
    half = run.folder.path.rename(run.folder.path.with_name(f".removed-{run.name}"))
    fill(run)
    (run.folder.path / "status.json").write_text("{")
    found = clean.unused(plan.directory, plan.runs)
    assert [(one.path, one.why) for one in found] == [
        (run.folder.path, "of another plan, unreadable"),
        (half, "half removed"),
    ]
    assert clean.remove(found[:1]) == []
    assert not half.exists()
    fill(run)
    run.folder.path.rename(half)
    assert clean.remove(clean.unused(plan.directory, plan.runs)) == []
    assert list(plan.directory.iterdir()) == []

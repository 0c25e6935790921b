from __future__ import annotations

import json

from jaxgpt.experiment.report.style import looks_in_order
from jaxgpt.experiment.serve.arms import arms_of
from jaxgpt.experiment.serve.watch import Store
from tests.experiment.serve.conftest import Shelf


def test_seeds_are_one_arm_and_the_report_says_order_name_and_colour(full: Shelf):
    store = Store(full.root)
    arms = arms_of(store.runs("trial"), store.about("trial"))
    assert [arm.name for arm in arms] == ["alibi", "rope", "yarn", "5-gram"]
    assert [arm.label for arm in arms] == ["alibi", "RoPE", "yarn", "5-gram"]
    assert [len(arm.runs) for arm in arms] == [3, 3, 0, 1]
    assert [len(arm.sources) for arm in arms] == [3, 3, 3, 1]
    assert [arm.look for arm in arms] == list(looks_in_order(["alibi", "rope", "yarn"], ["5-gram"]).values())
    assert arms[2].config["model"] == {"position": {"type": "yarn"}, "width": 32}


def test_without_a_report_trained_variants_come_first_as_they_were_asked_for(full: Shelf):
    arms = arms_of(Store(full.root).runs("trial"), {"variants": "not a list", "labels": 3})
    assert [arm.name for arm in arms] == ["rope", "alibi", "yarn", "5-gram"]


def test_a_variant_with_other_settings_is_an_arm_of_its_own_in_the_same_colour(shelf: Shelf):
    for seed in range(2):
        shelf.run("rope", seed)
        shelf.run("rope", seed, batch_size=4)
    arms = arms_of(Store(shelf.root).runs("trial"), {})
    assert [(arm.name, len(arm.runs)) for arm in arms] == [("rope", 2), ("rope (2)", 2)]
    assert arms[0].look.colour == arms[1].look.colour
    assert arms[0].look.dash != arms[1].look.dash


def test_runs_that_begin_with_a_run_of_their_own_seed_are_one_arm(shelf: Shelf):
    for seed in range(2):
        parent, child = shelf.run("rope", seed), shelf.run("tuned", seed)
        request = json.loads((child / "request.json").read_text())
        request["config"]["start"] = {"folder": str(parent), "hash": f"hash{seed}", "scaling": "yarn"}
        (child / "request.json").write_text(json.dumps(request))
    tuned = [arm for arm in arms_of(Store(shelf.root).runs("trial"), {}) if arm.variant == "tuned"]
    assert [len(arm.runs) for arm in tuned] == [2]
    assert tuned[0].config["start"] == {"scaling": "yarn"}

"""Synthetic results: the small trial's losses with noise from seed to seed; the truth behind each claim is known."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from jaxgpt.config import parse_overrides
from jaxgpt.experiment.plan import Plan, make_plan
from jaxgpt.experiment.results import Results, Row
from jaxgpt.experiment.search import Float, Int, Search
from jaxgpt.experiment.search.points import Found, Searched, Seen, subjects
from jaxgpt.experiment.search.study import Trial
from jaxgpt.experiment.spec import load_experiment, load_scale
from tests.experiment.browser import Browser

LENGTH = 128
CONTEXTS = (32, 64, 128, 256, 512, 1024, 2048)
TRIAL: dict[str, tuple[float, ...]] = {
    "sinusoidal": (3.598, 3.546, 3.564, 4.178, 4.173, 4.176, 4.18),
    "rope": (3.270, 3.171, 3.164, 3.465, 3.800, 4.030, 4.15),
    "alibi": (3.499, 3.445, 3.444, 3.447, 3.449, 3.450, 3.450),
    "nope": (3.743, 3.745, 3.789, 3.833, 3.863, 3.879, 3.89),
    "yarn": (3.31, 3.22, 3.201, 3.203, 3.204, 3.696, 3.9),
}
WINDOWS: dict[str, tuple[float, ...]] = {  # non-overlapping, at L, 2L, 4L
    "sinusoidal": (3.66, 4.10, 4.25),
    "rope": (3.26, 3.42, 3.70),
    "alibi": (3.54, 3.49, 3.47),
    "nope": (3.87, 3.86, 3.87),
    "yarn": (3.30, 3.25, 3.23),
}


def make_results(
    seeds: int = 3,
    noise: float = 0.004,
    generator: int = 0,
    fixed: Mapping[str, tuple[float, ...]] = TRIAL,
    windows: Mapping[str, tuple[float, ...]] = WINDOWS,
    baseline: bool = True,
) -> Results:
    """Results of every arm: the trial's loss + an effect of the seed + noise of each measurement."""
    random = np.random.default_rng(generator)
    rows = []
    for seed in range(seeds):
        effect = random.normal(0, 0.02)
        for metric, contexts, table in (
            ("fixed_target", CONTEXTS, fixed),
            ("non_overlapping", (LENGTH, 2 * LENGTH, 4 * LENGTH), windows),
        ):
            for variant, losses in table.items():
                for context, loss in zip(contexts, losses, strict=False):
                    value = loss + effect + random.normal(0, noise)
                    rows += [
                        Row("trial", variant, seed, f"{metric}_nll", context, value, "nats/token"),
                        Row("trial", variant, seed, f"{metric}_bits_per_byte", context, value / 1.9, "bits/byte"),
                    ]
        for variant in fixed:
            for position in range(16, 4 * LENGTH + 1, 16):
                over = max(0.0, np.log2(position / LENGTH)) * (0.3 if variant in ("rope", "sinusoidal") else 0.01)
                value = fixed[variant][2] + 1.5 / position**0.5 + over + effect + random.normal(0, 0.05)
                rows.append(Row("trial", variant, seed, "position_nll", position, value, "nats/token"))
    if baseline:
        rows += [Row("trial", "5-gram", 0, "fixed_target_nll", c, 3.62, "nats/token") for c in CONTEXTS]
        rows += [Row("trial", "5-gram", 0, "non_overlapping_nll", c, 3.66, "nats/token") for c in CONTEXTS[2:5]]
    return Results(rows, LENGTH, variants=tuple(fixed))


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    """Headless Chromium; skips where there is none."""
    found = Browser(tmp_path / "profile")
    yield found
    found.close()


@pytest.fixture
def trial() -> Callable[..., Results]:
    """`make_results`, as a fixture so that tests need no import of this file."""
    return make_results


# ------------------------------------------------------------------------------------------------ a toy experiment

TOY_EXPERIMENT = '''"""Does the toy work?

More words that --list leaves out.
"""

from jaxgpt.experiment.claims import Claim, R, at_most
from jaxgpt.experiment.spec import Variant, share, times


def base():
    return {"include": "data/toy.yaml", "model": {"num_layers": 1, "num_heads": 2, "width": 16, "position": "rope"}}


def variants():
    return [
        Variant("rope", description="rotary"),
        Variant("alibi", {"model": {"position": "alibi"}}),
        Variant("yarn", {"model": {"position": {"scaling": {"type": "yarn", "factor": 4.0}}}}, parent="rope"),
    ]


def claims():
    return [Claim("flat", "ALiBi stays flat", at_most(R("alibi", 4), 1.05), headline=True)]
'''

TUNED_VARIANT = """\
        Variant(
            "tuned",
            {
                "extend": {"type": "yarn", "factor": 4.0},
                "train": {"steps": share(0.5)},
                "data": {"sequence_length": times(4)},
            },
            parent="rope",
        ),
    ]
"""

TOY_SCALE = """
description: as small as it gets
seeds: 2
config:
  train: {steps: 4, batch_size: 2, log_every: 2, validate_every: 4, validation_tokens: 64, tensorboard: false}
  evaluate:
    protocols:
      fixed_target: {multiples: [0.25, 1, 4], places: 4}
      non_overlapping: null
      sliding: null
      by_position: null
"""


@dataclasses.dataclass
class Toy:
    """An experiment as small as possible, with folders of its own."""

    root: Path

    @property
    def experiments(self) -> Path:
        return self.root / "experiments"

    @property
    def configs(self) -> Path:
        return self.root / "configs"

    @property
    def runs(self) -> Path:
        return self.root / "runs"

    def add(self, variants: str = TUNED_VARIANT) -> None:
        """Put variants behind those of the experiment: by default one that trains the weights of `rope` further."""
        file = self.experiments / "toy.py"
        file.write_text(file.read_text().replace("    ]\n", variants))

    def plan(self, overrides: Sequence[str] = (), seeds: int | None = None, name: str = "toy") -> Plan:
        experiment = load_experiment(name, self.experiments)
        scale = load_scale("small", self.configs)
        return make_plan(experiment, scale, self.configs, self.runs, seeds, parse_overrides(overrides))


@pytest.fixture
def toy(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Toy:
    """A toy experiment on a text of its own, with a cache shared by all tests."""
    words = np.random.default_rng(0).choice(["the", "state", "of", "union", "is", "strong", "and", "free"], 4000)
    files = {f"text/{i}.txt": " ".join(words[400 * i : 400 * (i + 1)]) for i in range(10)}
    data = f"data: {{corpus: {{type: text, path: {tmp_path / 'text'}}}, tokenizer: byte, sequence_length: 16}}\n"
    files |= {
        "experiments/toy.py": TOY_EXPERIMENT,
        "experiments/helper.py": '"""Not an experiment."""\n\n\ndef base():\n    return {}\n',
        "configs/scale/small.yaml": TOY_SCALE,
        "configs/data/toy.yaml": data,
    }
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.setenv("JAXGPT_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
    return Toy(tmp_path)


def make_search(plan: Plan, *states: str, trials: int = 3, **found: object) -> Searched:
    """A search of `rope` with trials of these states, at losses 3.0, 2.9, ..."""
    space = {"train.learning_rate": Float(1e-4, 1e-2, log=True), "model.num_layers": Int(1, 3)}
    search = Search(space, trials=trials, variants=("rope",))
    [subject] = subjects(plan, search, ())
    seen = []
    for number, state in enumerate(states):
        point = {"train.learning_rate": 0.001 * (number + 1), "model.num_layers": 2}
        loss = {"finished": 3.0 - number / 10, "pruned": 2.0}.get(state)
        run = None if state == "impossible" else subject.run(point)
        seen.append(Seen(Trial(number, point, "told", loss, {}), run, state))
    return Searched(search, [subject], [Found("rope", tuple(seen), **{"importances": {}, **found})])


@pytest.fixture
def some_search() -> Callable[..., Searched]:
    """`make_search`, as a fixture."""
    return make_search

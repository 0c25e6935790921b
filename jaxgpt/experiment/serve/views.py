"""What each address of the server says, as plain mappings and lists."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from jaxgpt.experiment.progress import duration
from jaxgpt.experiment.serve.arms import Arm, arms_of
from jaxgpt.experiment.serve.comparison import comparison, differences, flat, results_of
from jaxgpt.experiment.serve.curves import MOST_POINTS, Axis, Curves, numbers, points_each
from jaxgpt.experiment.serve.reading import json_lines, log_part, number
from jaxgpt.experiment.serve.watch import ATTEMPTS, NotFound, Run, Store

AXES: tuple[Axis, ...] = ("step", "tokens", "seconds")


class Views:
    """Answers about a store. Not for several threads at a time. Methods raise NotFound for what is not there."""

    def __init__(self, store: Store):
        self.store, self._curves = store, Curves()
        self._compared: dict[str, tuple[object, list[dict[str, Any]]]] = {}

    def experiments(self) -> dict[str, Any]:
        """Every experiment with its runs by state and its last change."""
        found = []
        for name in self.store.experiments():
            runs = self.store.runs(name)
            found.append(
                {
                    "name": name,
                    "title": str(self.store.about(name).get("title", "")),
                    "runs": len(runs),
                    "states": Counter(run.state for run in runs),
                    "changed": max((run.changed for run in runs), default=0),
                    "report": self.store.report(name) is not None,
                }
            )
        return {"directory": str(self.store.runs_dir), "experiments": found}

    def experiment(self, name: str) -> dict[str, Any]:
        """Runs, arms, evaluations by context, and what tells the arms' configurations apart."""
        runs, about = self.store.runs(name), self.store.about(name)
        arms = arms_of(runs, about)
        compared = {arm.name: arm.config for arm in arms if not arm.baseline}
        return {
            "name": name,
            "title": str(about.get("title", "")),
            "report": self.store.report(name) is not None,
            "arms": [_arm(arm) for arm in arms if arm.runs or arm.sources],
            "runs": [_line(run, arm) for arm in arms for run in sorted(arm.runs, key=lambda run: run.seed)],
            "comparison": self._comparison(name, runs, arms, about),
            "differences": {
                "names": [arm.label for arm in arms if not arm.baseline],
                "keys": differences(compared) if len(compared) > 1 else {},
            },
        }

    def _comparison(
        self, name: str, runs: Sequence[Run], arms: Sequence[Arm], about: Mapping[str, Any]
    ) -> list[dict[str, Any]]:
        """The views of all metrics, made again when a run's files other than its curve changed."""
        version = ([(run.name, run.version[:-2]) for run in runs], str(about.get("variants")))
        kept = self._compared.get(name)
        if kept is None or kept[0] != version:
            kept = self._compared[name] = (version, comparison(results_of(name, arms)))
        return kept[1]

    def curves(self, name: str, axis: Axis, single: bool = False) -> dict[str, Any]:
        """The losses of every arm over its seeds along an axis, or of every run."""
        arms = [arm for arm in arms_of(self.store.runs(name), self.store.about(name)) if not arm.baseline]
        parts = [(arm, [run]) for arm in arms for run in arm.runs] if single else [(a, list(a.runs)) for a in arms]
        parts = [(arm, runs) for arm, runs in parts if any(run.metrics.training for run in runs)]
        most = points_each(len(parts))
        found = []
        for arm, runs in parts:
            label = f"{arm.label} seed {runs[0].seed}" if single else arm.label
            found.append({"arm": arm.name, "label": label, **self._curves.of(runs, axis, most)})
        return {"axis": axis, "curves": found}

    def between(self, name: str, first: str, second: str) -> dict[str, Any]:
        """What differs between two runs: configuration, and environment."""
        both = [self.store.run(name, one) for one in (first, second)]
        whole = {run.name: {**run.config, "environment": run.environment()} for run in both}
        found = differences(whole) if first != second else {}
        return {"names": [first, second], "keys": found}

    def run(self, experiment: str, name: str, axis: Axis, show: str = "loss") -> dict[str, Any]:
        """Everything of one run but its log. `show`: the loss, or another number of its training lines."""
        arms = arms_of(self.store.runs(experiment), self.store.about(experiment))
        found = {run.name: (arm, run) for arm in arms for run in arm.runs}
        if name not in found:
            raise NotFound(name)
        arm, run = found[name]
        environment, other = run.environment(), show in run.metrics.names
        curve = numbers(run, show, axis) if other else self._curves.of([run], axis, MOST_POINTS)
        return {
            **_line(run, arm),
            "look": _arm(arm),
            "curves": [{"arm": arm.name, "label": f"seed {run.seed}", **curve}],
            "axis": axis,
            "numbers": ["loss", *run.metrics.names],
            "shown": show if other else "loss",
            "config": flat(run.config),
            "environment": flat(environment),
            "attempts": [flat(one) for one in json_lines(run.folder.path / ATTEMPTS)],
            "evaluations": [
                {"hash": key, "variant": str(one.get("variant", "")), "seconds": number(one.get("seconds"))}
                for key, one in run.evaluations.items()
            ],
            "problems": run.problems,
        }

    def log(self, experiment: str, name: str, after: int | None) -> dict[str, Any]:
        """The end of a run's log, or what was appended after a byte."""
        return log_part(self.store.run(experiment, name).folder.log, after)


def _arm(arm: Arm) -> dict[str, Any]:
    return {
        "name": arm.name,
        "label": arm.label,
        "colour": arm.look.colour,
        "symbol": arm.look.symbol,
        "dash": arm.look.dash,
        "marked": bool(arm.look.marker),
        "runs": len(arm.runs),
    }


def _line(run: Run, arm: Arm) -> dict[str, Any]:
    """A run as a line of a table."""
    left = run.seconds_left
    return {
        "name": run.name,
        "arm": arm.name,
        "label": arm.label,
        "colour": arm.look.colour,
        "seed": None if arm.baseline else run.seed,
        "state": run.state,
        "step": run.step,
        "steps": run.steps,
        "loss": run.loss,
        "validation_loss": run.validation_loss,
        "speed": run.speed,
        "left": None if left is None else duration(left),
        "evaluated": list(run.evaluated),
        "changed": run.changed,
        "message": run.message,
        "problems": run.problems,
    }

"""The arms of an experiment as its run folders show them: runs that differ in their seed alone are one arm.

A folder may hold a variant several times, at another scale or with other settings: each is an arm of its own, numbered
from the second on. Variants that are evaluated with another's weights are arms without runs. Where there is a report,
its order, names and colours hold.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxgpt.experiment.report.style import Look, looks_in_order
from jaxgpt.experiment.serve.reading import mapping
from jaxgpt.experiment.serve.watch import Run

_DASHES = ("solid", "dot", "dashdot", "longdash")


@dataclasses.dataclass(frozen=True)
class Arm:
    """Runs over seeds.

    Attributes:
      name: unique in its experiment: the variant, with a number where there are several of it.
      label: the name for people.
      config: the configuration without what differs between seeds.
      runs: those that trained it; empty for a variant that is evaluated with another's weights.
      sources: (run, evaluation hash) of its evaluations.
    """

    name: str
    variant: str
    label: str
    look: Look
    baseline: bool
    config: Mapping[str, Any]
    runs: tuple[Run, ...]
    sources: tuple[tuple[Run, str], ...]


def arms_of(runs: Sequence[Run], about: Mapping[str, Any]) -> list[Arm]:
    """The arms in the order of the report `about` is of, else in the order their runs were asked for."""
    found: dict[tuple[str, str], _Draft] = {}
    for run in runs:
        config = without_seed(run)
        key = json.dumps(config, sort_keys=True, default=str)
        own = found.setdefault((run.variant, key), _Draft(run.variant, config, run.kind == "baseline"))
        own.runs.append(run)
        for variant, digest, model in _evaluations(run):
            arm = own
            if variant != run.variant:
                arm = found.setdefault((variant, key), _Draft(variant, {**config, "model": model}, own.baseline))
            arm.sources.append((run, digest))
    drafts = sorted(found.values(), key=lambda draft: not draft.runs)  # as plans have them: trained ones first
    names = _order([draft.variant for draft in drafts], about)
    baselines = {draft.variant for draft in drafts if draft.baseline}
    looks = looks_in_order([name for name in names if name not in baselines], baselines)
    labels = mapping(about.get("labels"))
    arms = []
    for variant in [*(name for name in names if name not in baselines), *(n for n in names if n in baselines)]:
        for number, draft in enumerate(draft for draft in drafts if draft.variant == variant):
            mark = f" ({number + 1})" if number else ""
            look = looks[variant]
            if number:
                look = dataclasses.replace(look, dash=_DASHES[number % len(_DASHES)])
            label = f"{labels.get(variant, variant)}{mark}"
            sources = tuple(draft.sources)
            arm = Arm(variant + mark, variant, label, look, draft.baseline, draft.config, tuple(draft.runs), sources)
            arms.append(arm)
    return arms


@dataclasses.dataclass
class _Draft:
    variant: str
    config: dict[str, Any]
    baseline: bool
    runs: list[Run] = dataclasses.field(default_factory=list)
    sources: list[tuple[Run, str]] = dataclasses.field(default_factory=list)


def without_seed(run: Run) -> dict[str, Any]:
    """The configuration without the seed, and without the run of the same seed and experiment that it starts from."""
    config = {name: value for name, value in run.config.items() if name != "seed"}
    start = mapping(config.get("start"))
    if start and Path(str(start.get("folder", ""))).parent.name == run.folder.path.parent.name:
        config["start"] = {name: value for name, value in start.items() if name not in ("folder", "hash")}
    return config


def _evaluations(run: Run) -> Iterable[tuple[str, str, dict[str, Any]]]:
    """(variant, evaluation hash, model) of what was asked for; of what was done where nothing was."""
    if run.wanted:
        for one in run.wanted:
            yield str(one.get("variant", run.variant)), str(one.get("hash")), mapping(one.get("model"))
        return
    for digest, one in run.evaluations.items():
        yield str(one.get("variant", run.variant)), digest, {}


def _order(variants: Iterable[str], about: Mapping[str, Any]) -> list[str]:
    """Each variant once, those of the report first, so that others do not change its colours."""
    listed = about.get("variants")
    first = [name for name in listed if isinstance(name, str)] if isinstance(listed, list) else []
    return list(dict.fromkeys([*first, *variants]))

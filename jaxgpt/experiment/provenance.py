"""With what the runs of one table were made, and whether that was the same for all: code, versions, machine."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from jaxgpt.experiment.plan import Plan, Run

KEYS = ("python", "processor", "nproc", "matmul_precision", "device_kind")
"""Entries of environment.json on which numbers depend, beside code, packages, variables and devices."""

THEN = ", then "
"""Between what a run was trained with and what it went on with."""

FEW = 6
"""Runs that are named one by one; of more, the variants are."""


def differences(plan: Plan) -> list[str]:
    """A sentence for everything that was not the same for all runs that have begun."""
    known = {run.name: made for run in plan.runs if (made := made_with(run.folder.environment()))}
    for run in plan.runs:
        codes = {one["code"] for one in run.folder.evaluations().values() if "code" in one}
        if run.name in known and codes:
            known[run.name]["code of the evaluation"] = ", ".join(sorted(codes))
    sentences = []
    for key in dict.fromkeys(key for made in known.values() for key in made):
        groups: dict[str, list[str]] = {}
        for name, made in known.items():
            groups.setdefault(made.get(key, "none"), []).append(name)
        if len(groups) > 1 or any(THEN in value for value in groups):  # a run may differ in itself
            parts = [f"{value} ({_named(plan, names)})" for value, names in groups.items()]
            sentences.append(f"the runs differ in {key}: {', '.join(parts)}; compare them with care")
    return sentences


def made_with(environment: Mapping[str, Any]) -> dict[str, str]:
    """What of a run's environment.json its numbers depend on, by name: all of it, where it went on with something else
    than it began with."""
    parts = [_made_with(one) for one in (*environment.get("earlier", ()), environment)]
    values = {key: dict.fromkeys(part.get(key, "none") for part in parts) for part in parts for key in part}
    return {key: THEN.join(found) for key, found in values.items()}


def _made_with(environment: Mapping[str, Any]) -> dict[str, str]:
    made = {key: str(environment[key]) for key in KEYS if environment.get(key) is not None}
    if "digest" in environment.get("code", {}):
        made["code"] = environment["code"]["digest"]
    for section in ("packages", "variables"):
        made |= {name: str(value) for name, value in environment.get(section, {}).items()}
    if "devices" in environment:
        kinds = Counter(device.rpartition(":")[0] or device for device in environment["devices"])
        made["devices"] = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
    return made


def missing(plan: Plan) -> list[str]:
    """What a report of this plan lacks, run by run where these are few, else by state and variant."""
    open_runs = [run for run in plan.runs if not run.is_finished()]
    if len(open_runs) <= FEW:
        return [f"{run.name} is not finished: {_why(run)}" for run in open_runs]
    states: dict[str, list[str]] = {}
    for run in open_runs:
        states.setdefault(run.folder.state(), []).append(run.name)
    return [
        f"{len(names)} of {len(plan.runs)} runs are not finished: {state} ({_named(plan, names)})"
        for state, names in states.items()
    ]


def _why(run: Run) -> str:
    held = run.folder.quarantined()
    return f"failed ({held.message})" if held else run.folder.state()


def _named(plan: Plan, names: Sequence[str]) -> str:
    if len(names) <= FEW:
        return ", ".join(names)
    counts = Counter(run.variant for run in plan.runs if run.name in set(names))
    return ", ".join(f"{count} of {variant}" for variant, count in counts.items())

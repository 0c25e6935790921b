"""What arms differ in beyond the axes that an experiment names: a comparison of positions is one of nothing else."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from jaxgpt.config import encode
from jaxgpt.experiment.plan import Arm, Plan

_ABSENT = "nothing"
_FOLLOW_DATA = ("model.vocab_size", "model.train_length")  # what a model takes from its data where it says nothing
_FEW, _LONG = 3, 40  # arms named one by one; characters of a value


def unnamed_differences(plan: Plan, chosen: Collection[str] = ()) -> list[str]:
    """A sentence for every setting in which arms differ although it lies on none of the experiment's axes; an axis
    names everything below it. None where the experiment names no axes.

    Compared are the resolved configurations of arms that are trained. Left out are variants with a parent, which are
    meant to differ from it, feed-forward widths where `match()` chooses them, and what trials did.

    Args:
      chosen: paths of settings that trials chose for every arm.
    """
    axes = plan.experiment.axes
    arms = [arm for arm in plan.arms if arm.variant.parent is None and not arm.given]
    if not axes or len(arms) < 2:
        return []
    found = list(_differences({arm.name: _compared(arm, plan) for arm in arms}))
    if any(path.startswith("data.") for path, _ in found):
        found = [(path, values) for path, values in found if path not in _FOLLOW_DATA]
    return [_sentence(path, values, axes) for path, values in found if not _named(path, (*axes, *chosen))]


def _compared(arm: Arm, plan: Plan) -> dict[str, Any]:
    """The configuration of an arm without what is chosen for it."""
    model = arm.training.model if plan.experiment.match is None else arm.training.model.with_hidden(1)
    raw = encode(arm.training) | {"model": encode(model)}
    del raw["start"]
    return raw


def _differences(values: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """(dotted path, arm -> value) of the settings that are not the same for all. Of mappings of unlike kinds the kind
    is what differs; those of a kind are compared with each other."""
    if all(isinstance(value, Mapping) for value in values.values()):
        kinds = {arm: value.get("type", _ABSENT) for arm, value in values.items()}
        if _differ(kinds):
            yield f"{above}type", kinds
        for kind in dict.fromkeys(kinds.values()):
            alike = {arm: value for arm, value in values.items() if kinds[arm] == kind}
            for key in dict.fromkeys(key for value in alike.values() for key in value if key != "type"):
                below = {arm: value.get(key, _ABSENT) for arm, value in alike.items()}
                yield from _differences(below, f"{above}{key}.")
    elif _differ(values):
        yield above.removesuffix("."), dict(values)


def _differ(values: Mapping[str, Any]) -> bool:
    first, *rest = values.values()
    return any(value != first for value in rest)


def _named(path: str, axes: Sequence[str]) -> bool:
    """`extend` and what lies below it name every scaling of the model's positions."""
    if any(axis.partition(".")[0] == "extend" for axis in axes) and "scaling" in path.split("."):
        return True
    return any(path == axis or path.startswith(f"{axis}.") for axis in axes)


def _sentence(path: str, values: Mapping[str, Any], axes: Sequence[str]) -> str:
    groups: list[tuple[Any, list[str]]] = []  # a value, and the arms that have it
    for arm, value in values.items():
        for other, arms in groups:
            if other == value:
                arms.append(arm)
                break
        else:
            groups.append((value, [arm]))
    if len(values) == 2:
        who, what = " and ".join(values), ", ".join(_shown(value) for value, _ in groups)
    else:
        who = f"{len(values)} arms"
        what = "; ".join(f"{_shown(value)}: {_listed(arms)}" for value, arms in groups)
    return f"{who} differ in {path} ({what}), which is none of the axes {', '.join(axes)}"


def _shown(value: Any) -> str:
    value = value.get("type", value) if isinstance(value, Mapping) else value
    text = "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
    return text if len(text) <= _LONG else f"{text[: _LONG - 3]}..."


def _listed(arms: Sequence[str]) -> str:
    more = len(arms) - _FEW
    return ", ".join(arms) if more < 2 else f"{', '.join(arms[:_FEW])} and {more} more"

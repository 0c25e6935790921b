"""Weights of one model put into another: every parameter of both is kept, changed, added or dropped, by a rule.

Nothing is left to chance: a parameter whose shape differs, that is missing or that is left over is an error unless the
configuration names it. What was done to each is a table, printed and kept as `surgery.json` beside the run.
"""

from __future__ import annotations

import dataclasses
import fnmatch
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeVar

import jax.numpy as jnp
import numpy as np

from jaxgpt.config import unhashed
from jaxgpt.errors import CheckpointError
from jaxgpt.nn.params import flatten, unflatten

M = TypeVar("M")


@dataclasses.dataclass(frozen=True)
class StartConfig:
    """Whose weights a run begins with, and what may differ between the two models.

    The lists name parameters as checkpoints do (`position/table`); `*` stands for any text.

    hash: of the configuration of the run whose last weights are taken, trained to its end.
    folder: where that run lies; it decides nothing, so another place of the same run is the same start.
    add: parameters the old model lacks, drawn anew.
    drop: parameters of the old model that the new one lacks. What is in `add` as well as here is drawn anew in the
        shape of the new model.
    grow: parameters with more rows (first axis) than before: the old ones are kept, the new ones drawn anew.
    """

    hash: str
    folder: str = unhashed("")
    add: tuple[str, ...] = ()
    drop: tuple[str, ...] = ()
    grow: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Cut:
    """What became of one parameter."""

    name: str
    action: Literal["kept", "changed", "added", "dropped"]
    array: str  # type and shape, such as `float32[128, 32]`; of a dropped parameter the old one's
    how: str = ""


def transplant(old: Mapping[str, np.ndarray], model: M, rules: StartConfig, where: str) -> tuple[M, list[Cut]]:
    """`model`, freshly drawn, with the arrays of `old` (by path) wherever the two agree or a rule says how; and the
    table of what was done to every parameter of both, by name. `where` names the old weights in errors.

    Raises:
      CheckpointError: a parameter differs without a rule that explains it.
    """
    new = flatten(model)
    found, unexplained, cuts = {}, [], []
    for name in sorted(old.keys() | new.keys()):
        array, cut = _one(name, old.get(name), new.get(name), rules)
        if isinstance(cut, Cut):
            cuts.append(cut)
            found[name] = array
        else:
            unexplained.append(cut)
    if unexplained:
        more = f" (and {len(unexplained) - 1} more parameters differ)" if len(unexplained) > 1 else ""
        raise CheckpointError(f"{where}: {unexplained[0]}{more}")
    return unflatten(model, {name: found[name] for name in new}), cuts


def _one(name: str, old: np.ndarray | None, new: Any, rules: StartConfig) -> tuple[Any, Cut | str]:
    """The array of one parameter and what was done, or the reason why nothing can be."""
    add, drop, grow = (_matches(name, names) for names in (rules.add, rules.drop, rules.grow))
    if new is None:
        assert old is not None
        if drop:
            return None, Cut(name, "dropped", _shown(old))
        return None, f"{name} has no place in this model; start.drop=[{name}] leaves it out, or give the model its part"
    if old is None:
        if add:
            return new, Cut(name, "added", _shown(new), "drawn anew")
        return None, f"{name} is not among these weights; start.add=[{name}] draws it anew, or take it from the model"
    if _shown(old) == _shown(new):
        return jnp.asarray(old), Cut(name, "kept", _shown(new))
    if add and drop:
        return new, Cut(name, "changed", _shown(new), f"drawn anew, was {_shown(old)}")
    longer = old.dtype == new.dtype and old.ndim > 0 and old.shape[1:] == new.shape[1:] and len(old) < len(new)
    if longer and grow:
        how = f"had {len(old)} rows, {len(new) - len(old)} drawn anew behind them"
        return jnp.concatenate([jnp.asarray(old), new[len(old) :]]), Cut(name, "changed", _shown(new), how)
    way = f"start.grow=[{name}] keeps its {len(old)} rows and draws the others anew" if longer else "match its shape"
    anew = f"start.add=[{name}] with start.drop=[{name}] draws all of it anew"
    return None, f"{name} is {_shown(old)}, this model has {_shown(new)}; {way}, or {anew}"


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def _shown(array: Any) -> str:
    return f"{np.dtype(array.dtype)}{list(array.shape)}"


def describe(cuts: Sequence[Cut], where: str) -> str:
    """The table as text: a line of counts, then a line for each parameter."""
    counts = Counter(cut.action for cut in cuts)
    total = ", ".join(f"{counts[action]} {action}" for action in ("kept", "changed", "added", "dropped"))
    width = max((len(cut.name) for cut in cuts), default=0)
    lines = [f"  {cut.action:8} {cut.name:{width}}  {cut.array}  {cut.how}".rstrip() for cut in cuts]
    return "\n".join([f"weights of {where}: {total}", *lines])

"""Operations of a program, counted before it is compiled."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from jax.extend import core


def matrix_flops(jaxpr: Any) -> float:
    """Multiply-adds times two of all matrix products of a program (a closed jaxpr), of all devices together. What
    stands in a scan counts as often as the scan turns; of branches, the most expensive; a loop without a known number
    of turns counts once. What is computed again for the gradient (remat) is counted again: it is done again.
    """
    return sum(_of_equation(equation) for equation in getattr(jaxpr, "jaxpr", jaxpr).eqns)


def _of_equation(equation: Any) -> float:
    name, parameters = equation.primitive.name, equation.params
    if name == "dot_general":
        (contracted, _), _ = parameters["dimension_numbers"]
        shape = equation.invars[0].aval.shape
        return 2.0 * math.prod(equation.outvars[0].aval.shape) * math.prod(shape[axis] for axis in contracted)
    if name.startswith("ragged_dot"):  # each row meets one of the matrices; for the gradient, each of its columns does
        rows, wide = (variable.aval.shape for variable in equation.invars[:2])
        inner = wide[-2] if len(wide) == 3 else wide[-1]
        return 2.0 * math.prod(rows) * (wide[-1] if len(wide) == 3 else inner)
    if name == "cond":
        return max(matrix_flops(branch) for branch in parameters["branches"])
    turns = parameters["length"] if name == "scan" else 1
    return turns * sum(matrix_flops(inner) for inner in _inner(parameters))


def _inner(parameters: dict[str, Any]) -> Iterator[Any]:
    for value in parameters.values():
        for one in value if isinstance(value, (tuple, list)) else (value,):
            if isinstance(one, (core.Jaxpr, core.ClosedJaxpr)):
                yield one

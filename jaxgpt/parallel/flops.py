"""Operations of a program, counted before it is compiled."""

from __future__ import annotations

import math
from typing import Any

from jax.extend import core


def matrix_flops(jaxpr: Any) -> float:
    """Multiply-adds times two of all matrix products of a program (a closed jaxpr), of all devices together. What
    stands in a scan counts as often as the scan turns; of branches, the most expensive; a loop without a known number
    of turns counts once. What is computed again for the gradient (remat) is counted again: it is done again. Kernels of
    attention count all pairs of tokens, though they skip hidden ones.
    """
    return sum(_of_equation(equation) for equation in getattr(jaxpr, "jaxpr", jaxpr).eqns)


def _of_equation(equation: Any) -> float:
    name, parameters = equation.primitive.name, equation.params
    if name == "dot_general":
        (contracted, _), _ = parameters["dimension_numbers"]
        shape = equation.invars[0].aval.shape
        return 2.0 * math.prod(equation.outvars[0].aval.shape) * math.prod(shape[axis] for axis in contracted)
    if name.startswith("ragged_dot"):  # each row meets one of the matrices
        numbers = parameters["ragged_dot_dimension_numbers"]
        (contracted, other), _ = numbers.dot_dimension_numbers
        rows, wide = (variable.aval.shape for variable in equation.invars[:2])
        if set(numbers.lhs_ragged_dimensions) <= set(contracted):  # the gradient of the matrices
            return 2.0 * math.prod(rows) * math.prod(size for axis, size in enumerate(wide) if axis not in other)
        return 2.0 * math.prod(equation.outvars[0].aval.shape) * math.prod(rows[axis] for axis in contracted)
    if name.startswith("dot_product_attention_"):  # cuDNN's: scores and values; for the gradient scores again, and four
        (batch, queries, heads, width), (_, keys, _, _) = (variable.aval.shape for variable in equation.invars[:2])
        return (4.0 if "fwd" in name else 10.0) * batch * heads * queries * keys * width
    if name == "cond":
        return max(matrix_flops(branch) for branch in parameters["branches"])
    turns = 1
    if name == "scan":
        turns = parameters["length"]
    elif name == "shard_map":  # inside are the shapes of one device
        turns = parameters["mesh"].size
    elif name == "pallas_call":
        turns = math.prod(parameters["grid_mapping"].grid)
    return turns * sum(matrix_flops(inner) for inner in core.jaxprs_in_params(parameters))

"""Layers one after the other: some first ones, then a pattern that repeats, scanned over or unrolled.

Parameters of like layers are stacked, [layers, ...]. Where layers differ in their parts, each kind has a stack of its
own. States of layers (caches) are never stacked: each is written in place, whatever it holds.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from jaxgpt.errors import ConfigError
from jaxgpt.nn.block import Block

Blocks = Any  # a Block of stacked parameters, or a mapping of kinds to such
Aux = dict[str, Array]
Call = Callable[[Block, str, Any, Array, Any], tuple[Array, Any, Aux]]
"""block, kind, number of the layer, x, state -> x, state, aux"""

Remat = bool | Literal["dots_saveable", "dots_with_no_batch_dims_saveable"]
"""What of a layer is computed again for the gradient (Chen et al. 2016, arXiv:1604.06174). False: nothing. True: all
but its input. Or, by the name of JAX's policy, all but the results of matrix products (`dots_saveable`), or of those
with weights alone, so that scores are computed again (`dots_with_no_batch_dims_saveable`)."""


@dataclasses.dataclass(frozen=True)
class Order:
    """The kind of every layer: `first`, then `pattern` as often as it takes to make `count` layers.

    one_stack: all kinds have the same parts, so that one stack holds them all.
    """

    first: tuple[str, ...]
    pattern: tuple[str, ...]
    count: int
    one_stack: bool

    @property
    def repeats(self) -> int:
        """How often the pattern stands."""
        return (self.count - len(self.first)) // len(self.pattern)

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kind of each layer."""
        return self.first + self.pattern * self.repeats

    def layers_of(self, kind: str) -> list[int]:
        """The numbers of the layers whose parameters stand in this kind's stack."""
        return [number for number, other in enumerate(self.kinds) if self.one_stack or other == kind]

    def path(self, kind: str) -> str:
        """Where the stack of a kind stands among the parameters."""
        return "blocks" if self.one_stack else f"blocks/{kind}"

    def place(self, number: int) -> int:
        """Where the parameters of a layer stand in its stack."""
        return number if self.one_stack else self.kinds[:number].count(self.kinds[number])


def stack_of(blocks: Blocks, order: Order, kind: str) -> Block:
    """The stack with the parameters of a kind."""
    return blocks if order.one_stack else blocks[kind]


def make_blocks(order: Order, make: Callable[[str, Array], Block], keys: Array) -> Blocks:
    """All blocks, drawn by `make(kind, key)` with a key for each layer."""

    def stack(kind: str) -> Block:
        return jax.vmap(lambda key: make(kind, key))(keys[jnp.array(order.layers_of(kind))])

    if order.one_stack:
        return stack(order.pattern[0])
    return nnx.Dict({kind: stack(kind) for kind in dict.fromkeys(order.kinds)})


def block_at(blocks: Blocks, order: Order, number: int) -> Block:
    """The block of one layer."""
    place = order.place(number)
    return jax.tree.map(lambda leaf: leaf[place], stack_of(blocks, order, order.kinds[number]))


def one_by_one(
    blocks: Blocks, order: Order, call: Call, x: Array, states: Sequence[Any]
) -> tuple[Array, tuple[Any, ...], Aux]:
    """Every layer in turn, each with its state: x, the new states, and statistics stacked by layer."""
    new_states, found = [], []
    for number, kind in enumerate(order.kinds):
        x, state, aux = call(block_at(blocks, order, number), kind, number, x, states[number])
        new_states.append(state)
        found.append(aux)
    return x, tuple(new_states), _gather(found, [], 0)


def in_groups(blocks: Blocks, order: Order, call: Call, x: Array, *, unroll: bool, remat: Remat) -> tuple[Array, Aux]:
    """The first layers in turn, then a scan over the repeats of the pattern: x, and statistics stacked by layer.

    unroll: write the scan out. remat: which activations of each repeat (each first layer) are computed again.
    """
    first, pattern = order.first, order.pattern
    whole = {"": blocks} if order.one_stack else {kind: blocks[kind] for kind in dict.fromkeys(pattern)}
    in_pattern = {name: [i for i, kind in enumerate(pattern) if name in ("", kind)] for name in whole}

    def groups(name: str) -> Any:
        size = len(in_pattern[name])
        begin = len(first) if order.one_stack else first.count(name)
        return jax.tree.map(lambda leaf: leaf[begin:].reshape(order.repeats, size, *leaf.shape[1:]), whole[name])

    def alone(x: Array, block: Block, number: int) -> tuple[Array, Aux]:
        x, _, aux = call(block, first[number], number, x, None)
        return x, aux

    def group(x: Array, leaves: Any) -> tuple[Array, list[Aux]]:
        stacks, numbers = leaves
        found = []
        for i, kind in enumerate(pattern):
            name = "" if order.one_stack else kind
            place = in_pattern[name].index(i)
            block = jax.tree.map(lambda leaf, place=place: leaf[place], stacks[name])
            x, _, aux = call(block, kind, numbers[i], x, None)
            found.append(aux)
        return x, found

    policy = getattr(jax.checkpoint_policies, remat) if isinstance(remat, str) else None
    begun = []
    for number in range(len(first)):
        once = jax.checkpoint(alone, static_argnums=2, policy=policy) if remat else alone
        x, aux = once(x, block_at(blocks, order, number), number)
        begun.append(aux)
    numbers = jnp.arange(len(first), order.count).reshape(order.repeats, len(pattern))
    leaves = {name: groups(name) for name in whole}, numbers
    x, found = jax.lax.scan(jax.checkpoint(group, policy=policy) if remat else group, x, leaves, unroll=unroll)
    return x, _gather(begun, found, order.repeats)


def _gather(begun: Sequence[Aux], found: Sequence[Aux], repeats: int) -> Aux:
    """Statistics by name, [layers that report it, ...] in their order: of single layers, then of each place in the
    pattern, [repeats, ...]."""
    gathered = {}
    for name in dict.fromkeys(name for aux in (*begun, *found) for name in aux):
        parts = [aux[name][None] for aux in begun if name in aux]
        repeated = [aux[name] for aux in found if name in aux]
        if len({part.shape[1:] for part in (*parts, *repeated)}) > 1:
            raise ConfigError(
                f"{name}: layers give it out in several shapes, which cannot be stacked; give all layers with experts "
                "the same number of them, and capture without a cache"
            )
        if repeated:
            stacked = jnp.stack(repeated, axis=1)
            parts.append(stacked.reshape(repeats * len(repeated), *stacked.shape[2:]))
        gathered[name] = jnp.concatenate(parts)
    return gathered


def rebalanced(parameters: Mapping[str, Array], blocks: Blocks, order: Order, load: Array) -> dict[str, Array]:
    """`parameters` (by path) with what routers change of themselves after a step; `load` is [layers with any, E]."""
    changed = dict(parameters)
    kinds = order.pattern[:1] if order.one_stack else tuple(dict.fromkeys(order.kinds))
    found = {kind: getattr(stack_of(blocks, order, kind).feedforward, "router", None) for kind in kinds}
    routers = {kind: router for kind, router in found.items() if router is not None}
    having = sorted(number for kind in routers for number in order.layers_of(kind))
    for kind, router in routers.items():
        path, loads = order.path(kind), load[jnp.array([having.index(number) for number in order.layers_of(kind)])]
        for name, change in jax.vmap(lambda one, load_E: one.change(load_E))(router, loads).items():
            place = f"{path}/feedforward/router/{name}"
            changed[place] = changed[place] + change
    return changed


def of_kind(value: Any, kind: str) -> Any:
    """What a layer kind has of a setting that is one for all or a mapping from kinds."""
    return value[kind] if isinstance(value, Mapping) else value

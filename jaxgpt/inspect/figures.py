"""Attention maps, routers' probabilities and the logit lens, drawn.

Shapes: L layers, N heads, T tokens, S keys, E experts.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

LABELLED = 24  # tokens: of more, only some are named beside a small map
_SIDE = 2.1  # inches of one head's map
_MAP = "viridis"


def attention_maps(
    weights_LNTS: np.ndarray, words: Sequence[str], layers: Sequence[int], heads: Sequence[int]
) -> Figure:
    """A panel per layer (rows) and head (columns): how much each token (from the top) reads from each (from the left).

    layers, heads: their numbers, for the titles; `weights` has just these. Each panel has its own scale: 0 to its most.
    """
    rows, columns = weights_LNTS.shape[:2]
    figure = Figure(figsize=(_SIDE * columns + 1.2, _SIDE * rows + 0.9), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False)
    for row, layer in enumerate(layers):
        for column, head in enumerate(heads):
            axes = panels[row, column]
            axes.imshow(weights_LNTS[row, column], cmap=_MAP, vmin=0.0, interpolation="nearest")
            axes.set_title(f"layer {layer}, head {head}", fontsize=8)
            _name(axes, words if column == 0 else None, words if row == rows - 1 else None)
    return figure


def router_maps(chances_LTE: np.ndarray, words: Sequence[str], layers: Sequence[int]) -> Figure:
    """A panel per layer with a router: the probability of every expert (columns) for every token (rows)."""
    count, tokens, experts = chances_LTE.shape
    width = max(1.6, 0.16 * experts)
    figure = Figure(figsize=(width * count + 1.6, 0.16 * tokens + 1.2), layout="constrained")
    panels = figure.subplots(1, count, squeeze=False)[0]
    image = None
    for axes, chances_TE, layer in zip(panels, chances_LTE, layers, strict=True):
        image = axes.imshow(chances_TE, cmap=_MAP, vmin=0.0, vmax=1.0, aspect="auto", interpolation="nearest")
        axes.set_title(f"layer {layer}", fontsize=8)
        axes.set_xlabel("expert", fontsize=8)
        _name(axes, words if axes is panels[0] else None, None)
        axes.set_xticks(range(0, experts, max(1, experts // 8)))
        axes.tick_params(axis="x", labelsize=7)
    assert image is not None
    figure.colorbar(image, ax=list(panels), label="probability", shrink=0.8)
    return figure


def lens_map(top_LT: Sequence[Sequence[str]], chance_LT: np.ndarray, words: Sequence[str]) -> Figure:
    """What each layer (the last one on top) would say next behind every token, on a ground that tells how likely it
    finds that."""
    layers, tokens = chance_LT.shape
    figure = Figure(figsize=(0.72 * tokens + 1.8, 0.34 * layers + 1.4), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(chance_LT, cmap=_MAP, vmin=0.0, vmax=1.0, aspect="auto", origin="lower")
    for layer in range(layers):
        for token in range(tokens):
            colour = "white" if chance_LT[layer, token] < 0.6 else "black"
            word = _plain(top_LT[layer][token])
            axes.text(token, layer, word, ha="center", va="center", fontsize=7, color=colour)
    axes.set_yticks(range(layers), [str(layer) for layer in range(layers)], fontsize=7)
    axes.set_ylabel("behind layer")
    axes.set_xticks(
        range(tokens), list(map(_plain, words)), fontsize=7, rotation=60, ha="right", rotation_mode="anchor"
    )
    figure.colorbar(image, ax=axes, label="probability")
    return figure


def _plain(word: str) -> str:
    """A word as it is: between dollar signs there would be formulas."""
    return word.replace("$", r"\$")


def _name(axes: Axes, rows: Sequence[str] | None, columns: Sequence[str] | None) -> None:
    """Words beside and below a map, as many as there is room for."""
    for words, axis in ((rows, axes.yaxis), (columns, axes.xaxis)):
        places = [] if words is None else range(0, len(words), -(-len(words) // LABELLED))
        axis.set_ticks(list(places), [_plain(words[place]) for place in places] if words else [], fontsize=6)
    axes.tick_params(axis="x", rotation=90)

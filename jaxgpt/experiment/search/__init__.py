"""Hyperparameter search: the space an experiment names, points as runs, studies on disk, trials, tables of them."""

from __future__ import annotations

from jaxgpt.experiment.search.space import Choice, Float, Int, Median, Range, Search, Value

__all__ = ["Choice", "Float", "Int", "Median", "Range", "Search", "Value"]

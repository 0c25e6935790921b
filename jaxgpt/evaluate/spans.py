"""Which tokens a protocol looks at: multiples of the training length, evenly spread stretches of text, rows of windows.

Everything here is a function of the split and the protocol alone, so that every model of an experiment is scored on
the same tokens. A *stop* is the index in the split's token stream just behind a row's last target.

Shapes: R rows, T tokens of a row.
"""

from __future__ import annotations

import numpy as np

from jaxgpt.data.shards import Tokens
from jaxgpt.errors import ConfigError, DataError


def tokens_of(multiple: float, train_length: int, path: str) -> int:
    """`multiple` training lengths in tokens; ConfigError, naming `path`, where that is not a whole number from 1 on."""
    tokens = round(multiple * train_length)
    if tokens < 1 or abs(tokens - multiple * train_length) > 1e-6:
        raise ConfigError(
            f"{path}: {multiple:g} times the training length {train_length} is no whole number of tokens; "
            "choose a multiple that fits, or another data.sequence_length"
        )
    return tokens


def contexts_of(multiples: tuple[float, ...], train_length: int, path: str) -> list[int]:
    """Contexts in tokens, ascending and each once."""
    return sorted({tokens_of(multiple, train_length, path) for multiple in multiples})


def quarter(tokens: int | None, train_length: int) -> int:
    """`tokens`, or where that is None a quarter of the training length (at least one token)."""
    return max(1, train_length // 4) if tokens is None else tokens


def spread(num_tokens: int, at_most: int, length: int, purpose: str) -> np.ndarray:
    """First indices of up to `at_most` stretches of `length` inputs in a stream of `num_tokens`: evenly spaced, apart.

    Every input has the token after it as target, so a stretch touches `length + 1` tokens. DataError if none fits.
    """
    usable = num_tokens - 1
    count = min(at_most, usable // length)
    if count < 1:
        raise DataError(
            f"{purpose} needs {length + 1} tokens of validation text, and there are {num_tokens}; give more text, "
            "a larger data.validation_fraction, or smaller multiples of the training length"
        )
    return np.arange(count) * (usable - length) // max(count - 1, 1)


def windows(tokens: Tokens, stops: np.ndarray, context: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of `context` inputs and their targets, int32 `[R, context]` each; the last target is `tokens[stop - 1]`."""
    rows = np.asarray(tokens[stops[:, None] + np.arange(-context - 1, 0)], dtype=np.int32)
    return rows[:, :-1], rows[:, 1:]


def shares(capacity: np.ndarray, wanted: int) -> np.ndarray:
    """How many of `wanted` places each document gets: as even as `capacity` allows, ties by document number."""
    given = np.zeros(len(capacity), np.int64)
    for done, document in enumerate(np.argsort(capacity, kind="stable")):
        fair = (wanted - given.sum()) // (len(capacity) - done)
        given[document] = min(capacity[document], fair)
    return given


def document_stops(offsets: np.ndarray, needed: int, gap: int, places: int, path: str) -> np.ndarray:
    """Stops of exactly `places` places in documents of `needed` tokens or more, ascending.

    Each place has the `needed` tokens up to its stop in its own document. Places are shared out evenly among documents
    and evenly within them, their stops at least `gap` apart; one alone in its document ends where the document ends.
    DataError, naming `path`, if the long documents have too little room.
    """
    lengths = np.diff(offsets)
    documents = np.flatnonzero(lengths >= needed)
    if len(documents) > places:
        documents = documents[np.arange(places) * len(documents) // places]
    capacity = (lengths[documents] - needed) // gap + 1
    if capacity.sum() < places:
        raise DataError(
            f"{path}: validation documents of {needed} tokens or more have room for {capacity.sum()} of {places} "
            f"places; set {path}={capacity.sum()}, give longer documents, or choose smaller multiples"
        )
    stops = [
        offsets[document] + _evenly(needed, lengths[document], count)
        for document, count in zip(documents, shares(capacity, places), strict=True)
    ]
    return np.concatenate(stops).astype(np.int64)


def _evenly(low: int, high: int, count: int) -> np.ndarray:
    """`count` whole numbers from `low` to `high`, both included; one alone is `high`."""
    if count < 2:
        return np.full(count, high)
    return low + np.arange(count) * (high - low) // (count - 1)

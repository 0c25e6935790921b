import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from jaxgpt.nn.mixer.base import Mask, MixerConfig, MixerContext
from jaxgpt.nn.position.base import PositionEncoding, Positions

ROW = Positions.packed(jnp.array([[1, 1, 1, 2, 2, 0]]))


def test_mask_is_causal_within_a_document_and_hides_padding():
    wanted = [
        [1, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0],
        [0, 0, 0, 1, 0, 0],
        [0, 0, 0, 1, 1, 0],
        [0, 0, 0, 0, 0, 0],
    ]
    np.testing.assert_array_equal(Mask()(ROW, ROW)[0], np.array(wanted, bool))


def test_a_window_counts_the_own_token():
    row = Positions.of(jnp.zeros((3, 4)))
    np.testing.assert_array_equal(Mask(window=1)(row, row), np.eye(4, dtype=bool)[None])
    np.testing.assert_array_equal(Mask(window=2)(row, row)[0], np.eye(4, dtype=bool) | np.eye(4, k=-1, dtype=bool))


def test_mask_of_blocks_is_the_blocks_of_the_mask():
    whole = Mask(window=2)(ROW, ROW)
    q, k = (
        Positions(*(a[:, part] for a in (ROW.position, ROW.index, ROW.segment))) for part in (slice(3, 6), slice(1, 5))
    )
    np.testing.assert_array_equal(Mask(window=2)(q, k), whole[:, 3:6, 1:5])


def test_visible_keys_are_those_the_mask_shows():
    """Also where an encoding has reassigned positions; the padding sees nothing and counts as one."""
    moved = dataclasses.replace(ROW, position=7 * ROW.position + 3)
    for window in (None, 2):
        shown = np.maximum(Mask(window)(ROW, ROW).sum(-1), 1)
        context = MixerContext(ROW, PositionEncoding(), Mask(window))
        np.testing.assert_array_equal(context.visible(), shown)
        reassigned = MixerContext(moved, PositionEncoding(), Mask(window), place=ROW.position)
        np.testing.assert_array_equal(reassigned.visible(), shown)


def test_a_mixer_without_make_says_so():
    with pytest.raises(TypeError, match=r"MixerConfig must define make\(\)"):
        MixerConfig().make(None, None)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"MixerConfig must define flops_per_token\(\)"):
        MixerConfig().flops_per_token(None, 1)  # type: ignore[arg-type]

"""Operations counted in programs: products, loops, branches, what is computed again; and a model's own count."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest

from jaxgpt.config import decode
from jaxgpt.models.base import ModelConfig
from jaxgpt.parallel.flops import matrix_flops
from jaxgpt.train.run import abstract_key
from jaxgpt.train.step import loss_sum

A, B = jnp.zeros((8, 16)), jnp.zeros((16, 4))
ONCE = 2 * 8 * 16 * 4


def flops(function, *arguments):
    return matrix_flops(jax.make_jaxpr(function)(*arguments))


def test_a_product_and_its_gradients():
    assert flops(jnp.dot, A, B) == ONCE
    assert flops(jax.grad(lambda a, b: jnp.sin(a @ b).sum(), (0, 1)), A, B) == 3 * ONCE


def test_a_scan_counts_every_turn_and_a_branch_the_dearest():
    def turn(total, number):
        return total + jax.lax.cond(number > 2, lambda: (A @ B).sum(), lambda: 0.0), None

    assert flops(lambda: jax.lax.scan(turn, 0.0, jnp.arange(5))) == 5 * ONCE


def test_what_is_computed_again_is_counted_again():
    def twice(a, b):
        return jnp.sin(jnp.sin(a @ b) @ b.T).sum()

    plain, again = jax.grad(twice), jax.grad(jax.checkpoint(twice))
    assert flops(again, A, B) > flops(plain, A, B)


def test_rows_of_a_ragged_product_meet_one_matrix_each():
    assert flops(jax.lax.ragged_dot, A, jnp.zeros((3, 16, 4)), jnp.array([2, 2, 4])) == ONCE


@pytest.mark.parametrize(
    "parts",
    [
        {},
        {"mixer": {"type": "latent"}},
        {"feedforward": "gated", "num_kv_heads": 2, "tie_embeddings": False},
        {"feedforward": {"type": "moe", "experts": 4, "implementation": "ragged"}},
    ],
    ids=["dense", "latent", "gated", "mixture"],
)
def test_a_models_own_count_is_that_of_its_program(parts):
    """Unrolled and without computing anything again: within a tenth, which leaves room for what a count passes over
    (biases of positions, routers); causal slices, a matter of CPUs, are off."""
    width, length, rows = 64, 64, 2
    raw = {"type": "decoder", "num_layers": 3, "width": width, "vocab_size": 96, "train_length": length, **parts}
    config = dataclasses.replace(decode(ModelConfig, raw), layers="unroll")
    model = jax.eval_shape(config.make, abstract_key())
    tokens = jax.ShapeDtypeStruct((rows, length), jnp.int32)
    batch = {"inputs": tokens, "targets": tokens, "weights": jax.ShapeDtypeStruct((rows, length), jnp.float32)}
    counted = matrix_flops(jax.make_jaxpr(jax.grad(lambda model, batch: loss_sum(model, batch, False)))(model, batch))
    assert counted == pytest.approx(config.flops_per_token(length) * rows * length, rel=0.1)

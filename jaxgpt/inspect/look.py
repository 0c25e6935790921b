"""What is drawn and told about a model and a text."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from jaxgpt.data.tokenizers.base import Tokenizer
from jaxgpt.errors import ConfigError, UserError
from jaxgpt.generate.text import Source
from jaxgpt.inspect.figures import attention_maps, lens_map, router_maps
from jaxgpt.models.decoder import Decoder, DecoderConfig
from jaxgpt.models.lens import analogy, logit_lens, neighbours
from jaxgpt.nn.feedforward.moe import MixtureConfig

MOST = 96  # tokens of a text; maps of more cannot be read
LAYERS, HEADS = 6, 8  # drawn unless others are asked for


@dataclasses.dataclass(frozen=True)
class Looked:
    """Figures by name, and the likeliest next tokens with their probabilities."""

    figures: dict[str, Figure]
    likeliest: list[tuple[str, float]]


def look(
    source: Source, text: str, layers: Sequence[int] | None = None, heads: Sequence[int] | None = None, count: int = 5
) -> Looked:
    """One forward pass over a text with everything captured: attention maps of the layers and heads asked for (numbers
    from 0; None: the first and the last, some between), routers' maps where there are any, the logit lens.

    Raises ConfigError for a text that is empty or too long to be drawn, or a layer or head that is not there.
    """
    model: Any = source.model
    tokens = source.encode(text)
    if not tokens or len(tokens) > MOST:
        raise ConfigError(f"--prompt: has {len(tokens)} tokens, and from 1 to {MOST} can be drawn")
    words = [shown(source.tokenizer, token) for token in tokens]
    aux = _forward(model, jnp.asarray([tokens], jnp.int32))
    figures = {}
    if "attention" in aux:
        weights = aux["attention"][:, 0]
        rows = _chosen("--layers", layers, len(weights), LAYERS)
        columns = _chosen("--heads", heads, weights.shape[1], HEADS)
        figures["attention"] = attention_maps(weights[np.ix_(rows, columns)], words, rows, columns)
    if "router" in aux:
        chances = aux["router"][:, 0]
        numbers = _with_router(model.config)
        rows = _chosen("--layers", None, len(chances), LAYERS)
        figures["router"] = router_maps(chances[rows], words, [numbers[row] for row in rows])
    chance_LTV = aux["lens"][:, 0]
    top = chance_LTV.argmax(-1)
    names = [[shown(source.tokenizer, token) for token in row] for row in top.tolist()]
    figures["lens"] = lens_map(names, chance_LTV.max(-1), words)
    last = chance_LTV[-1, -1]
    best = np.argsort(-last, kind="stable")[:count]
    return Looked(figures, [(shown(source.tokenizer, int(token)), float(last[token])) for token in best])


def _with_router(config: DecoderConfig) -> list[int]:
    """The numbers of the layers whose feed-forward layer has a router."""
    of = config.feedforward
    each = [of[kind] if isinstance(of, Mapping) else of for kind in config.order.kinds]
    return [number for number, feedforward in enumerate(each) if isinstance(feedforward, MixtureConfig)]


@jax.jit
def _captured(model: Decoder, tokens_BT: jax.Array) -> dict[str, jax.Array]:
    _, _, aux = model.hidden(tokens_BT, capture=("attention", "router", "residual"))
    found = {name: aux[name].astype(jnp.float32) for name in ("attention", "router") if name in aux}
    return {**found, "lens": jax.nn.softmax(logit_lens(model, aux["residual"]), axis=-1)}


def _forward(model: Decoder, tokens_BT: jax.Array) -> dict[str, np.ndarray]:
    return {name: np.asarray(array) for name, array in _captured(model, tokens_BT).items()}


def _chosen(option: str, asked: Sequence[int] | None, there: int, most: int) -> list[int]:
    """The numbers asked for, or at most so many, evenly spread."""
    if asked is None:
        return sorted(set(np.linspace(0, there - 1, min(there, most)).round().astype(int).tolist()))
    wrong = next((number for number in asked if not 0 <= number < there), None)
    if wrong is not None:
        raise ConfigError(f"{option}: {wrong} is not there, they count from 0 to {there - 1}")
    return list(asked)


def shown(tokenizer: Tokenizer, token: int) -> str:
    """A token in a few visible signs."""
    if token >= tokenizer.vocab_size:
        return f"<{token}>"
    if token == tokenizer.separator:
        return "<start>"
    text = tokenizer.decode([token])
    return text.replace("\n", "⏎").replace("\t", "⇥").replace(" ", "·") or f"<{token}>"


def save(figures: dict[str, Figure], folder: Path) -> list[Path]:
    """Write every figure as NAME.png; the files. Raises UserError where the folder cannot be written."""
    paths = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, figure in figures.items():
            paths.append(folder / f"{name}.png")
            figure.savefig(paths[-1], dpi=120, metadata={"Software": None})
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({error.strerror}); choose another with --out") from None
    return paths


def near(source: Source, word: str, count: int = 10) -> list[tuple[str, float]]:
    """The tokens whose embeddings point most nearly the same way as the first token of a word, with the cosines."""
    model: Any = source.model
    found, cosines = neighbours(model, [_first(source.tokenizer, word)], count)
    return _named(source.tokenizer, found[0], cosines[0])


def like(source: Source, one: str, other: str, third: str, count: int = 10) -> list[tuple[str, float]]:
    """What is to the third as the other is to the one, by their first tokens, with the cosines."""
    model: Any = source.model
    asked = [_first(source.tokenizer, word) for word in (one, other, third)]
    return _named(source.tokenizer, *analogy(model, *asked, count=count))


def _first(tokenizer: Tokenizer, word: str) -> int:
    tokens = tokenizer.encode(word)
    if not len(tokens):
        raise ConfigError("--near, --analogy: an empty text has no token")
    return int(tokens[0])


def _named(tokenizer: Tokenizer, tokens: jax.Array, cosines: jax.Array) -> list[tuple[str, float]]:
    pairs = zip(np.asarray(tokens).tolist(), np.asarray(cosines).tolist(), strict=True)
    return [(shown(tokenizer, token), cosine) for token, cosine in pairs]

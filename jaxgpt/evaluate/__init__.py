"""Measuring trained models on held-out text: `evaluate(model_scorer(model), EvaluationConfig(), dataset, ...)`."""

from jaxgpt.evaluate.config import EvaluationConfig
from jaxgpt.evaluate.measure import check, evaluate
from jaxgpt.evaluate.ngram import Ngram, NgramConfig
from jaxgpt.evaluate.protocols.base import Measurement, ProtocolConfig
from jaxgpt.evaluate.scorer import Scorer, batched, model_scorer

__all__ = [
    "EvaluationConfig",
    "Measurement",
    "Ngram",
    "NgramConfig",
    "ProtocolConfig",
    "Scorer",
    "batched",
    "check",
    "evaluate",
    "model_scorer",
]

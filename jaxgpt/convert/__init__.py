"""Checkpoints of transformers in and out."""

from jaxgpt.convert.pretrained import load_pretrained, read_config, save_pretrained
from jaxgpt.convert.settings import ConversionError

__all__ = ["ConversionError", "load_pretrained", "read_config", "save_pretrained"]

"""Text from a model: sampling, beams, speculation."""

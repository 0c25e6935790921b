"""Scores on the tasks of lm-evaluation-harness (extra `harness`): `python -m jaxgpt.harness FOLDER --tasks NAME`."""

NEEDS = "lm_eval"  # of the extra harness

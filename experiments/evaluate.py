"""`python experiments/evaluate.py --run RUN_DIR [--set extend.type=yarn extend.factor=4]`: perplexity by context."""

from __future__ import annotations

import sys

from jaxgpt.experiment.evaluate_run import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

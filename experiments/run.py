"""`python experiments/run.py --exp NAME`: run an experiment and report what it found; --help says the rest."""

from __future__ import annotations

import sys
from pathlib import Path

from jaxgpt.experiment.cli import main

if __name__ == "__main__":
    here = Path(__file__).resolve().parent
    sys.exit(main(sys.argv[1:], experiments=here, configs=here.parent / "configs"))

"""One of several processes that train together: `python in_processes.py RUN_DIR OVERRIDES...`.

Prints as JSON which rows of the training data it cut from the file.
"""

import json
import sys

from jaxgpt.data.packing import Windows
from jaxgpt.train.__main__ import main

asked: dict[int, list[int]] = {}
of_rows = Windows.__call__


def recorded(rows, numbers_B):
    asked.setdefault(len(rows), []).extend(numbers_B.tolist())
    return of_rows(rows, numbers_B)


if __name__ == "__main__":
    Windows.__call__ = recorded
    place, *overrides = sys.argv[1:]
    code = main(["--processes", "--patience", "30", "--run-dir", place, "--set", *overrides])
    print(json.dumps(asked[max(asked)]))  # the training split is the larger one
    sys.exit(code)

"""What a test needs of the machine, beyond Python."""

import os
from typing import NoReturn

import pytest


def is_missing(what: str) -> NoReturn:
    """Skip the test, for something it needs is not here; CI must have everything, so there it fails."""
    if os.environ.get("CI") == "true":
        pytest.fail(what)
    pytest.skip(what)

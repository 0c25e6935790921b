"""A real Slurm for the tests of this folder. Where it cannot be started they fail: who asks for them means them."""

from __future__ import annotations

import importlib.util
import os
import sys
import tempfile
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent


@pytest.fixture(scope="session")
def lab():
    """The Slurm in a folder of its own, as this process and those it starts see it. At ports of its own, for every
    process of pytest may have one."""
    spec = importlib.util.spec_from_file_location("lab", HERE / "lab.py")
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules["lab"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    number = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    with tempfile.TemporaryDirectory(prefix="jaxgpt-lab-") as folder, pytest.MonkeyPatch.context() as patch:
        # Not below pytest's own folder, which nobody else may enter: munged refuses such a place.
        lab = module.Lab(Path(folder), port=module.PORT + 10 * number)
        patch.setenv("SLURM_CONF", str(lab.conf))
        patch.setenv("PYTHONPATH", str(HERE.parent.parent))
        try:
            lab.start(accounting=os.environ.get("JAXGPT_LAB_ACCOUNTING") == "1")
            yield lab
        finally:
            lab.stop()

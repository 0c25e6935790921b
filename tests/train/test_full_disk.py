"""A disk that is really full (a small one of memory): one message, nothing lost, the end of an undisturbed run.

Mounting it needs Linux and the right to (`unshare`), as root or with namespaces of users; skipped without, but
not in CI.
"""

import os
import subprocess
import sys

import numpy as np
import pytest

from jaxgpt.train.checkpoint import Checkpoints
from tests.needs import is_missing

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

# Two runs on one disk: one that ends for want of space, and one that has it.
BEGIN = """
mkdir -p "$PLACE" && mount -t tmpfs -o size=$SIZE disk "$PLACE" || exit 77
train() { "$@" > "$OUT/output-$run.txt" 2>&1; echo $? > "$OUT/code-$run.txt"; }
run=1
"""
END = """
cp "$PLACE/run/status.json" "$OUT/status-1.json"
rm -f "$PLACE/filler"; mount -o remount,size=300m "$PLACE"
run=2; train "$@"
cp -r "$PLACE/run" "$OUT/run"
"""
WAYS = {
    "when the first checkpoint is saved": ("100k", 'train "$@"'),
    "when the second checkpoint is saved": ("2200k", 'train "$@"'),
    "when a line is written": (
        "20m",
        'train "$@" & while ! [ -d "$PLACE/run/checkpoints/4" ]; do sleep 0.1; done\n'
        'head -c 30M /dev/zero > "$PLACE/filler"; wait',
    ),
}


@pytest.fixture(scope="module")
def settings(overrides):
    return overrides("model.width=64", "train.steps=200", "train.checkpoint_every=4", "train.tensorboard=true")


@pytest.fixture(scope="module")
def undisturbed(settings, tmp_path_factory):
    directory = tmp_path_factory.mktemp("undisturbed") / "run"
    command = [sys.executable, "-m", "jaxgpt.train", "--run-dir", directory, "--set", *settings]
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, "JAX_PLATFORMS": "cpu"})
    return arrays(directory)


def arrays(directory):
    checkpoints = Checkpoints(directory / "checkpoints")
    found = checkpoints.arrays()
    checkpoints.close()
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="mounts a disk of memory")
@pytest.mark.parametrize("way", WAYS)
def test_a_full_disk(settings, undisturbed, tmp_path, way):
    size, first = WAYS[way]
    place = tmp_path / "disk"
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "PLACE": place, "OUT": tmp_path, "SIZE": size}
    command = [sys.executable, "-m", "jaxgpt.train", "--run-dir", place / "run", "--set", *settings]
    namespace = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--mount", "--map-root-user"]
    shell = [*namespace, "bash", "-c", f"{BEGIN}{first}\n{END}", "bash", *command]
    done = subprocess.run(shell, env=environment, capture_output=True, text=True, check=False)
    if done.returncode == 77 or "unshare" in done.stderr:
        is_missing(f"no disk can be mounted here ({done.stderr.strip()})")
    assert done.returncode == 0, done.stderr
    output = (tmp_path / "output-1.txt").read_text()
    assert (tmp_path / "code-1.txt").read_text() == "1\n", output
    assert "Traceback" not in output, output
    assert "(No space left on device)" in output.splitlines()[-1]
    assert output.splitlines()[-1].startswith(f"error: {place}/run/")
    assert (tmp_path / "code-2.txt").read_text() == "0\n", (tmp_path / "output-2.txt").read_text()
    again = arrays(tmp_path / "run")
    for name, array in undisturbed.items():
        np.testing.assert_array_equal(again[name], array, err_msg=name)

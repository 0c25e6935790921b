"""Launchers as processes of their own, to be killed: for the tests beside this file."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from jaxgpt.lease import is_locked

SCRIPT = """
import sys
from pathlib import Path
from jaxgpt.experiment.cli import main
root, runs, *arguments = sys.argv[1:]
arguments += ["--exp", "toy", "--scale", "small", "--runs-dir", runs]
sys.exit(main(arguments, Path(root) / "experiments", Path(root) / "configs"))
"""


def start(root, runs, *arguments, output="output.txt"):
    """A launcher on its way. It writes to a file, so that nobody has to read along."""
    with (Path(root) / output).open("ab") as file:
        command = [sys.executable, "-c", SCRIPT, str(root), str(runs), *arguments]
        return subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT)


def call(root, runs, *arguments, timeout=240):
    """Run a command to its end: exit code, and what it printed, errors included."""
    command = [sys.executable, "-c", SCRIPT, str(root), str(runs), *arguments]
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=timeout, check=False
    )
    return done.returncode, done.stdout


def wait_for(condition, launcher, seconds=120):
    until = time.monotonic() + seconds
    while not condition():
        assert launcher.poll() is None, "ended before it could be killed"
        assert time.monotonic() < until, "did not happen in time"
        time.sleep(0.02)


def workers(runs):
    """Process ids of the workers of this runs folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue
        if "jaxgpt.experiment.worker" in words and any(word.startswith(str(runs)) for word in words):
            found.append(int(path.parent.name))
    return found


def parent_of(pid):
    with contextlib.suppress(OSError):
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return None  # it has ended


def kill(*pids):
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def settle(launcher, runs):
    """A killed launcher leaves no worker behind: within seconds the last one is gone and has let go of its folder."""
    launcher.wait()
    until = time.monotonic() + 30
    while workers(runs) or any(is_locked(path) for path in Path(runs).glob("toy/*") if path.is_dir()):
        assert time.monotonic() < until, "an orphan lives on"
        time.sleep(0.02)

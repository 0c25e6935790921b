"""A sweep to which everything happens: `python chaos.py ROOT RUNS SEED ARGUMENTS...`, in a mount namespace of its own.

RUNS becomes a small disk of memory. Until every kind of misfortune has come a few times, workers and launchers are
killed and the disk is filled up; then the sweep is left alone and asked to finish. Ends with a line of JSON.
"""

import json
import random
import subprocess
import sys
import time
from pathlib import Path

from tests.experiment.launching import call, kill, settle, start, workers

EACH = 3
"""How often every misfortune comes at least."""


def mishaps(root, runs, arguments, seed):
    """Start the sweep again and again, and disturb it; what was done, by name."""
    chance, done = random.Random(seed), {"worker": 0, "launcher": 0, "disk": 0}
    launcher = None
    while min(done.values()) < EACH:
        if launcher is None or launcher.poll() is not None:
            if launcher is not None and finished(runs):
                break
            launcher = start(root, runs, "run", *arguments)
            while not workers(runs) and launcher.poll() is None:  # it plans
                time.sleep(0.1)
        time.sleep(chance.uniform(0.5, 3))
        what = chance.choice([name for name in done if done[name] < EACH])
        if what == "worker" and (pids := workers(runs)):
            kill(chance.choice(pids))
            done["worker"] += 1
        elif what == "launcher" and launcher.poll() is None:
            kill(launcher.pid)
            settle(launcher, runs)
            done["launcher"] += 1
        elif what == "disk":
            filler = Path(runs) / "filler"
            subprocess.run(f"head -c 1G /dev/zero > {filler}", shell=True, check=False, stderr=subprocess.DEVNULL)
            time.sleep(chance.uniform(1, 2))
            filler.unlink()
            done["disk"] += 1
    launcher.terminate()
    launcher.wait()
    return done


def states(runs):
    """Run -> finished, or the reason of its quarantine, or what else."""
    found = {}
    for request in Path(runs).glob("toy/*/request.json"):
        folder = request.parent
        failed, status = folder / "failed.json", folder / "status.json"
        if failed.exists():
            found[folder.name] = "failed: " + json.loads(failed.read_text())["message"]
        else:
            found[folder.name] = json.loads(status.read_text())["state"] if status.exists() else "pending"
    return found


def finished(runs):
    found = states(runs).values()
    return bool(found) and all(state == "finished" for state in found)


def main(root, runs, seed, *arguments):
    Path(runs).mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "disk", runs], check=True)
    done = mishaps(root, runs, arguments, int(seed))
    codes = [call(root, runs, "run", *arguments, timeout=600)[0]]
    after = states(runs)
    while codes[-1] != 0 and len(codes) < 4:
        codes.append(call(root, runs, "retry", *arguments, timeout=600)[0])
    code, output = call(root, runs, *arguments, timeout=600)
    results = Path(runs, "toy", "report", "results.csv").read_text()
    attempts = {path.parent.name: path.read_text() for path in Path(runs).glob("toy/*/attempts.jsonl")}
    found = {"done": done, "codes": [*codes, code], "after": after, "results": results, "attempts": attempts}
    print(json.dumps({**found, "output": output[-2000:]}))


if __name__ == "__main__":
    main(*sys.argv[1:])

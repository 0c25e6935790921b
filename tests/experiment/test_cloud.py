"""The commands that configs/cloud/ gives to others are commands of ours."""

import shlex
import string
from pathlib import Path

import yaml

from jaxgpt.experiment.cli import _parser
from jaxgpt.experiment.plan import make_plan
from jaxgpt.experiment.spec import load_experiment, load_scale
from jaxgpt.experiment.where import parse_where, select

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = ROOT / "configs"


def selected(command, tmp_path, **variables):
    """Names of the runs that a command line executes."""
    words = shlex.split(string.Template(command).substitute(variables))
    options = _parser(CONFIGS).parse_args(words[words.index("experiments/run.py") + 1 :])
    assert (options.verb, str(options.runs_dir)) == ("run", "/runs")
    experiment = load_experiment(options.exp, ROOT / "experiments")
    plan = make_plan(experiment, load_scale(options.scale, CONFIGS), CONFIGS, tmp_path)
    return {(run.variant, run.seed) for run in select(plan, parse_where(options.where)).runs}


def test_skypilot(tmp_path):
    task = yaml.safe_load((CONFIGS / "cloud" / "skypilot.yaml").read_text())
    command = task["run"].splitlines()[-1]
    own = selected(command, tmp_path, **task["envs"])
    assert {seed for _, seed in own} == {0}
    assert {"rope", "alibi", "5-gram"} <= {variant for variant, _ in own}
    one = selected(command, tmp_path, **{**task["envs"], "WHERE": "variant=alibi,seed=0"})
    assert one == {("alibi", 0), ("5-gram", 0)}


def test_kubernetes(tmp_path):
    job = yaml.safe_load((CONFIGS / "cloud" / "kubernetes.yaml").read_text())["spec"]
    (container,) = job["template"]["spec"]["containers"]
    (command,) = container["args"]
    for index in range(job["completions"]):
        found = selected(command, tmp_path, JOB_COMPLETION_INDEX=index)
        assert {seed for variant, seed in found if variant != "5-gram"} == {index}

"""Executes one run in a process of its own: `python -m jaxgpt.experiment.worker RUN_DIR [--processes]`.

With `--processes` several of these train the run together (as `jaxgpt.train --processes` does); after that the first
goes on alone, for evaluation needs one.

The folder's `request.json` says what to do: how to train, and what to evaluate. Training resumes where an earlier
process left off; an evaluation that is already there is not done again. A lock on the folder keeps a second writer out.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from jaxgpt.config import decode
from jaxgpt.errors import Interrupted, PeerLost, TrainingError, UserError, first_line
from jaxgpt.experiment.store import EVALUATION, Attempt, RunFolder, now
from jaxgpt.files import write_json
from jaxgpt.launch.machine import thread_environment
from jaxgpt.launch.task import NO_SPACE
from jaxgpt.lease import locked

if TYPE_CHECKING:
    from jaxgpt.data.dataset import Dataset
    from jaxgpt.evaluate.config import EvaluationConfig
    from jaxgpt.evaluate.scorer import Scorer

PATIENCE = 10.0
"""Seconds to wait for a predecessor that is being killed to let go of the folder."""

FRUITLESS = 5
"""Starts of a job without a step or an evaluation more after which it is put aside: a cluster would go on for ever."""


def execute(path: Path, patience: float = PATIENCE) -> None:
    """Do what the folder asks for and lacks. Raises UserError, and what a bug raises; status.json then says so, too."""
    folder = RunFolder(path)
    if not folder.request():
        raise UserError(f"{path}: has no request.json; start runs with experiments/run.py")
    with locked(path, wait=patience):
        # Asked only now: a predecessor that was waited for may have left nothing to do, or nothing to try again.
        if folder.has_all_it_was_asked():
            return
        if (held := folder.quarantined()) is not None:
            raise UserError(f"{path}: has failed ({held.message}); `experiments/run.py retry` lets it start again")
        with _attempt(folder):
            request = folder.request()
            (_baseline if request["kind"] == "baseline" else _model)(folder, request)
            folder.update_status(state="finished", message=None)


@contextlib.contextmanager
def _attempt(folder: RunFolder) -> Iterator[None]:
    """Leave in the folder who worked on it, and how that ended: a run that failed by itself goes into quarantine."""
    job = os.environ.get("SLURM_JOB_ID", "")
    step, evaluations = folder.reached()
    folder.begin_attempt(Attempt(socket.gethostname(), os.getpid(), now(), step, job, evaluations=evaluations))
    state = ""
    try:
        yield
        state = folder.status().get("state", "")
    except (Interrupted, KeyboardInterrupt) as error:
        state = "interrupted"
        if (times := folder.fruitless_starts()) >= FRUITLESS:
            message = f"came no further in {times} starts: {first_line(error)}"
            if not isinstance(error, PeerLost):
                message += "; give it more time (executor.minutes)"
            with contextlib.suppress(UserError):
                folder.quarantine(message)
            raise UserError(message) from None
        raise
    except Exception as error:
        state = "failed"
        message = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {first_line(error)}"
        told = {"diverged": True} if isinstance(error, TrainingError) else {}
        with contextlib.suppress(UserError):  # on a full disk: the launcher tries, too
            if not folder.is_trained():  # else what was measured before remains a result
                folder.update_status(state="failed", message=message, **told)
            folder.quarantine(message)
        raise
    finally:
        folder.end_attempt(state)


def train_together(path: Path) -> bool:
    """Train a run that is not trained yet with all processes that were started for it. Whether this one is the first,
    which evaluates. Raises as `execute` does."""
    folder = RunFolder(path)
    request = folder.request()
    trains = request.get("kind") == "model"
    threads = request["config"]["threads"] if trains else 1
    os.environ.update(thread_environment(threads))  # before JAX starts its thread pool

    import jax

    from jaxgpt.parallel.processes import is_first, join
    from jaxgpt.train.environment import prepare_jax
    from jaxgpt.train.loop import train
    from jaxgpt.train.run import RunConfig
    from jaxgpt.train.start import has_last_step

    config = decode(RunConfig, request["config"]) if trains else None
    prepare_jax(threads, config is not None and config.train.deterministic)
    join()
    first = is_first()
    if config is not None and folder.is_trained() and has_last_step(path, config):
        config = None
    if config is not None and first:
        with locked(path, wait=PATIENCE), _attempt(folder):
            train(config, path)
    elif config is not None:
        train(config, path)
    jax.distributed.shutdown()
    return first


def _model(folder: RunFolder, request: dict[str, Any]) -> None:
    """Train, or resume, or skip what is done; then evaluate each wanted arm on the weights."""
    os.environ.update(thread_environment(request["config"]["threads"]))  # before JAX starts its thread pool

    from jaxgpt.evaluate.scorer import model_scorer
    from jaxgpt.models.base import ModelConfig
    from jaxgpt.train.environment import prepare_jax
    from jaxgpt.train.loop import train
    from jaxgpt.train.run import RunConfig
    from jaxgpt.train.start import has_last_step, load_model

    config = decode(RunConfig, request["config"])
    if folder.is_trained() and has_last_step(folder.path, config):
        prepare_jax(config.threads, config.train.deterministic)
    else:
        train(config, folder.path)
    dataset = config.data.prepare()
    for wanted in request["evaluations"]:

        def scorer(wanted: dict[str, Any] = wanted) -> Scorer:
            model, _ = load_model(folder.path, decode(ModelConfig, wanted["model"], "model"))
            return model_scorer(model)

        _evaluate(folder, wanted, scorer, dataset)


def _baseline(folder: RunFolder, request: dict[str, Any]) -> None:
    """Count n-grams and evaluate them."""
    from jaxgpt.data.dataset import DataConfig
    from jaxgpt.data.sources.text import TextDataset
    from jaxgpt.evaluate.ngram import NgramConfig

    raw = request["config"]
    config = decode(DataConfig, raw["data"], "data")
    dataset = config.prepare()
    assert isinstance(dataset, TextDataset)
    for wanted in request["evaluations"]:

        def scorer() -> Scorer:
            return decode(NgramConfig, raw["ngram"], "ngram").fit(dataset.train.tokens, dataset.tokenizer.vocab_size)

        _evaluate(folder, wanted, scorer, dataset)


def _evaluate(folder: RunFolder, wanted: dict[str, Any], scorer: Callable[[], Scorer], dataset: Dataset) -> None:
    """Measure one arm and add it to evaluation.json, unless it is there."""
    from jaxgpt.evaluate.config import EvaluationConfig
    from jaxgpt.evaluate.measure import evaluate
    from jaxgpt.train.environment import code_digest

    if wanted["hash"] in folder.evaluations():
        return
    print(f"evaluating {wanted['variant']}", flush=True)
    started = time.monotonic()
    config: EvaluationConfig = decode(EvaluationConfig, wanted["evaluate"], "evaluate")
    measurements = evaluate(scorer(), config, dataset, wanted["length"])
    entry = {
        "hash": wanted["hash"],
        "variant": wanted["variant"],
        "config": wanted["evaluate"],
        "code": code_digest(),
        "measurements": [
            {
                "metric": one.metric,
                "context": int(one.context),
                "value": float(one.value),
                "unit": one.unit,
                "documents": one.documents,
            }
            for one in measurements
        ],
        "seconds": time.monotonic() - started,
    }
    write_json(folder.path / EVALUATION, {**folder.evaluations(), wanted["hash"]: entry})


def main(arguments: list[str]) -> int:
    """Exit code of `execute`; a message for what the user can mend, the traceback of anything else."""
    path, together = Path(arguments[0]), "--processes" in arguments[1:]
    _stop_at_sigterm(path)
    try:
        if not together:
            execute(path)
        elif train_together(path):
            # Another process, for JAX in this one would still wait for those that have ended.
            os.execv(sys.executable, [sys.executable, "-m", "jaxgpt.experiment.worker", str(path)])
        return 0
    except UserError as error:
        code = _code(error, error.exit_code)
        with contextlib.suppress(OSError):  # the log may lie on a full disk
            print(f"error: {error}", file=sys.stderr)
    except KeyboardInterrupt:
        code = Interrupted.exit_code
    except Exception as error:
        code = _code(error, 1)
        with contextlib.suppress(OSError):
            traceback.print_exc()
    if together:
        from jaxgpt.parallel.processes import leave

        leave(code)
    return code


def _stop_at_sigterm(path: Path) -> None:
    """Have SIGTERM end whatever is done beside training, which saves first: finished evaluations are kept."""

    def stop(number: int, frame: Any) -> NoReturn:
        raise Interrupted(f"{path}: stopped; run again to go on")

    with contextlib.suppress(ValueError):  # not the main thread
        signal.signal(signal.SIGTERM, stop)


def _code(error: Exception, code: int) -> int:
    """The exit code for an error: one of its own for a full disk, about which nothing else may be left to read."""
    return NO_SPACE if os.strerror(NO_SPACE) in str(error) else code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

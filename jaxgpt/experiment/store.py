"""Run folders: what lies in them, who may write there, and when a run is finished.

    request.json      what the launcher asks for: the configuration, and the evaluations wanted
    status.json       state, step, message
    metrics.jsonl     the training curve
    evaluation.json   measurements by evaluation hash
    attempts.jsonl    a line when a process begins with it, and one when it ends
    failed.json       why the run is in quarantine, if it is: it is not started again before `retry`
    cancel            there while somebody wants it to stop
    log.txt           what the worker printed
    config.yaml  environment.json  tokenizer/  checkpoints/  layers.jsonl  profile/  tensorboard/  wandb/
                      (see jaxgpt.train)

Every JSON file is replaced whole, so a reader sees the old or the new content whenever a writer dies.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import itertools
import json
import statistics
from collections.abc import Collection
from pathlib import Path
from typing import Any, Literal

from jaxgpt.errors import UserError
from jaxgpt.files import write_json
from jaxgpt.launch.task import tail
from jaxgpt.lease import holder, is_locked

State = Literal["pending", "running", "interrupted", "failed", "trained", "finished"]

REQUEST, STATUS, METRICS = "request.json", "status.json", "metrics.jsonl"
EVALUATION, LOG, ATTEMPTS = "evaluation.json", "log.txt", "attempts.jsonl"
FAILED, CANCEL = "failed.json", "cancel"


def read_json(path: Path) -> dict[str, Any]:
    """The mapping in a JSON file, empty if there is none. Raises UserError where it is not one."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (ValueError, OSError) as error:
        raise UserError(f"{path}: cannot be read ({error}); remove it to do that part again") from None
    if not isinstance(value, dict):
        raise UserError(f"{path}: must be a JSON object; remove it to do that part again")
    return value


# --------------------------------------------------------------------------------------------------------- run folders


@dataclasses.dataclass(frozen=True)
class Progress:
    """How far a run is, for people who watch."""

    state: State
    step: int = 0
    steps: int = 0
    tokens: int = 0
    loss: float | None = None
    tokens_per_second: float | None = None
    message: str | None = None


@dataclasses.dataclass(frozen=True)
class Quarantine:
    """Why a run is not started again by itself, and what it printed last."""

    message: str
    log: str = ""
    attempts: int = 1
    time: str = ""  # when, in UTC


@dataclasses.dataclass(frozen=True)
class Attempt:
    """One process that worked on a run. `ended` is empty while it works, and if it was killed."""

    host: str
    pid: int
    started: str  # UTC
    step: int  # it went on from
    job: str = ""  # the cluster's name of it
    ended: str = ""
    state: str = ""  # in which it left the run
    evaluations: int = 0  # that were there when it began


class RunFolder:
    """Reads what one run left in its folder. Nothing here needs JAX."""

    def __init__(self, path: Path):
        self.path = path
        self.log = path / LOG

    def status(self) -> dict[str, Any]:
        """status.json, empty before the run started."""
        return read_json(self.path / STATUS)

    def request(self) -> dict[str, Any]:
        """request.json: kind, experiment, variant, seed, config, dataset, and the evaluations wanted."""
        return read_json(self.path / REQUEST)

    def evaluations(self) -> dict[str, dict[str, Any]]:
        """Evaluation hash -> what was measured: keys hash, variant, config, measurements, seconds."""
        return read_json(self.path / EVALUATION)

    def state(self) -> State:
        """The state; a run that says `running` while no process holds its folder was killed, or its node was lost:
        `interrupted`. A process that has not trained yet is `running`, too."""
        state = self.status().get("state", "pending")
        if (self.path / FAILED).exists():
            return "failed"
        if state in ("pending", "interrupted", "running"):
            return "running" if is_locked(self.path) else "pending" if state == "pending" else "interrupted"
        return state

    def node(self) -> str:
        """The machine where it is executed now, empty if nowhere."""
        found = holder(self.path)
        return found.host if found else ""

    def environment(self) -> dict[str, Any]:
        """environment.json: versions, platform and devices of the last process that trained."""
        return read_json(self.path / "environment.json")

    def is_trained(self) -> bool:
        """Whether training came to its end."""
        return self.status().get("state") in ("trained", "finished")

    def is_finished(self, wanted: Collection[str], may_diverge: bool = False, study: str = "") -> bool:
        """Trained to the end, with every evaluation of these hashes done.

        Args:
          may_diverge: whether a loss that stopped being a number is a result, too.
          study: the search of which it is a trial, which may have ended it before its time.
        """
        if (may_diverge and self.diverged) or (study and self.pruned_by == study):
            return True
        return self.is_trained() and set(wanted) <= set(self.evaluations())

    def has_all_it_was_asked(self) -> bool:
        """Whether nothing of request.json is left to do."""
        request = self.request()
        wanted = [one["hash"] for one in request.get("evaluations", ())]
        return self.is_finished(wanted, request.get("may_diverge", False), request.get("study", ""))

    @property
    def diverged(self) -> bool:
        """Whether the loss stopped being a number."""
        return bool(self.status().get("diverged"))

    def curve(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl by step. After an interruption steps may have been repeated: the last line of each
        kind counts. A line cut short by a kill is left out."""
        kept: dict[tuple[int, bool], dict[str, Any]] = {}
        try:
            text = (self.path / METRICS).read_text(encoding="utf-8", errors="replace")
        except OSError:
            return []
        for line in text.splitlines():
            entry = _parse_line(line)
            if entry is not None:
                kept[int(entry["step"]), "validation_loss" in entry] = entry
        return [kept[key] for key in sorted(kept)]

    def pace(self) -> tuple[int, int, float] | None:
        """Steps and tokens trained at the last line of the curve with a speed, and the median of tokens per second."""
        lines = [line for line in self.curve() if line.get("tokens_per_second") and line.get("tokens")]
        if not lines:
            return None
        return lines[-1]["step"], lines[-1]["tokens"], statistics.median(line["tokens_per_second"] for line in lines)

    def progress(self, size: int = 4096) -> Progress:
        """Where the run is now, from status.json and the end of metrics.jsonl."""
        try:
            status = self.status()
        except UserError as error:
            return Progress("failed", message=str(error))
        entries = []
        with contextlib.suppress(OSError), (self.path / METRICS).open("rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - size))
            entries = [_parse_line(line) for line in file.read().decode("utf-8", "replace").splitlines()]
        last = next((entry for entry in reversed(entries) if entry and "loss" in entry), {})
        return Progress(
            state=status.get("state", "pending"),
            step=max(int(status.get("step", 0)), int(last.get("step", 0))),
            steps=int(status.get("steps", 0)),
            tokens=int(last.get("tokens", 0)),
            loss=last.get("loss"),
            tokens_per_second=last.get("tokens_per_second"),
            message=status.get("message"),
        )

    def update_status(self, **changes: Any) -> None:
        """Change some keys of status.json."""
        write_json(self.path / STATUS, {**self.status(), **changes})

    # --------------------------------------------------------------------------------------------------------- attempts

    def attempts(self) -> list[Attempt]:
        """The processes that worked on it, in order."""
        found: list[Attempt] = []
        try:
            lines = (self.path / ATTEMPTS).read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            return []
        for line in lines:
            with contextlib.suppress(ValueError, TypeError, IndexError):  # a line cut short by a kill
                entry = json.loads(line)
                if "started" in entry:
                    found.append(Attempt(**entry))
                else:
                    found[-1] = dataclasses.replace(found[-1], **entry)
        return found

    def reached(self) -> tuple[int, int]:
        """Steps trained and evaluations done. Raises UserError where a file cannot be read."""
        return int(self.progress().step), len(self.evaluations())

    def fruitless_starts(self) -> int:
        """How often in a row the job of a cluster that works on it was started and came no further; 0 where no cluster
        does."""
        attempts, now = self.attempts(), self.reached()
        if not (attempts and attempts[-1].job):
            return 0
        job = attempts[-1].job
        same = itertools.takewhile(lambda one: (one.job, (one.step, one.evaluations)) == (job, now), reversed(attempts))
        return sum(1 for _ in same)

    def begin_attempt(self, attempt: Attempt) -> None:
        self._append({name: value for name, value in dataclasses.asdict(attempt).items() if value != ""})

    def end_attempt(self, state: str) -> None:
        self._append({"ended": now(), "state": state})

    def _append(self, entry: dict[str, Any]) -> None:
        """Best effort: a full disk shall not end a run that could still finish."""
        with contextlib.suppress(OSError), (self.path / ATTEMPTS).open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")

    # ------------------------------------------------------------------------------------------------------- quarantine

    def quarantined(self) -> Quarantine | None:
        """Why the run is not started again by itself; None if it may be."""
        if not (self.path / FAILED).exists():
            return None
        try:
            return Quarantine(**read_json(self.path / FAILED))
        except (UserError, TypeError) as error:
            return Quarantine(f"{FAILED} cannot be read ({error})")

    def quarantine(self, message: str) -> None:
        """Keep the run from being started again, with the end of what it printed. Raises UserError where that cannot be
        written down."""
        found = Quarantine(message, tail(self.log), max(1, len(self.attempts())), now())
        write_json(self.path / FAILED, dataclasses.asdict(found))

    def release(self) -> None:
        """Let it be started again."""
        (self.path / FAILED).unlink(missing_ok=True)

    # ----------------------------------------------------------------------------------------------------- cancellation

    def cancel(self) -> None:
        """Ask whoever executes the run to stop it. It goes on when it is started the next time."""
        write_json(self.path / CANCEL, {"time": now()})

    def go_on(self) -> None:
        """It is no longer cancelled."""
        (self.path / CANCEL).unlink(missing_ok=True)

    @property
    def cancelled(self) -> bool:
        return (self.path / CANCEL).exists()

    # ---------------------------------------------------------------------------------------------------------- pruning

    def prune(self, study: str) -> None:
        """Its loss was hopeless beside others of that study, which stopped it: for this study it is done. Whoever goes
        on with it replaces the status, and with it this mark."""
        now = self.progress()
        self.update_status(pruned=study, message=f"pruned at step {now.step} of {now.steps}")

    @property
    def pruned_by(self) -> str:
        """The study that stopped it, empty if none did."""
        return str(self.status().get("pruned", ""))


def now() -> str:
    """The time, in UTC, to the second."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def _parse_line(line: str) -> dict[str, Any] | None:
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    return entry if isinstance(entry, dict) and isinstance(entry.get("step"), int) else None

"""Run folders: what lies in them, who may write there, and when a run is finished.

    request.json      what the launcher asks for: the configuration, and the evaluations wanted
    status.json       state, step, message
    metrics.jsonl     the training curve
    evaluation.json   measurements by evaluation hash
    log.txt           what the worker printed
    config.yaml  environment.json  tokenizer/  checkpoints/  layers.jsonl  profile/  tensorboard/  wandb/
                      (see jaxgpt.train)

Every JSON file is replaced whole, so a reader sees the old or the new content whenever a writer dies.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import statistics
from collections.abc import Collection
from pathlib import Path
from typing import Any, Literal

from jaxgpt.errors import UserError
from jaxgpt.files import write_json
from jaxgpt.lease import is_locked

State = Literal["pending", "running", "interrupted", "failed", "trained", "finished"]

REQUEST, STATUS, METRICS = "request.json", "status.json", "metrics.jsonl"
EVALUATION, LOG = "evaluation.json", "log.txt"


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
        """The state; a run that says `running` while no process holds its folder was killed: `interrupted`."""
        state = self.status().get("state", "pending")
        if state == "running" and not is_locked(self.path):
            return "interrupted"
        return state

    def environment(self) -> dict[str, Any]:
        """environment.json: versions, platform and devices of the last process that trained."""
        return read_json(self.path / "environment.json")

    def is_trained(self) -> bool:
        """Whether training came to its end."""
        return self.status().get("state") in ("trained", "finished")

    def is_finished(self, wanted: Collection[str]) -> bool:
        """Trained to the end, with every evaluation of these hashes done."""
        return self.is_trained() and set(wanted) <= set(self.evaluations())

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


def _parse_line(line: str) -> dict[str, Any] | None:
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    return entry if isinstance(entry, dict) and isinstance(entry.get("step"), int) else None

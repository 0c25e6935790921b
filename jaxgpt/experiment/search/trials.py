"""Trials as runs: every variant's study is asked for points, and told what became of their runs.

A trial's run is named by the hash of its configuration, so a point that comes again costs nothing. A search that is
killed at any moment leaves trials open; the next one finds their runs, goes on with them and tells what became of them.
A trial whose run failed by itself (and did not diverge, which is a result) stays open, and its run in quarantine: the
search goes on without it, and `retry` starts it once more.
"""

from __future__ import annotations

import contextlib
import math
from collections import deque
from collections.abc import Callable, Collection, MutableMapping, Sequence

from jaxgpt.errors import ConfigError, UserError
from jaxgpt.experiment.engine import Source, check_text, prepare
from jaxgpt.experiment.estimate import Size
from jaxgpt.experiment.plan import Run
from jaxgpt.experiment.search.points import Searched, Subject, trial_plan
from jaxgpt.experiment.search.study import Study, Trial, alone, open_studies
from jaxgpt.experiment.tuning import loss_of


class Trials(Source):
    """The runs of a search while an executor works on them: asks the studies for points as there is room, the variant
    with the fewest first, and tells them what comes of each.

    Args:
      sizes: of arms by name; gets those of every trial.
      announce: told of all runs so far when there are new ones.

    Raises:
      DataError: the text is not the one of earlier trials.
      UserError: the studies cannot be read or written.
    """

    def __init__(
        self, searched: Searched, sizes: MutableMapping[str, Size], announce: Callable[[Collection[Run]], None]
    ):
        self.search, self.sizes, self.announce = searched.search, sizes, announce
        self.plan = searched.subjects[0].plan
        self.runs: dict[str, Run] = {run.name: run for run in searched.plan.runs}
        self._hopeless: set[str] = set()
        self._running: dict[str, list[tuple[Study, int]]] = {}
        self._waiting: deque[Run] = deque()
        for subject, found in zip(searched.subjects, searched.found, strict=True):
            dataset = subject.config.data.prepare()
            for one in found.trials:
                if one.run is not None:
                    check_text(one.run, dataset.fingerprint)
        with alone(self.plan.directory):
            steps = {one.study: one.config.train.steps for one in searched.subjects}
            studies = open_studies(self.plan.directory, self.search, steps)
            self._studies = [(one, studies[one.study]) for one in searched.subjects]
            for subject, study in self._studies:
                for trial in study.trials():
                    if trial.state == "open" and (run := self._begin(subject, study, trial)) is not None:
                        self._waiting.append(run)
        left = (max(0, self.search.trials - len(study.trials())) for _, study in self._studies)
        self.total = sum(left) + len(self._waiting)

    def more(self, room: int) -> Sequence[Run]:
        found: list[Run] = []
        with alone(self.plan.directory):
            while len(found) < room and (run := self._next()) is not None:
                found.append(run)
        if found:
            self.announce(self.runs.values())
        return found

    def hopeless(self, names: Collection[str]) -> Collection[str]:
        for name in names:
            study, number = self._running[name][0]
            with contextlib.suppress(UserError):  # on a full disk, which will end the run if it lasts
                if study.report(number, _validation(self.runs[name])):
                    self._hopeless.add(name)
        return self._hopeless & set(names)

    def ended(self, run: Run) -> None:
        with contextlib.suppress(UserError):  # on a full disk: the trial stays open, and is told the next time
            if run.name in self._hopeless and not run.is_finished():
                run.folder.prune(run.study)
            if run.is_finished():
                for study, number in self._running.pop(run.name, ()):
                    self._tell(study, number, run)

    def _tell(self, study: Study, number: int, run: Run) -> None:
        study.report(number, _validation(run))
        if run.pruned:
            study.prune(number)
        else:
            study.tell(number, loss_of(run))

    def _next(self) -> Run | None:
        """A run that was begun earlier, else that of a new point."""
        if self._waiting:
            return self._waiting.popleft()
        while True:
            counts = [(len(study.trials()), number) for number, (_, study) in enumerate(self._studies)]
            asked, number = min(counts)
            if asked >= self.search.trials:
                return None
            subject, study = self._studies[number]
            if (run := self._begin(subject, study, study.ask())) is not None:
                return run

    def _begin(self, subject: Subject, study: Study, trial: Trial) -> Run | None:
        """The run of a trial, if it needs execution that it does not have already."""
        if trial.point.keys() != self.search.space.keys():  # whoever asked for it was killed meanwhile
            study.give_up(trial.number)
            return None
        try:
            run = subject.run(trial.point)
            self.sizes.update(prepare(trial_plan(self.plan, [run])))
        except ConfigError:
            study.give_up(trial.number)
            return None
        is_new = run.name not in self._running
        self.runs[run.name] = run
        self._running.setdefault(run.name, []).append((study, trial.number))
        if run.is_finished():
            self.ended(run)
            return None
        return run if is_new and run.folder.quarantined() is None else None


def _validation(run: Run) -> dict[int, float]:
    """Validation losses by step, in nats per token."""
    lines = [line for line in run.folder.curve() if "validation_loss" in line]
    return {line["step"]: line["validation_loss"] for line in lines if math.isfinite(line["validation_loss"])}

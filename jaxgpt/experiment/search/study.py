"""Optuna's side of a search: one study per variant, asked for points and told losses, in a journal on disk.

The journal (`search/journal.log` in the experiment's folder) is appended to by whoever searches, on one machine or on
several that share the folder, and needs no server. Optuna calls no training: runs are executed as all others are.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from jaxgpt.errors import ConfigError, UserError, first_line, from_extra
from jaxgpt.experiment.search.space import Choice, Float, Range, Search, Value
from jaxgpt.lease import locked

if TYPE_CHECKING:
    import optuna  # pyright: ignore[reportMissingImports] of an extra

FOLDER, JOURNAL = "search", "journal.log"

PATIENCE = 60.0
"""Seconds to wait for another launcher that asks, too."""

State = Literal["open", "told", "pruned", "impossible"]


def need_optuna() -> Any:
    """The library, which says what goes wrong and not what goes well. Raises ConfigError where it is not installed."""
    library = from_extra("optuna", "search", "searches need", ConfigError)
    library.logging.set_verbosity(library.logging.WARNING)
    return library


@dataclasses.dataclass(frozen=True)
class Trial:
    """One point of a study: `open` from when it was asked for until it is told. `loss` is infinite where training
    diverged; of one that was pruned it is the last reported. `reported` holds validation losses by step."""

    number: int
    point: Mapping[str, Value]
    state: State
    loss: float | None
    reported: Mapping[int, float]


class Study:
    """A variant's study. A loss that is not finite is told as infinite and not as a failure: the sampler then keeps
    away from there, while of failed trials it learns nothing."""

    def __init__(self, study: optuna.Study, storage: optuna.storages.BaseStorage, search: Search, journal: Path):
        self._study, self._storage, self._search, self._journal = study, storage, search, journal
        self._distributions = {path: _distribution(values) for path, values in search.space.items()}

    def trials(self) -> list[Trial]:
        """All trials, in the order in which they were asked for."""
        return [_trial(one) for one in self._study.get_trials(deepcopy=False)]

    def ask(self) -> Trial:
        """A new point. Its draws depend on its number, so that a search which goes on does not begin again with the
        points that it began with."""
        number = len(self._study.get_trials(deepcopy=False))
        self._study.sampler = _sampler(self._search, self._search.seed + number)
        with self._writing():
            asked = self._study.ask(self._distributions)
        return Trial(asked.number, asked.params, "open", None, {})

    def report(self, number: int, losses: Mapping[int, float]) -> bool:
        """Report a trial's validation losses by step, those that are new; whether it should end. One that was told
        meanwhile, by another launcher, should end if it was pruned."""
        trial = self.trials()[number]
        if trial.state != "open":
            return trial.state == "pruned"
        study = self._storage.get_study_id_from_name(self._study.study_name)
        identifier = self._storage.get_trial_id_from_study_id_trial_number(study, number)
        live = need_optuna().trial.Trial(self._study, identifier)
        with contextlib.suppress(RuntimeError), self._writing():  # it was told by another launcher this instant
            for step in sorted(losses.keys() - trial.reported.keys()):
                live.report(losses[step], step)
                if live.should_prune():
                    return True
        return False

    def tell(self, number: int, loss: float) -> None:
        """A trial's loss; one that has ended already stays as it is."""
        with self._writing():
            self._study.tell(number, loss if math.isfinite(loss) else math.inf, skip_if_finished=True)

    def prune(self, number: int) -> None:
        """A trial was ended early."""
        with self._writing():
            self._study.tell(number, state=need_optuna().trial.TrialState.PRUNED, skip_if_finished=True)

    def give_up(self, number: int) -> None:
        """There can be no run at a trial's point."""
        with self._writing():
            self._study.tell(number, state=need_optuna().trial.TrialState.FAIL, skip_if_finished=True)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """A journal that cannot be written is a UserError, and keeps no half of a line."""
        try:
            yield
        except OSError as error:
            _mend(self._journal)
            raise UserError(f"{self._journal}: cannot be written ({error.strerror}); mend that and go on") from None

    def importances(self) -> dict[str, float]:
        """Path -> its share of what decides whether a trial is among the better half (PED-ANOVA, Watanabe et al. 2023,
        arXiv:2304.10255); empty with fewer than ten different losses."""
        optuna = need_optuna()
        done = self._study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))
        different = {one.value: one for one in done if one.value is not None and math.isfinite(one.value)}
        if len(different) < 10:
            return {}
        with _quiet():
            finite = optuna.create_study(study_name=self._study.study_name)
            finite.add_trials(list(different.values()))
            evaluator = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=0.5)
            found = optuna.importance.get_param_importances(finite, evaluator=evaluator)
        return {path: float(found.get(path, 0.0)) for path in self._search.space}


@contextlib.contextmanager
def alone(directory: Path) -> Iterator[None]:
    """While nobody else asks for points in the experiment's folder. Raises UserError where it cannot be written."""
    with locked(directory / FOLDER, wait=PATIENCE):
        yield


def open_studies(directory: Path, search: Search, steps: Mapping[str, int], create: bool = True) -> dict[str, Study]:
    """The studies in an experiment's folder by name, made where they are missing; without `create` those that are
    there.

    Args:
      steps: how many steps a trial of each study takes, by the study's name.

    Raises:
      UserError: the journal cannot be read or written.
    """
    # Optuna's lock is a link to the path it is given, whose age it asks for: that of one that leads nowhere has none.
    optuna, path = need_optuna(), (directory / FOLDER / JOURNAL).resolve()
    if not create and not path.exists():
        return {}
    try:
        with _quiet():
            if create:
                _mend(path)
            storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(path)))
            there = {one.study_name for one in storage.get_all_studies()}
            found = {}
            for name in steps:
                pruner = _pruner(search, steps[name])
                if name in there:
                    study = optuna.load_study(study_name=name, storage=storage, pruner=pruner)
                elif create:
                    study = optuna.create_study(study_name=name, storage=storage, pruner=pruner, direction="minimize")
                else:
                    continue
                found[name] = Study(study, storage, search, path)
    except (OSError, ValueError, KeyError) as error:  # the last two: what does not belong there
        raise UserError(
            f"{path}: cannot be read ({first_line(error)}); mend it, or remove it to search anew: finished trials cost "
            "nothing again where the same points come"
        ) from None
    return found


def _mend(path: Path) -> None:
    """Cut off a last line that a full disk or a lost machine left incomplete: whatever follows it would be lost."""
    if not path.exists() or path.read_bytes()[-1:] in (b"", b"\n"):
        return
    lock = need_optuna().storages.journal.JournalFileSymlinkLock(str(path))
    lock.acquire()  # it may only be half written yet
    try:
        with path.open("rb+") as file:
            file.truncate(file.read().rfind(b"\n") + 1)
    finally:
        lock.release()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the warnings that parts of Optuna which we need may still change."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", need_optuna().exceptions.ExperimentalWarning)
        yield


def _trial(frozen: optuna.trial.FrozenTrial) -> Trial:
    states: dict[str, State] = {"COMPLETE": "told", "PRUNED": "pruned", "FAIL": "impossible"}
    state = states.get(frozen.state.name, "open")
    reported = frozen.intermediate_values
    loss = reported[max(reported)] if state == "pruned" and reported else frozen.value if state == "told" else None
    return Trial(frozen.number, frozen.params, state, loss, dict(reported))


def _distribution(values: Range) -> optuna.distributions.BaseDistribution:
    distributions = need_optuna().distributions
    if isinstance(values, Choice):
        return distributions.CategoricalDistribution(values.values)
    if isinstance(values, Float):
        return distributions.FloatDistribution(values.low, values.high, log=values.log)
    return distributions.IntDistribution(values.low, values.high, log=values.log, step=values.step)


def _sampler(search: Search, seed: int) -> Any:
    """Those that are asked for while others run keep away from these (the constant liar)."""
    samplers = need_optuna().samplers
    if search.sampler == "random":
        return samplers.RandomSampler(seed=seed)
    with _quiet():
        return samplers.TPESampler(seed=seed, constant_liar=True, multivariate=True)


def _pruner(search: Search, steps: int) -> Any:
    pruners, median = need_optuna().pruners, search.pruner
    if median is None:
        return pruners.NopPruner()
    return pruners.MedianPruner(n_startup_trials=median.startup, n_warmup_steps=int(median.warmup * steps))

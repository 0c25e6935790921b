"""From run folders to the report: rows, curves, timings, and what to print of them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from jaxgpt.errors import UserError
from jaxgpt.experiment import looks, provenance, tuning
from jaxgpt.experiment.axes import unnamed_differences
from jaxgpt.experiment.claims import FIXED_TARGET, Verdict, evaluate_claims
from jaxgpt.experiment.documents import DocumentLosses, evaluation_noise
from jaxgpt.experiment.plan import Plan, Run
from jaxgpt.experiment.results import DocumentLoss, Results, Row, Timing
from jaxgpt.experiment.search import tables as search_tables
from jaxgpt.experiment.search.points import Searched
from jaxgpt.experiment.statistics import t_interval
from jaxgpt.experiment.tuning import Choice

if TYPE_CHECKING:
    from jaxgpt.experiment.report import Curve, Report, tables

VERDICT_STYLE = {"supported": "green", "contradicted": "red", "not resolved": "yellow", "shown": "dim"}


def rows(plan: Plan) -> list[Row]:
    """Every measurement this plan asks for and some run has made. Other runs in the folder do not count."""
    return [
        Row(plan.experiment.name, variant, run.seed, one["metric"], one["context"], one["value"], one["unit"])
        for run, variant, one in _measurements(plan)
    ]


def document_losses(plan: Plan) -> list[DocumentLoss]:
    """The parts by document of every measurement of a model that has any."""
    return [
        DocumentLoss(variant, run.seed, one["metric"], one["context"], *part)
        for run, variant, one in _measurements(plan)
        if run.kind == "model"
        for part in one.get("documents", ())
    ]


def _measurements(plan: Plan) -> Iterator[tuple[Run, str, dict[str, Any]]]:
    """(run, variant, measurement) of all that this plan asks for and some run has made."""
    for run in plan.runs:
        done = run.folder.evaluations() if run.folder.is_trained() else {}
        for wanted in run.evaluations:
            for one in done.get(wanted.hash, {}).get("measurements", []):
                yield run, wanted.variant, one


def timings(plan: Plan) -> list[Timing]:
    """What a clock measured of every run: median step time and speed, seconds of each evaluation."""
    found = []
    for run in plan.runs:
        pace = run.folder.pace()
        if pace is not None:
            steps, tokens, speed = pace
            found.append(Timing(run.variant, run.seed, "step_time", 1000 * (tokens / steps) / speed, "ms"))
            found.append(Timing(run.variant, run.seed, "training_speed", speed, "tokens/s"))
        done = run.folder.evaluations()
        for wanted in run.evaluations:
            if "seconds" in done.get(wanted.hash, {}):
                seconds = done[wanted.hash]["seconds"]
                found.append(Timing(wanted.variant, run.seed, "evaluation_time", seconds, "s"))
    return found


def curves(plan: Plan) -> list[Curve]:
    """The training curve of every model run that has one."""
    from jaxgpt.experiment.report import Curve

    found = []
    for run in plan.runs:
        lines = run.folder.curve()
        training = [line for line in lines if "loss" in line]
        validation = [
            (line["step"], line["tokens"], line["validation_loss"]) for line in lines if "validation_loss" in line
        ]
        if training:
            steps, tokens, losses = ([line[key] for line in training] for key in ("step", "tokens", "loss"))
            found.append(Curve(run.variant, run.seed, steps, tokens, losses, validation))
    return found


def make_report(plan: Plan, command: str, choices: Sequence[Choice] = (), search: Searched | None = None) -> Report:
    """All that the report shows, with the learning rates or settings that were chosen. Raises UserError if nothing was
    measured."""
    from jaxgpt.experiment.report import Report

    clocked, documents = timings(plan), document_losses(plan)
    results = results_of(plan, clocked)
    seen = looks.record(plan, results)
    chosen = [*tuning.warnings(choices), *(search_tables.warnings(search) if search else ())]
    settled = search.search.space if search else ("train.learning_rate",) if choices else ()
    notes = [*provenance.missing(plan), *provenance.differences(plan)]
    return Report(
        experiment=plan.experiment.name,
        title=plan.experiment.summary,
        results=results,
        documents=documents,
        noise=evaluation_noise(plan.experiment.claims, DocumentLosses(documents), results),
        verdicts=evaluate_claims(plan.experiment.claims, results, methods=looks.methods(seen)),
        curves=curves(plan),
        timings=clocked,
        runs=_run_table(plan),
        facts=_facts(plan),
        labels={one.name: one.label for one in plan.experiment.variants if one.label},
        groups={one.name: one.group for one in plan.experiment.variants if one.group},
        panels={one.name: one.panel for one in plan.experiment.variants if one.panel},
        command=command,
        notes=[*looks.note(seen), *notes, *chosen, *unnamed_differences(plan, settled)],
        tuning=tuning.rows(choices),
        search=search_tables.best_rows(search) if search else (),
        trials=search_tables.trial_rows(search) if search else (),
        looks=seen,
    )


def results_of(plan: Plan, clocked: Sequence[Timing] = ()) -> Results:
    """The measurements of a plan, and what a clock measured. Raises UserError if there are none."""
    measured = rows(plan)
    if not any(run.kind == "model" and run.is_finished() for run in plan.runs):
        raise UserError(f"{plan.directory}: no run of this plan is finished yet; start it with the verb run")
    baselines = [run.variant for run in plan.runs if run.kind == "baseline"]
    names, lengths = [arm.name for arm in plan.arms], {arm.name: arm.length for arm in plan.arms}
    given = [arm.name for arm in plan.arms if arm.given]
    return Results(measured, plan.train_length, names, baselines, lengths, clocked, given)


def _run_table(plan: Plan) -> list[dict[str, object]]:
    """One line per variant: what it is, and what it was trained with."""
    parameters: dict[str, int] = {}
    flops: dict[str, int] = {}  # of a variant's run, for all that are evaluated in it
    for run in plan.runs:
        request = run.folder.request()
        for one in request.get("evaluations", []):
            parameters[one["variant"]] = one["parameters"]
            flops[one["variant"]] = request.get("flops_per_token", 0)
    routers = _router_statistics(plan)
    columns = dict.fromkeys(name for one in routers.values() for name in one)
    table = []
    for arm in plan.arms:
        config, trained, parent = arm.training, arm.variant.trains and not arm.given, arm.variant.parent
        origin = "trained" if parent is None else f"of {parent}"
        if parent is None and config.start is not None:
            origin = f"of {Path(config.start.folder).name}"
        line: dict[str, object] = {
            "variant": arm.name,
            "description": arm.variant.description,
            "parameters": parameters.get(arm.name, 0),
            "FLOPs per token": flops.get(arm.name, 0),
            "weights": origin + ", trained further" * (trained and config.start is not None),
            "tokens": config.tokens if trained else 0,
            "steps": config.train.steps if trained else 0,
            "learning rate": config.train.learning_rate,
        }
        for name in columns:
            line[name.replace("_", " ")] = routers.get(arm.name, {}).get(name)
        table.append(line)
    return table


def _router_statistics(plan: Plan) -> dict[str, dict[str, float]]:
    """Variant -> the last statistics of its routers, mean over seeds: of arms that have any."""
    found: dict[str, dict[str, list[float]]] = {}
    for run in plan.runs:
        last = next((line for line in reversed(run.folder.curve()) if "loss" in line), {})
        for name, value in last.items():
            if name.startswith("router_"):
                found.setdefault(run.variant, {}).setdefault(name, []).append(value)
    return {
        variant: {name: float(f"{sum(values) / len(values):.4g}") for name, values in one.items()}
        for variant, one in found.items()
    }


def _facts(plan: Plan) -> dict[str, object]:
    """What holds for the whole experiment: from the plan, and from the environment the first finished run recorded."""
    training = plan.arms[0].training
    facts: dict[str, object] = {
        "scale": plan.scale.name,
        "seeds": len(plan.seeds),
        **training.data.describe(),
        "training length L": plan.train_length,
        "threads per run": plan.threads,
    }
    if plan.experiment.match:
        facts["arms matched by"] = plan.experiment.match
    for run in plan.runs:
        environment = run.folder.environment()
        if environment:  # what it began with, where it went on with something else, is among the notes
            return facts | {name: _one_line(value) for name, value in environment.items() if name != "earlier"}
    return facts


def _one_line(value: Any) -> object:
    """`{"jax": "0.10", "flax": "0.12"}` as `jax 0.10, flax 0.12`; lists likewise."""
    if isinstance(value, dict):
        value = [f"{key} {item}" for key, item in value.items()]
    return ", ".join(map(str, value)) if isinstance(value, list) else value


# ------------------------------------------------------------------------------------------------------------ terminal


def print_report(report: Report, index: Path, console: Console) -> None:
    """Perplexity or accuracy by context with intervals, the verdicts, and where the report lies."""
    from jaxgpt.experiment.report import accuracy

    if report.results.contexts(FIXED_TARGET):
        console.print(perplexity_table(report.results))
    for metric in accuracy.whole_answers(report):
        for panel, variants in accuracy.panels(report, metric).items():
            console.print(_accuracy_table(accuracy.table(report, metric, panel, variants)))
    if report.verdicts:
        console.print(verdict_table(report.verdicts))
    for note in report.notes:
        console.print(Text(f"note: {note}", "yellow"))
    console.print(f"report: {index}", highlight=False, soft_wrap=True)


def perplexity_table(results: Results) -> Table:
    """Perplexity of the same targets against context: geometric mean over seeds, with its 95% t interval."""
    length = results.train_length
    title = f"perplexity of the same targets by context, L = {length} (95% intervals over seeds)"
    table = Table(title=title, title_justify="left")
    table.add_column("variant")
    contexts = results.contexts(FIXED_TARGET)
    for context in contexts:
        table.add_column(f"{context}" + (" = L" if context == length else ""), justify="right")
    for variant in (*results.variants, *results.baselines):
        cells = [_cell(results, variant, context) for context in contexts]
        table.add_row(Text(variant), *map(Text, cells))
    return table


def _accuracy_table(table: tables.Table) -> Table:
    shown = Table(title=table.title, title_justify="left")
    for number, name in enumerate(table.columns):
        shown.add_column(name, justify="left" if number == 0 else "right")
    for cells in table.rows:
        shown.add_row(*map(Text, cells))
    return shown


def _cell(results: Results, variant: str, context: int) -> str:
    if not results.has(variant, FIXED_TARGET, context):
        return "-"
    interval = t_interval(list(results.values(variant, FIXED_TARGET, context).values()))
    if interval.low is None or interval.high is None:
        return _number(interval.mean)
    return f"{_number(interval.mean)} [{_number(interval.low)}, {_number(interval.high)}]"


def _number(nats: float) -> str:
    return f"{math.exp(nats):.2f}" if nats < 20 else f"e^{nats:.1f}"


def verdict_table(verdicts: Iterable[Verdict]) -> Table:
    """One line per claim: verdict, estimate with interval, reason."""
    table = Table(title="claims", title_justify="left")
    for name in ("claim", "verdict", "estimate", "reason"):
        table.add_column(name, overflow="fold")
    for verdict in verdicts:
        estimate = "-" if verdict.estimate is None else f"{verdict.estimate:.3g}"
        if verdict.low is not None and verdict.high is not None:
            estimate += f" [{verdict.low:.3g}, {verdict.high:.3g}]"
        style = VERDICT_STYLE.get(verdict.verdict, "")
        name = f"{verdict.claim} (headline)" if verdict.headline else verdict.claim
        table.add_row(Text(name), Text(verdict.verdict, style), Text(estimate), Text(verdict.reason))
    return table

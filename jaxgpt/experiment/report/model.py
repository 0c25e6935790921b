"""What a report is made from."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from jaxgpt.experiment.claims import Verdict
from jaxgpt.experiment.documents import Noise
from jaxgpt.experiment.results import DocumentLoss, Results, Timing


@dataclasses.dataclass(frozen=True)
class Curve:
    """The training of one run: losses in nats per token.

    `steps`, `tokens` and `loss` have one entry per logged step; `validation` holds (step, tokens, loss).
    """

    variant: str
    seed: int
    steps: Sequence[int]
    tokens: Sequence[int]
    loss: Sequence[float]
    validation: Sequence[tuple[int, int, float]] = ()


@dataclasses.dataclass(frozen=True)
class Report:
    """All that a report shows.

    Attributes:
      experiment: name, such as `rope_vs_alibi`.
      title: what the experiment asks, one line.
      results: measurements; their order of variants is the report's, their baselines are drawn apart.
      verdicts: in the order of the experiment's claims.
      curves: of every trained run.
      documents: the parts of measurements that fall into each held-out document.
      noise: what the claims' contrasts owe to the documents that were held out.
      timings: what a clock measured, per run.
      runs: one mapping per variant for the table of runs: `variant` first, then any columns, such as parameters, steps,
        tokens, learning rate. Medians of `timings` are shown beside them.
      tuning: one mapping per tuned variant, as `runs`: losses by learning rate, the choice and its cost.
      search: one mapping per searched variant: its best settings, the loss there, how its trials ended.
      trials: one mapping per trial of a search: variant, number, settings, loss in nats per token, state, run.
      facts: name -> value of what holds for the whole experiment, such as corpus, tokenizer, scale, machine.
      labels: variant -> name for people; itself where not given.
      groups: variant -> what it shares with those that differ from it in training length alone.
      panels: variant -> where accuracy is shown, such as its task; one without a name where not given.
      command: what to type to make this report again.
      notes: sentences for people, such as runs that failed.
      looks: claim -> numbers of seeds that its verdict was ever formed with.
    """

    experiment: str
    title: str
    results: Results
    verdicts: Sequence[Verdict]
    curves: Sequence[Curve] = ()
    documents: Sequence[DocumentLoss] = ()
    noise: Sequence[Noise] = ()
    timings: Sequence[Timing] = ()
    runs: Sequence[Mapping[str, object]] = ()
    facts: Mapping[str, object] = dataclasses.field(default_factory=dict)
    labels: Mapping[str, str] = dataclasses.field(default_factory=dict)
    groups: Mapping[str, str] = dataclasses.field(default_factory=dict)
    panels: Mapping[str, str] = dataclasses.field(default_factory=dict)
    command: str = ""
    notes: Sequence[str] = ()
    looks: Mapping[str, Sequence[int]] = dataclasses.field(default_factory=dict)
    tuning: Sequence[Mapping[str, object]] = ()
    search: Sequence[Mapping[str, object]] = ()
    trials: Sequence[Mapping[str, object]] = ()

    def label(self, variant: str) -> str:
        """The name of a variant for people; where there are panels, in which alone labels differ, its own."""
        return variant if variant in self.panels else self.label_in_panel(variant)

    def label_in_panel(self, variant: str) -> str:
        """The name of a variant for people beside the others of its panel."""
        return self.labels.get(variant, variant)

// What the pages of an experiment and of a run share.

import { address } from "./live.js";
import { seen, short } from "./charts.js";

export const runColumns = [
  { name: "Variant", kind: "name" }, { name: "Seed", kind: "number" }, { name: "State" },
  { name: "Step", kind: "number" },
  { name: "Loss", kind: "number" }, { name: "Validation", kind: "number" }, { name: "Tokens/s", kind: "number" },
  { name: "Left", kind: "number" }, { name: "Evaluated", kind: "number" }, { name: "Last change" },
  { name: "Message", kind: "words" },
];

export function runRow(experiment, run) {
  const href = address("run", experiment, run.name), [done, wanted] = run.evaluated;
  return {
    key: run.name,
    cells: [
      { text: run.label, href, dot: seen(run.colour) }, figure(run.seed, String),
      { states: [[run.state, run.state]], sort: run.state },
      { text: stepOf(run), sort: run.step }, figure(run.loss), figure(run.validation_loss), figure(run.speed, grouped),
      run.left ?? "", wanted ? `${done}/${wanted}` : "", { since: run.changed, sort: run.changed },
      [run.message, ...run.problems].filter(Boolean).join("; "),
    ],
  };
}

export function stepOf({ step, steps }) {
  return steps ? `${grouped(step)}/${grouped(steps)}` : step ? grouped(step) : "";
}

export function grouped(value) {
  return Math.round(value).toLocaleString("en");
}

function figure(value, format = short) {
  return value === null ? "" : { text: format(value), sort: value };
}

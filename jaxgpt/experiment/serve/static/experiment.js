// The page of one experiment.

import {
  about, address, control, dot, element, fillSelect, fillTable, filterTable, find, setText, watch,
} from "./live.js";
import { drawContexts, drawCurves, seen, short } from "./charts.js";
import { runColumns, runRow } from "./runs.js";

const name = about.experiment, arms = new Map(), hidden = new Set();
let now = null, curves = null, drawn = "";

// -------------------------------------------------------------------------------------------------------------- legend

function showLegend() {
  const box = find("arms");
  const key = JSON.stringify([...arms.values()].map(({ name, label, colour }) => [name, label, colour]));
  if (box.listed === key) return;
  box.listed = key;
  const labels = [...arms.values()].map((arm) => {
    const check = element("input", { type: "checkbox", checked: !hidden.has(arm.name), value: arm.name });
    check.addEventListener("input", () => toggle([arm.name], check.checked));
    return element("label", {}, check, dot(seen(arm.colour)), arm.label);
  });
  const all = element("button", { type: "button", textContent: "all / none" });
  all.addEventListener("click", () => {
    const on = hidden.size > 0;
    toggle([...arms.keys()], on);
    box.querySelectorAll("input").forEach((check) => (check.checked = on));
  });
  box.replaceChildren(box.querySelector("legend"), ...labels, ...(labels.length > 2 ? [all] : []));
}

function toggle(names, on) {
  names.forEach((one) => (on ? hidden.delete(one) : hidden.add(one)));
  showCurves();
  showView();
}

// ------------------------------------------------------------------------------------------------------------ sections

function showCurves() {
  if (curves && now) drawCurves(find("curves"), curves, arms, { y: y.value, lines: lines.value, hidden });
}

function showRuns() {
  fillTable(find("runs"), runColumns, now.runs.map((run) => runRow(name, run)));
  filter();
}

function filter() {
  const count = filterTable(find("runs"), find("filter").value);
  setText(find("count"), `${count} of ${now?.runs.length ?? 0} runs`);
}

function showView() {
  if (!now?.comparison.length) return;
  const view = now.comparison.find((one) => one.name === find("view").value) ?? now.comparison[0];
  drawContexts(find("contexts"), view, arms, hidden);
  find("comparison").hidden = !view.table;
  if (!view.table) return;
  const columns = view.contexts.map((context, i) => ({
    name: `${context}${view.names[i] && ` (${view.names[i]})`}`, kind: "number",
  }));
  const rows = Object.entries(view.arms).map(([key, curve]) => {
    const arm = arms.get(key);
    const cells = view.contexts.map((context) => intervalAt(curve, curve.x.indexOf(context)));
    return { key, cells: [{ text: arm.label, dot: seen(arm.colour) }, ...cells] };
  });
  fillTable(find("comparison"), [{ name: "Variant", kind: "name" }, ...columns], rows);
}

function intervalAt(curve, i) {
  if (i < 0) return "";
  const interval = curve.low[i] === null ? "" : `[${short(curve.low[i])}, ${short(curve.high[i])}]`;
  return { text: short(curve.mean[i]), interval, sort: curve.mean[i] };
}

function showDifferences(table, { names, keys }) {
  const columns = [{ name: "Setting", kind: "name" }, ...names.map((one) => ({ name: one, kind: "value" }))];
  const rows = Object.entries(keys).map(([key, values]) => ({
    key, cells: [key, ...values.map((value) => value ?? "-")],
  }));
  fillTable(table, columns, rows);
  table.hidden = !rows.length;
  table.parentElement.nextElementSibling.hidden = rows.length > 0;
}

// ----------------------------------------------------------------------------------------------------------------- all

const x = control("x", () => lookAtCurves()), y = control("y", showCurves);
const lines = control("lines", () => lookAtCurves());
const a = control("a", () => lookBetween?.()), b = control("b", () => lookBetween?.());
control("filter", filter);
control("view", showView);
find("name").textContent = name;

let lookBetween = null;

watch(() => address("api", "experiment", name), (data) => {
  now = data;
  arms.clear();
  data.arms.forEach((arm) => arms.set(arm.name, arm));
  setText(find("title"), data.title);
  find("report").hidden = !data.report;
  find("report").firstChild.href = address("report", name);
  fillSelect(find("view"), data.comparison.map((view) => view.name));
  find("measured").hidden = !data.comparison.length;
  showRuns();
  const key = JSON.stringify([data.arms, data.comparison]);
  if (key !== drawn) {
    drawn = key;
    showLegend();
    showCurves();
    showView();
  }
  showDifferences(find("differences"), data.differences);
  const trained = data.runs.filter((run) => run.seed !== null).map((run) => run.name);
  fillSelect(a, trained);
  fillSelect(b, trained, trained.length - 1);
  lookBetween ??= watch(
    () => `${address("api", "between", name)}?${new URLSearchParams({ a: a.value, b: b.value })}`,
    (found) => showDifferences(find("between"), found),
  );
});

const lookAtCurves = watch(
  () => `${address("api", "curves", name)}?${new URLSearchParams({ x: x.value, lines: lines.value })}`,
  (data) => {
    curves = data;
    showCurves();
  },
);

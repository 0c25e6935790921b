// The page of one run.

import {
  about, ago, address, control, dot, element, fillSelect, fillTable, filterTable, find, setText, stateOf, watch,
} from "./live.js";
import { drawCurves, seen, short } from "./charts.js";
import { grouped, stepOf } from "./runs.js";

const MOST = 400_000;  // characters of a log that a page holds
const { experiment, run: name } = about;
let now = null, end = null;

/** What is drawn: before the first answer, what the address of the page says. */
function show() {
  return now ? find("show").value : new URLSearchParams(location.search).get("show") ?? "loss";
}

function showCurves() {
  if (now) drawCurves(find("curves"), now, new Map([[now.look.name, { ...now.look, dash: "solid" }]]), { y: y.value });
}

function showFacts() {
  const facts = {
    variant: [dot(seen(now.colour)), now.label], seed: now.seed, state: [stateOf(now.state)], step: stepOf(now),
    loss: short(now.loss), validation: short(now.validation_loss),
    "tokens/s": now.speed === null ? "" : grouped(now.speed), left: now.left, "last change": [ago(now.changed)],
  };
  const key = JSON.stringify([now.colour, now.label, now.state, now.changed, facts]);
  if (find("facts").listed === key) return;
  find("facts").listed = key;
  const shown = Object.entries(facts).filter(([, value]) => value !== null && value !== "");
  find("facts").replaceChildren(...shown.map(([fact, value]) =>
    element("div", {}, element("dt", { textContent: fact }), element("dd", {}, ...[value].flat()))));
}

function showPairs(table, pairs) {
  const rows = Object.entries(pairs).map(([key, value]) => ({ key, cells: [key, value] }));
  fillTable(table, [{ name: "Setting", kind: "name" }, { name: "Value", kind: "value" }], rows);
}

function showAttempts() {
  const keys = [...new Set(now.attempts.flatMap(Object.keys))];
  const rows = now.attempts.map((one, i) => ({ key: i, cells: keys.map((key) => one[key] ?? "") }));
  fillTable(find("attempts"), keys.map((key) => ({ name: key, kind: "value" })), rows);
  find("tried").hidden = !rows.length;
}

function showEvaluations() {
  const columns = [
    { name: "Variant", kind: "name" }, { name: "Hash", kind: "value" }, { name: "Seconds", kind: "number" },
  ];
  const rows = now.evaluations.map((one) => ({ key: one.hash, cells: [one.variant, one.hash, short(one.seconds)] }));
  fillTable(find("evaluations"), columns, rows);
  find("measured").hidden = !rows.length;
}

/** Append to the log what is new, and stay at its end if the reader was there. */
function showLog(part) {
  const log = find("log"), atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 30;
  const cut = part.start ? element("span", { className: "muted", textContent: "...\n" }) : "";
  if (part.start !== end) log.replaceChildren(cut);
  end = part.end;
  if (part.text) log.append(part.text);
  while (log.textContent.length > MOST && log.childNodes.length > 1) log.firstChild.remove();
  log.parentElement.querySelector(".empty").hidden = log.textContent !== "";
  if (atEnd) log.scrollTop = log.scrollHeight;
}

const y = control("y", showCurves), x = control("x", () => look());
control("show", () => look());
const filter = () => filterTable(find("config"), find("filter").value);
control("filter", filter);
find("name").textContent = name;
find("up").textContent = experiment;
find("up").href = address("experiment", experiment);

const url = () => `${address("api", "run", experiment, name)}?${new URLSearchParams({ x: x.value, show: show() })}`;
const look = watch(url, (data) => {
  now = data;
  setText(find("message"), data.message);
  find("message").className = data.state === "failed" ? "problem" : "muted";
  find("problems").replaceChildren(...data.problems.map((text) => element("li", { textContent: text })));
  find("problems").hidden = !data.problems.length;
  fillSelect(find("show"), data.numbers);
  showFacts();
  showCurves();
  showPairs(find("config"), data.config);
  filter();
  showPairs(find("environment"), data.environment);
  showAttempts();
  showEvaluations();
});

watch(() => `${address("api", "log", experiment, name)}${end === null ? "" : `?after=${end}`}`, showLog);

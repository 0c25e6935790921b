// The page of all experiments.

import { address, fillTable, find, setText, watch } from "./live.js";

const columns = [
  { name: "Experiment", kind: "name" }, { name: "Runs", kind: "number" }, { name: "States" }, { name: "Last change" },
  { name: "Report" }, { name: "What it asks", kind: "words" },
];

function row(one) {
  const states = Object.entries(one.states).map(([name, count]) => [name, `${count} ${name}`]);
  return {
    key: one.name,
    cells: [
      { text: one.name, href: address("experiment", one.name) }, { text: String(one.runs), sort: one.runs },
      { states, sort: states.join() }, { since: one.changed, sort: one.changed },
      one.report ? { text: "report", href: address("report", one.name) } : "", one.title,
    ],
  };
}

watch(() => "/api/experiments", ({ directory, experiments }) => {
  setText(find("directory"), directory);
  fillTable(find("experiments"), columns, experiments.map(row));
  document.querySelector(".empty").hidden = experiments.length > 0;
});

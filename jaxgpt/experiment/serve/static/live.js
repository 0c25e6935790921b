// Looks at the server every few seconds and changes of a page only what changed: zoom, selection and scroll stay.

export const about = document.body.dataset;
const pause = 1000 * Number(about.refresh);

export const find = (id) => document.getElementById(id);

export function address(...parts) {
  return `/${parts.map(encodeURIComponent).join("/")}`;
}

/** Call show(data) with what url() answers, now and whenever that changes. Returns what looks again at once. */
export function watch(url, show) {
  let shown = "", timer = 0, turn = 0;
  async function look() {
    clearTimeout(timer);
    const mine = ++turn, asked = url();
    const [answer, data] = await ask(asked, shown);
    if (mine !== turn) return;
    if (data !== null) {
      shown = `${asked} ${answer.headers.get("ETag")}`;
      show(data);
    }
    if (!document.hidden) timer = setTimeout(look, pause);
  }
  document.addEventListener("visibilitychange", () => document.hidden || look());
  look();
  return look;
}

async function ask(url, shown) {
  try {
    const answer = await fetch(url);
    const trouble = answer.status === 404 ? "This is no longer there." : "The server has a fault: see its terminal.";
    say(answer.ok ? "" : `${trouble} The page shows what was last seen.`);
    const fresh = answer.ok && shown !== `${url} ${answer.headers.get("ETag")}`;
    return [answer, fresh ? await answer.json() : null];
  } catch {
    say("The server does not answer. The page shows what was last seen.");
    return [null, null];
  }
}

function say(words) {
  if (find("status").textContent !== words) find("status").textContent = words;
}

/** A select or input whose value is kept in the address of the page. */
export function control(id, changed) {
  const element = find(id), kept = new URLSearchParams(location.search).get(id);
  if (kept !== null && (element.tagName !== "SELECT" || [...element.options].some((one) => one.value === kept)))
    element.value = kept;
  element.addEventListener("input", () => {
    const query = new URLSearchParams(location.search);
    query.set(id, element.value);
    history.replaceState(null, "", `?${query}`);
    changed();
  });
  return element;
}

export function fillSelect(select, names, first = 0) {
  const key = JSON.stringify(names);
  if (select.listed === key) return;
  select.listed = key;
  const wanted = new URLSearchParams(location.search).get(select.id) ?? select.value;
  select.replaceChildren(...names.map((name) => new Option(name)));
  if (names.length) select.value = names.includes(wanted) ? wanted : names[first];
}

export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
  element.hidden = !text;
}

export function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

export function dot(colour) {
  const made = element("span", { className: "dot" });
  made.style.background = colour;
  return made;
}

// -------------------------------------------------------------------------------------------------------------- tables

/** Rows are {key, cells}; a cell is a text or {text, href, dot, states, interval, since, kind, sort}. */
export function fillTable(table, columns, rows) {
  fillHead(table, columns);
  const body = table.tBodies[0], known = new Map([...body.rows].map((row) => [row.key, row]));
  table.ordered = rows.map(({ key, cells }) => {
    const row = known.get(key) ?? Object.assign(document.createElement("tr"), { key });
    known.delete(key);
    const whole = cells.map((cell) => (typeof cell === "object" ? cell : { text: String(cell) }));
    whole.forEach((cell, i) => fillCell(row.cells[i] ?? row.insertCell(), cell, columns[i]));
    while (row.cells.length > cells.length) row.deleteCell(-1);
    row.sorts = whole.map((cell) => cell.sort ?? cell.text ?? "");
    return row;
  });
  for (const row of known.values()) row.remove();
  arrange(table);
}

function fillHead(table, columns) {
  const key = JSON.stringify(columns);
  if (table.headed === key) return;
  table.headed = key;
  table.sorted = null;
  const cells = columns.map((column, i) => {
    const button = element("button", { type: "button", textContent: column.name, title: `Sort by ${column.name}` });
    button.addEventListener("click", () => {
      const up = table.sorted?.i === i && table.sorted.up;
      table.sorted = { i, up: !up };
      arrange(table);
    });
    return element("th", { scope: "col", className: column.kind === "number" ? "number" : "" }, button);
  });
  table.replaceChildren(element("thead", {}, element("tr", {}, ...cells)), document.createElement("tbody"));
}

function arrange(table) {
  const body = table.tBodies[0], { i, up } = table.sorted ?? {}, rows = [...table.ordered];
  if (table.sorted) rows.sort((a, b) => (up ? 1 : -1) * compare(a.sorts[i], b.sorts[i]));
  [...table.tHead.rows[0].cells].forEach((cell, n) => {
    if (n === i) cell.ariaSort = up ? "ascending" : "descending";
    else cell.removeAttribute("aria-sort");
  });
  rows.forEach((row, n) => body.rows[n] === row || body.insertBefore(row, body.rows[n] ?? null));
}

function compare(a, b) {
  if (typeof a === "number" && typeof b === "number") return a - b;
  return String(a).localeCompare(String(b), "en", { numeric: true });
}

function fillCell(td, cell, column) {
  const now = JSON.stringify(cell);
  if (td.shown === now) return;
  td.shown = now;
  td.className = cell.kind ?? column.kind ?? "";
  const { text = "", href, dot: colour, states, interval, since } = cell;
  if (states) return void td.replaceChildren(...states.map(([name, words]) => stateOf(name, words)));
  if (since !== undefined) return void td.replaceChildren(ago(since));
  const parts = [href ? element("a", { href, textContent: text }) : text];
  if (colour) parts.unshift(dot(colour));
  if (interval) parts.push(element("span", { className: "ci", textContent: interval }));
  td.replaceChildren(...parts);
}

export function stateOf(name, words = name) {
  return element("span", { className: `state ${name}`, textContent: words });
}

/** Show only rows with all these words; returns how many. */
export function filterTable(table, words) {
  const parts = words.toLowerCase().split(/\s+/);
  let count = 0;
  for (const row of table.tBodies[0]?.rows ?? []) {
    const text = row.textContent.toLowerCase();
    row.hidden = !parts.every((part) => text.includes(part));
    count += !row.hidden;
  }
  return count;
}

// --------------------------------------------------------------------------------------------------------------- times

/** Seconds since 1970 as `3 min ago`, which goes on counting. */
export function ago(since) {
  const made = element("time", { since });
  if (since) {
    made.dateTime = new Date(1000 * since).toISOString();
    made.title = new Date(1000 * since).toLocaleString();
  }
  tick(made);
  return made;
}

function tick(time) {
  const seconds = Math.max(0, Date.now() / 1000 - time.since);
  const [size, unit] = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]].find(([size]) => seconds >= size) ?? [1, "s"];
  const words = time.since ? `${Math.floor(seconds / size)} ${unit} ago` : "-";
  if (time.textContent !== words) time.textContent = words;
}

setInterval(() => document.querySelectorAll("time").forEach(tick), 1000);

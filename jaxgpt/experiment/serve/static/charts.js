// Curves with intervals, drawn by plotly.js in the colours of the report.

const dark = matchMedia("(prefers-color-scheme: dark)");
const drawn = new Map();  // element -> what draws it again
const config = {
  displaylogo: false, responsive: true,
  modeBarButtons: [["toImage", "zoom2d", "pan2d", "resetScale2d"]],  // plotly's own choice includes one that uploads
};

dark.addEventListener("change", () => drawn.forEach((draw) => draw()));

function css(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

/** A colour of the report; on dark ground the same with as much white as it takes to be seen. */
export function seen(colour) {
  let parts = [1, 3, 5].map((i) => parseInt(colour.slice(i, i + 2), 16));
  const light = () => 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2];
  while (dark.matches && light() < 115) parts = parts.map((part) => Math.round(part + 0.1 * (255 - part)));
  return `rgb(${parts.join(",")})`;
}

function faint(colour, opacity) {
  return colour.replace("rgb(", "rgba(").replace(")", `,${opacity})`);
}

function show(div, make) {
  const draw = () => {
    if (div.held) return void (div.waiting = true);  // a zoom that is being drawn would be cut off
    const { traces, layout } = make();
    Plotly.react(div, traces, layout, config);
  };
  if (!drawn.has(div)) {
    div.addEventListener("pointerdown", () => (div.held = true));
    for (const end of ["pointerup", "pointercancel"])
      addEventListener(end, () => {
        if (!div.held) return;
        setTimeout(() => {
          div.held = false;
          if (div.waiting) drawn.get(div)();
          div.waiting = false;
        }, 400);
      });
  }
  drawn.set(div, draw);
  draw();
}

function layoutOf(view, xaxis, yaxis, many) {
  const axis = {
    gridcolor: css("--line"), zeroline: false, linecolor: css("--edge"), tickcolor: css("--edge"), automargin: true,
  };
  return {
    uirevision: view,  // zoom stays while this does
    font: { family: getComputedStyle(document.body).fontFamily, size: 13, color: css("--ink") },
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", margin: { l: 56, r: 10, t: 30, b: 48 },
    hovermode: many ? "closest" : "x unified", showlegend: false,
    modebar: { bgcolor: "rgba(0,0,0,0)", color: css("--muted"), activecolor: css("--ink") },
    hoverlabel: { bgcolor: css("--card"), bordercolor: css("--edge"), font: { color: css("--ink") } },
    xaxis: { ...axis, ...xaxis }, yaxis: { ...axis, ...yaxis },
  };
}

function band(curve, colour) {
  const kept = curve.x.map((_, i) => i).filter((i) => curve.low[i] !== null), back = [...kept].reverse();
  return {
    type: "scatter", mode: "lines", fill: "toself", fillcolor: faint(colour, 0.13), line: { width: 0 },
    hoverinfo: "skip",
    x: [...kept, ...back].map((i) => curve.x[i]),
    y: [...kept.map((i) => curve.low[i]), ...back.map((i) => curve.high[i])],
  };
}

function hover(label, curve) {
  return curve.x.map((_, i) => {
    const interval = curve.low[i] === null ? "" : ` [${short(curve.low[i])}, ${short(curve.high[i])}]`;
    const seeds = curve.count[i] > 1 ? `, ${curve.count[i]} seeds` : "";
    return `${plain(label)} ${short(curve.mean[i])}${interval}${seeds}`;
  });
}

export function short(value) {
  if (value === null || value === undefined) return "";
  const digits = value.toPrecision(4), size = Math.abs(value);
  return size >= 1e4 || (size < 1e-3 && size > 0) ? String(Number(digits)) : digits;
}

/** Plotly reads some HTML in texts, which names are not. */
function plain(text) {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
}

// -------------------------------------------------------------------------------------------------------------- curves

const UNITS = { loss: "nats per token" };
const ALONG = { step: "step", tokens: "training tokens", seconds: "seconds of training" };

/** Training and validation losses. `arms`: name -> arm; `hidden`: names of those that are not drawn. */
export function drawCurves(div, data, arms, { y = "linear", lines = "arms", hidden = new Set() } = {}) {
  show(div, () => {
    const curves = data.curves.filter((curve) => arms.has(curve.arm) && !hidden.has(curve.arm));
    const bands = lines !== "arms" ? [] : curves.map((curve) => band(curve.training, seen(arms.get(curve.arm).colour)));
    const traces = curves.flatMap((curve) => {
      const arm = arms.get(curve.arm), colour = seen(arm.colour), { training, validation } = curve;
      const line = { color: colour, width: lines === "runs" ? 1.3 : 2, dash: arm.dash };
      const common = { type: "scatter", hovertemplate: "%{text}<extra></extra>", name: plain(curve.label) };
      return [
        { ...common, mode: "lines", x: training.x, y: training.mean, text: hover(curve.label, training), line },
        {
          ...common, mode: "markers", x: validation.x, y: validation.mean,
          text: hover(`${curve.label}, validation`, validation),
          marker: { color: colour, symbol: arm.symbol, size: 9, line: { color: css("--card"), width: 1.5 } },
        },
      ];
    });
    const { shown = "loss" } = data;
    const xaxis = { title: { text: ALONG[data.axis] }, rangemode: "tozero" };
    const yaxis = { title: { text: UNITS[shown] ?? plain(shown) }, type: y, ...rangeOf(curves, y) };
    const layout = layoutOf(`${data.axis} ${y} ${shown}`, xaxis, yaxis, curves.length > 8);
    return { traces: [...bands, ...traces], layout };  // no band hides a line
  });
}

/** The range of the means without the first fiftieth of a curve: it and intervals of few seeds may leave the axis. */
function rangeOf(curves, y) {
  const values = curves.flatMap(({ training, validation }) => [
    ...training.mean.slice(Math.floor(training.mean.length / 50)), ...validation.mean,
  ]).filter((value) => y === "linear" || value > 0);
  if (!values.length) return {};
  let [low, high] = values.reduce(([a, b], value) => [Math.min(a, value), Math.max(b, value)], [Infinity, -Infinity]);
  if (y === "log") [low, high] = [Math.log10(low), Math.log10(high)];
  const margin = 0.06 * (high - low) || 0.1;
  return { range: [low - margin, high + margin] };
}

// ---------------------------------------------------------------------------------------------------------- comparison

/** One view of the evaluations along contexts. */
export function drawContexts(div, view, arms, hidden) {
  show(div, () => {
    const here = Object.entries(view.arms).filter(([name]) => arms.has(name) && !hidden.has(name));
    const bands = here.map(([name, curve]) => band(curve, seen(arms.get(name).colour)));
    const traces = here.map(([name, curve]) => {
      const arm = arms.get(name);
      return {
        type: "scatter", mode: view.table && arm.marked ? "lines+markers" : "lines", x: curve.x, y: curve.mean,
        line: { color: seen(arm.colour), width: 2.2, dash: arm.dash }, name: plain(arm.label),
        marker: { symbol: arm.symbol, size: 8, line: { color: css("--card"), width: 1 } },
        text: hover(arm.label, curve), hovertemplate: "%{text}<extra></extra>",
      };
    });
    const ticks = view.contexts.filter((context, i) => view.table || view.names[i] || i === 0);
    const names = ticks.map((tick) => `${tick}<br>${view.names[view.contexts.indexOf(tick)]}`);
    const xaxis = { title: { text: "context in tokens" }, type: "log", tickvals: ticks, ticktext: names };
    const yaxis = { title: { text: plain(view.unit) }, ...contextRange(here, view.log) };
    return { traces: [...bands, ...traces], layout: layoutOf(view.name, xaxis, yaxis, here.length > 8) };
  });
}

/** The range of the means, widened by intervals as far as these stay within it by half again (as in the report). */
function contextRange(here, log) {
  const means = here.flatMap(([, curve]) => curve.mean);
  const ends = here.flatMap(([, curve]) => [...curve.low, ...curve.high]);
  if (!means.length) return {};
  let [low, high] = [Math.min(...means), Math.max(...means)];
  const scaled = log && low > 0, margin = scaled ? 1.5 : 0.5 * (high - low) || 0.1;
  const within = ends.filter((end) => end !== null && (scaled ? end > low / margin && end < high * margin
    : end > low - margin && end < high + margin));
  [low, high] = [Math.min(low, ...within), Math.max(high, ...within)];
  if (!scaled) return { range: [low - 0.05 * (high - low || 1), high + 0.05 * (high - low || 1)] };
  const edge = 0.05 * Math.log10(high / low) || 0.01;
  const ticks = high > 6 * low ? { dtick: "D2" } : { nticks: 8 };  // 1, 2, 5, 10 where there is room for no more
  return { type: "log", range: [Math.log10(low) - edge, Math.log10(high) + edge], ...ticks, tickformat: ".4~g" };
}

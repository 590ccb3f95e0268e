// The trade-off plot: points by method, intervals, the Pareto front, the budget.

const LIGHT = ["#0068a8", "#b3410e", "#00755a", "#8a5a00", "#9a3f7f", "#40525f", "#4b4bc8", "#6b6b00"];
const DARK = ["#56b4e9", "#f0894e", "#3fc79a", "#e6b450", "#e08cc0", "#a9b8c4", "#a3a3ff", "#d0d04a"];
const SYMBOLS = ["circle", "square", "diamond", "triangle-up", "cross", "x", "star", "hexagon"];
const GLYPHS = ["●", "■", "◆", "▲", "✚", "✖", "★", "⬢"];
const MANY = 150; // points; above, only the front has bars, and only upright ones

const dark = window.matchMedia("(prefers-color-scheme: dark)");
const colour = (method) => (dark.matches ? DARK : LIGHT)[method % LIGHT.length];
const narrow = () => window.innerWidth < 700;
const variable = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
// Plotly reads a little HTML in its texts
const plain = (text) => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");

let drawn = false;
let pointed = []; // what the arrow keys go through, by x

function errors(found, side, all) {
  const of = (p) => (p[side].length > 1 && all.has(p.index) ? p[side] : [p[side][0], p[side][0], p[side][0]]);
  return {
    type: "data",
    symmetric: false,
    array: found.map((p) => Math.max(0, of(p)[2] - of(p)[0])),
    arrayminus: found.map((p) => Math.max(0, of(p)[0] - of(p)[1])),
    thickness: 1,
    width: 0,
  };
}

function tracesOf(found, best) {
  const bars = new Set((found.length > MANY ? best : found).map((p) => p.index));
  const methods = [...new Set(found.map((p) => p.row.method))].sort((a, b) => a - b);
  const traces = methods.map((method) => {
    const own = found.filter((p) => p.row.method === method);
    return {
      type: "scatter",
      mode: "markers",
      name: plain(data.methods[method]),
      x: own.map((p) => p.x[0]),
      y: own.map((p) => p.y[0]),
      customdata: own.map((p) => p.index),
      error_x: { ...errors(own, "x", found.length > MANY ? new Set() : bars), color: colour(method) },
      error_y: { ...errors(own, "y", bars), color: colour(method) },
      marker: { size: found.length > MANY ? 7 : 10, color: colour(method), symbol: SYMBOLS[method % SYMBOLS.length], opacity: own.map((p) => (p.x[0] <= state.limit ? 1 : 0.35)), line: { width: 1, color: variable("--surface") } },
      hoverinfo: "none",
    };
  });
  const line = { type: "scatter", mode: "lines", x: best.map((p) => p.x[0]), y: best.map((p) => p.y[0]), line: { shape: "hv", dash: "dot", width: 1.5, color: variable("--quiet") }, hoverinfo: "skip" };
  return [line, ...traces, ...published(found), ...rings(found, best)];
}

// Hollow: what the papers print, beside our points of the same network.
function published(found) {
  const own = found.filter((p) => state.metric === "AP" && p.row.published !== undefined);
  if (!own.length) return [];
  const marker = { size: 11, color: own.map((p) => colour(p.row.method)), symbol: own.map((p) => `${SYMBOLS[p.row.method % SYMBOLS.length]}-open`), line: { width: 1.5 } };
  return [{ type: "scatter", mode: "markers", x: own.map((p) => p.x[0]), y: own.map((p) => p.row.published), customdata: own.map((p) => p.index), marker, hoverinfo: "none" }];
}

// Rings around the answer to the budget and around the configuration that was kept.
function rings(found, best) {
  const ring = (p, size, width, colourName) => ({ type: "scatter", mode: "markers", x: [p.x[0]], y: [p.y[0]], marker: { size, symbol: "circle-open", color: variable(colourName), line: { width } }, hoverinfo: "skip" });
  const answer = bestWithin(best);
  const kept = found.find((p) => p.index === state.kept);
  return [...(answer ? [ring(answer, 22, 3, "--accent")] : []), ...(kept ? [ring(kept, 30, 1.5, "--text")] : [])];
}

const bestWithin = (best) => best.filter((p) => p.x[0] <= state.limit).at(-1);

function layoutOf(found, best) {
  const grid = { gridcolor: variable("--line"), zeroline: false, linecolor: variable("--line"), tickcolor: variable("--line"), fixedrange: false };
  const label = axis() ? `${axis().title}${axis().unit === axis().title ? "" : ` (${axis().unit})`}` : "";
  const edge = { x0: state.limit, x1: state.limit, y0: 0, y1: 1, yref: "paper", type: "line", line: { color: variable("--accent"), width: 1.5 } };
  const limited = Number.isFinite(state.limit) && found.some((p) => p.x[0] > state.limit);
  const answer = bestWithin(best);
  const note = answer && { x: state.logarithmic ? Math.log10(answer.x[0]) : answer.x[0], y: answer.y[0], text: plain(shortened(answer.row.label)), showarrow: true, arrowcolor: variable("--accent"), ax: 0, ay: 34, font: { color: variable("--text") }, bgcolor: variable("--surface"), borderpad: 3 };
  return {
    autosize: true,
    margin: { l: 54, r: 14, t: 10, b: 46 },
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    font: { family: "system-ui, sans-serif", size: 13, color: variable("--text") },
    showlegend: false,
    hovermode: "closest",
    dragmode: narrow() ? false : "zoom", // a finger scrolls the page
    uirevision: `${state.axis} ${state.metric} ${state.ground} ${state.logarithmic}`,
    xaxis: { ...grid, title: { text: plain(label) }, type: state.logarithmic ? "log" : "linear", rangemode: "tozero" },
    yaxis: { ...grid, title: { text: state.metric ? plain(state.metric) : "" } },
    shapes: limited ? [edge] : [],
    annotations: note && !narrow() ? [note] : [], // a long name would squeeze a small plot
  };
}

const shortened = (label) => (label.length > 40 ? `${label.slice(0, 38)}…` : label);

function drawPlot() {
  if (!drawn) return;
  const found = points();
  const best = front(found);
  pointed = [...found].sort((a, b) => a.x[0] - b.x[0]);
  window.Plotly.react("plot", tracesOf(found, best), layoutOf(found, best), { responsive: true, displayModeBar: false });
  byId("axis-note").textContent = axis() ? `${axis().title}: ${axis().note}. Bars: 95 % interval; for gmacs the 5th to 95th percentile of the ${axis().key === "gmacs_per_image" ? "images" : "persons"}. Dotted: Pareto front.${published(found).length ? " Hollow: published, same images and kind of boxes." : ""}${narrow() ? "" : " Drag to zoom, double-click to see all."}` : "";
}

function drawLegend() {
  const items = data.methods.map((name, method) => {
    const button = element("button", { type: "button", "aria-pressed": String(!state.hidden.has(method)) });
    const glyph = element("span", { "aria-hidden": "true" }, `${GLYPHS[method % GLYPHS.length]} `);
    glyph.style.color = colour(method);
    button.append(glyph, name);
    button.addEventListener("click", () => {
      const hidden = new Set(state.hidden);
      if (!hidden.delete(method)) hidden.add(method);
      change({ hidden });
      byId("legend").querySelectorAll("button")[method].focus();
    });
    return element("li", {}, button);
  });
  byId("legend").replaceChildren(...items);
}

function showTip(event) {
  const row = rows[event.points[0].customdata];
  if (!row) return;
  const lines = data.columns.map((c, i) => [c.title, cellText(row, i)]).filter(([, text]) => text !== NOTHING);
  const names = row.records.map(([, at]) => ["record", data.records[at].name]);
  const tip = byId("tip");
  tip.replaceChildren(element("b", {}, row.label), definitions([...lines.slice(1), ...names]));
  tip.hidden = false;
  const { clientX, clientY } = event.event ?? { clientX: 0, clientY: 0 };
  const left = clientX + 16 + tip.offsetWidth > window.innerWidth ? clientX - 16 - tip.offsetWidth : clientX + 16;
  tip.style.left = `${Math.max(4, left)}px`;
  tip.style.top = `${Math.max(4, Math.min(clientY - 20, window.innerHeight - tip.offsetHeight - 4))}px`;
  if (state.kept === null) drawPanel(event.points[0].customdata);
}

// Arrow keys go through the configurations by x and say them; Enter keeps one, Escape lets it go.
let spokenAt = -1;
function keyInPlot(event) {
  const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  if (step && pointed.length) {
    event.preventDefault();
    spokenAt = Math.min(Math.max(spokenAt + step, 0), pointed.length - 1);
    const p = pointed[spokenAt];
    byId("spoken").textContent = `${p.row.label}: ${state.metric} ${metricShown(p.y)}, ${shown(p.x[0])} ${axis().unit}`;
    change({ kept: p.index });
  } else if (event.key === "Escape") {
    change({ kept: null });
  }
}

function startPlot() {
  drawLegend();
  onChange(drawLegend);
  let asked = 0;
  onChange(() => {
    cancelAnimationFrame(asked); // a slider asks more often than a plot can answer
    asked = requestAnimationFrame(drawPlot);
  });
  dark.addEventListener("change", () => {
    drawLegend();
    drawPlot();
  });
  byId("plot").addEventListener("keydown", keyInPlot);
  document.addEventListener("DOMContentLoaded", () => {
    drawn = true;
    drawPlot();
    byId("plot").on("plotly_hover", showTip);
    byId("plot").on("plotly_unhover", () => (byId("tip").hidden = true));
    byId("plot").on("plotly_click", (event) => change({ kept: event.points[0].customdata }));
    document.documentElement.dataset.ready = String(Math.round(performance.now()));
  });
}

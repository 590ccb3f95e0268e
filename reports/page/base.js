// What the other parts use: the data, elements made of text only, the state, the front.

const data = JSON.parse(document.getElementById("data").textContent);
const rows = data.rows;
const NOTHING = "–";

const byId = (id) => document.getElementById(id);
const textOf = (index) => data.texts[index];

// An element; strings among `children` become text, never markup.
function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in made) made[name] = value;
    else made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

const state = {
  axis: data.axes.length ? data.axes[0].key : null,
  metric: data.metrics.length ? data.metrics[0] : null,
  ground: 0,
  limit: Infinity,
  hidden: new Set(), // methods
  kept: null, // row that stays in the panel
  logarithmic: false,
};

const listeners = [];
const onChange = (listener) => listeners.push(listener);
function change(update) {
  Object.assign(state, update);
  for (const listener of listeners) listener(Object.keys(update));
}

const axis = () => data.axes.find((a) => a.key === state.axis);
const cellText = (row, column) => textOf(row.cells[column][0]);
const columnIndex = (key) => data.columns.findIndex((c) => c.key === key);

// Rows that have both quantities on the chosen ground, as {row, index, x, y} with x and y [value, low, high].
function points() {
  const found = [];
  rows.forEach((row, index) => {
    const x = row.x[state.axis];
    const y = row.y[state.metric];
    const shown = row.ground === state.ground && !state.hidden.has(row.method);
    if (shown && x && y) found.push({ row, index, x, y });
  });
  return found;
}

// Those that no other beats: none has less or equal x and more y, or less x and equal y.
function front(found) {
  const sorted = [...found].sort((a, b) => a.x[0] - b.x[0] || b.y[0] - a.y[0]);
  let best = -Infinity;
  return sorted.filter((p) => {
    if (p.y[0] <= best) return false;
    best = p.y[0];
    return true;
  });
}

// A number with four significant digits, never in exponents where people read it.
function shown(number) {
  if (!Number.isFinite(number)) return NOTHING;
  const size = Math.abs(number);
  const digits = size >= 1000 ? 0 : size >= 100 ? 1 : size >= 10 ? 2 : size >= 1 ? 3 : 4;
  return number.toFixed(digits);
}

const metricShown = (y) => (y.length > 1 ? `${y[0].toFixed(1)} [${y[1].toFixed(1)}, ${y[2].toFixed(1)}]` : y[0].toFixed(1));
const plural = (count, word) => `${count.toLocaleString("en")} ${word}${count === 1 ? "" : "s"}`;

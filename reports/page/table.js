// The table: sorted, filtered, in steps of a hundred rows; one tab stop, arrow keys inside.

const STEP = 100;
const sorting = { column: -1, down: false };
let steps = 1;
let visible = []; // row indices in their order

const levelShown = () => (byId("more-columns").checked ? 2 : 1);
const columnsShown = () => data.columns.map((c, i) => i).filter((i) => data.columns[i].level <= levelShown());

const words = rows.map((row) => {
  const facts = data.shapes[row.protocol.shape].map(([, name], i) => `${name}=${textOf(row.protocol.values[i])}`);
  return [row.label, row.note, ...row.cells.map((c) => textOf(c[0])), ...facts].join(" ").toLowerCase();
});

function filtered() {
  const asked = byId("filter").value.toLowerCase().split(/\s+/).filter(Boolean);
  const method = byId("filter-method").value;
  const best = byId("only-front").checked ? new Set(front(points()).map((p) => p.index)) : null;
  return rows
    .map((row, index) => index)
    .filter((i) => method === "" || rows[i].method === Number(method))
    .filter((i) => !best || best.has(i))
    .filter((i) => asked.every((word) => words[i].includes(word)));
}

function sorted(indices) {
  const { column, down } = sorting;
  if (column < 0) return indices;
  const isText = data.columns[column].text;
  const key = (i) => (isText ? cellText(rows[i], column) : Number.parseFloat(cellText(rows[i], column)));
  const sign = down ? -1 : 1;
  return [...indices].sort((a, b) => {
    const [first, second] = [key(a), key(b)];
    if (isText) return sign * first.localeCompare(second, "en", { numeric: true }) || a - b;
    if (Number.isNaN(first) || Number.isNaN(second)) return Number.isNaN(first) - Number.isNaN(second) || a - b;
    return sign * (first - second) || a - b;
  });
}

function drawHead() {
  const cells = columnsShown().map((i) => {
    const mark = sorting.column === i ? (sorting.down ? "descending" : "ascending") : "none";
    const arrow = { none: "", ascending: " ▲", descending: " ▼" }[mark];
    const button = element("button", { type: "button", tabIndex: -1, className: "sort" }, data.columns[i].title);
    if (arrow) button.append(element("span", { "aria-hidden": "true" }, arrow));
    button.addEventListener("click", () => {
      sorting.down = sorting.column === i ? !sorting.down : !data.columns[i].text;
      sorting.column = i;
      drawTable();
    });
    const kind = data.columns[i].text ? "text" : "number";
    return element("th", { scope: "col", className: kind, "aria-sort": mark, "data-column": data.columns[i].key }, button);
  });
  byId("table").tHead.replaceChildren(element("tr", {}, ...cells));
}

function tableRow(i, columns, best) {
  const row = rows[i];
  const cells = columns.map((column, at) => {
    const button = element("button", { type: "button", tabIndex: -1 }, cellText(row, column));
    if (at === 0) {
      button.addEventListener("click", () => change({ kept: i }));
      if (best.has(i)) button.append(element("span", { className: "badge", title: "on the Pareto front" }, "front"));
      return element("th", { scope: "row" }, button);
    }
    button.addEventListener("click", () => explainCell(row, column));
    return element("td", { className: data.columns[column].text ? "text" : "number" }, button);
  });
  const made = element("tr", { "data-row": i }, ...cells);
  if (state.kept === i) made.setAttribute("aria-selected", "true");
  return made;
}

function drawTable() {
  visible = sorted(filtered());
  const some = visible.slice(0, steps * STEP);
  const best = new Set(front(points()).map((p) => p.index));
  const columns = columnsShown();
  drawHead();
  byId("table").tBodies[0].replaceChildren(...some.map((i) => tableRow(i, columns, best)));
  const rest = visible.length - some.length;
  byId("more").hidden = rest <= 0;
  byId("more").textContent = `Show ${Math.min(rest, STEP)} more of ${plural(rest, "row")}`;
  const all = visible.length === rows.length ? "" : ` of ${rows.length.toLocaleString("en")}`;
  byId("count").textContent = `${visible.length.toLocaleString("en")}${all} configurations` + (rest > 0 ? `, ${some.length} shown` : "");
  const first = byId("table").querySelector("button");
  if (first) first.tabIndex = 0;
}

function markKept() {
  for (const line of byId("table").tBodies[0].rows) {
    if (Number(line.dataset.row) === state.kept) line.setAttribute("aria-selected", "true");
    else line.removeAttribute("aria-selected");
  }
}

// Arrow keys, Home and End move the one tab stop.
function moveInTable(event) {
  const moves = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0] };
  const cell = event.target.closest("th, td");
  if (!cell || !(event.key in moves || event.key === "Home" || event.key === "End")) return;
  event.preventDefault();
  const lines = [...byId("table").rows];
  const line = lines.indexOf(cell.parentElement);
  const [down, right] = moves[event.key] || [0, 0];
  const target = lines[Math.min(Math.max(line + down, 0), lines.length - 1)];
  const last = target.cells.length - 1;
  const at = { Home: 0, End: last }[event.key] ?? Math.min(Math.max(cell.cellIndex + right, 0), last);
  const button = target.cells[at].querySelector("button");
  button.focus();
  button.scrollIntoView({ block: "nearest", inline: "nearest" });
}

function startTable() {
  byId("filter-method").append(element("option", { value: "" }, "all"));
  data.methods.forEach((name, i) => byId("filter-method").append(element("option", { value: String(i) }, name)));
  for (const id of ["filter", "filter-method", "only-front", "more-columns"]) {
    byId(id).addEventListener("input", () => {
      steps = 1;
      drawTable();
    });
  }
  byId("more").addEventListener("click", () => {
    steps += 1;
    drawTable();
  });
  byId("table").addEventListener("keydown", moveInTable);
  byId("table").addEventListener("focusin", (event) => {
    for (const old of byId("table").querySelectorAll('[tabindex="0"]')) old.tabIndex = -1;
    event.target.tabIndex = 0;
  });
  byId("notes").append(...data.notes.map((text) => element("li", {}, text)));
  byId("meaning").hidden = !data.notes.length;
  onChange((names) => {
    if (names.includes("kept")) markKept();
    if (names.some((n) => ["axis", "metric", "ground", "hidden"].includes(n))) drawTable(); // the front is another
  });
  drawTable();
}

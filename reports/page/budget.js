// The budget: a limit on the horizontal quantity, and the best that fits, in words.

const steady = (values) => [...new Set(values)].sort((a, b) => a - b);
let stops = []; // what the slider goes through: every value that a configuration has

function drawBudget(names) {
  const moved = ["axis", "ground", "hidden", "metric"].some((n) => names.includes(n));
  if (moved || !stops.length) {
    stops = steady(points().map((p) => p.x[0]));
    state.limit = names.includes("axis") || names.includes("ground") ? Infinity : state.limit;
    byId("limit").max = Math.max(0, stops.length - 1);
  }
  const at = stops.findLastIndex((stop) => stop <= state.limit);
  byId("limit").value = String(Math.max(0, at));
  byId("limit").setAttribute("aria-valuetext", `at most ${shown(limitShown())} ${axis()?.unit ?? ""}`);
  byId("limit-unit").textContent = axis()?.unit ?? "";
  if (document.activeElement !== byId("limit-number")) byId("limit-number").value = stops.length ? String(Number(limitShown().toPrecision(4))) : "";
  byId("answer").replaceChildren(...answer());
}

const limitShown = () => (Number.isFinite(state.limit) ? state.limit : (stops.at(-1) ?? 0));

function answer() {
  const found = points();
  if (!found.length) return ["No configuration here has both numbers."];
  const fitting = found.filter((p) => p.x[0] <= state.limit);
  const unit = axis().unit;
  const under = Number.isFinite(state.limit) ? `within ${shown(state.limit)} ${unit}` : "without a limit";
  if (!fitting.length) return [`Nothing fits ${under}; the least is ${shown(stops[0])} ${unit}.`];
  const best = front(fitting);
  const winner = best.at(-1);
  const name = element("strong", {}, winner.row.label);
  const parts = [`Best ${state.metric} ${under}: `, name, ` with ${metricShown(winner.y)} at ${shown(winner.x[0])} ${unit}. `];
  parts.push(`${fitting.length} of ${plural(found.length, "configuration")} fit. `);
  const equal = best.slice(0, -1).find((p) => p.y.length > 1 && winner.y.length > 1 && p.y[2] >= winner.y[1]);
  if (equal) parts.push(`${equal.row.label} needs ${shown(equal.x[0])} ${unit} and its interval overlaps: ${metricShown(equal.y)}.`);
  return parts;
}

function startBudget() {
  byId("limit").addEventListener("input", () => {
    const at = Number(byId("limit").value);
    change({ limit: at >= stops.length - 1 ? Infinity : stops[at] });
  });
  byId("limit-number").addEventListener("input", () => {
    const value = Number.parseFloat(byId("limit-number").value);
    change({ limit: Number.isFinite(value) ? value : Infinity });
  });
  byId("limit-number").addEventListener("blur", () => drawBudget([]));
  onChange(drawBudget);
}

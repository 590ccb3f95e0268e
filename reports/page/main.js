// Everything is started; the plot follows as soon as its library, further down in the file, is there.

function choices(id, name, options, chosen, take) {
  const box = byId(id).querySelector(".choices");
  byId(id).hidden = options.length < 2;
  for (const [value, label] of options) {
    const input = element("input", { type: "radio", name, value, checked: value === chosen });
    input.addEventListener("change", () => take(value));
    box.append(element("label", {}, input, element("span", {}, label)));
  }
}

function startControls() {
  choices("axes", "axis", data.axes.map((a) => [a.key, a.title]), state.axis, (key) => change({ axis: key }));
  choices("metrics", "metric", data.metrics.map((m) => [m, m]), state.metric, (name) => change({ metric: name }));
  byId("ground").append(...data.grounds.map((name, i) => element("option", { value: String(i) }, name)));
  byId("ground-field").hidden = data.grounds.length < 2;
  const counts = data.grounds.map((_, i) => rows.filter((row) => row.ground === i).length);
  state.ground = Math.max(0, counts.indexOf(Math.max(...counts)));
  byId("ground").value = String(state.ground);
  byId("ground").addEventListener("input", () => change({ ground: Number(byId("ground").value) }));
  byId("logarithmic").addEventListener("input", () => change({ logarithmic: byId("logarithmic").checked }));
}

function startHeader() {
  byId("description").textContent = data.description;
  byId("description").hidden = !data.description;
  const scored = rows.filter((row) => row.ground >= 0).length;
  const facts = [plural(rows.length, "configuration"), `${scored.toLocaleString("en")} with an AP`, plural(data.records.length, "record"), ...data.grounds.slice(0, 3)];
  byId("facts").textContent = facts.join(" · ");
  byId("remarks").append(...data.remarks.map((text) => element("li", {}, text)));
  byId("remarks").hidden = !data.remarks.length;
  byId("origin").textContent = [data.command && `Made by: ${data.command}`, data.created && `run ${data.created}`].filter(Boolean).join(" · ");
}

startHeader();
if (rows.length) {
  startControls();
  startTable();
  startPanel();
  startBudget();
  startComparison();
  startPictures();
  startPlot();
  drawBudget(["axis"]);
  const first = bestWithin(front(points()));
  drawPanel(first ? first.index : 0);
} else {
  byId("nothing").hidden = false;
  for (const section of document.querySelectorAll("main > section")) section.hidden = true;
  document.documentElement.dataset.ready = String(Math.round(performance.now()));
}

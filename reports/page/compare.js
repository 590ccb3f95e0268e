// What differs between two configurations, in protocol, data, network and the way they were timed.

function differencesOf(a, b) {
  const fields = (row) => {
    const names = data.shapes[row.protocol.shape];
    return new Map(names.map(([group, name], i) => [`${group}\n${name}`, textOf(row.protocol.values[i])]));
  };
  const [first, second] = [fields(a), fields(b)];
  const names = [...new Set([...first.keys(), ...second.keys()])];
  return names
    .map((name) => [...name.split("\n"), first.get(name) ?? NOTHING, second.get(name) ?? NOTHING])
    .filter(([, , left, right]) => left !== right);
}

function verdictOn(a, b, found) {
  const around = found.filter(([group]) => group === "protocol" || group === "data");
  const timed = found.some(([group]) => group === "time");
  if (a === b) return "Choose two different configurations.";
  const accuracy = around.length
    ? `Their protocols differ in ${around.map(([, name]) => name).join(", ")}: a difference in AP is not that of the networks alone.`
    : "Scored under the same protocol on the same persons: their AP can be compared.";
  return timed ? `${accuracy} They were not timed in the same way.` : accuracy;
}

function drawComparison() {
  const [a, b] = ["first", "second"].map((id) => rows[Number(byId(id).value)]);
  if (!a || !b) return;
  const found = differencesOf(a, b);
  byId("verdict").textContent = verdictOn(a, b, found);
  const head = ["", "field", a.label, b.label].map((text) => element("th", { scope: "col" }, text));
  byId("differences").tHead.replaceChildren(element("tr", {}, ...head));
  const lines = found.map(([group, ...rest]) => {
    const cells = rest.map((text, i) => element(i ? "td" : "th", i ? {} : { scope: "row" }, text));
    return element("tr", {}, element("td", { className: "quiet" }, group), ...cells);
  });
  byId("differences").tBodies[0].replaceChildren(...lines);
  byId("differences").hidden = !lines.length;
}

function compareAs(which, index) {
  byId(which).value = String(index);
  drawComparison();
}

function startComparison() {
  for (const [id, chosen] of [["first", 0], ["second", Math.min(1, rows.length - 1)]]) {
    byId(id).append(...rows.map((row, i) => element("option", { value: String(i) }, row.label)));
    byId(id).value = String(chosen);
    byId(id).addEventListener("input", drawComparison);
  }
  drawComparison();
}

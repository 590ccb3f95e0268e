// Beside the plot: all fields of the configuration that is pointed at, or that was kept by a press.

let panelRow = -1;

function drawPanel(index) {
  if (index === panelRow) return;
  panelRow = index;
  const row = rows[index];
  if (!row) {
    byId("panel").replaceChildren(element("h3", { id: "panel-title" }, "No configuration"));
    return;
  }
  const parts = [element("h3", { id: "panel-title" }, row.label)];
  if (row.note) parts.push(element("p", { className: "quiet" }, row.note));
  const figures = data.columns.map((c, i) => [c.title, cellText(row, i)]).slice(1);
  parts.push(definitions(figures.filter(([, text]) => text !== NOTHING)));
  const buttons = ["first", "second"].map((which) => {
    const button = element("button", { type: "button" }, `Compare as ${which}`);
    button.addEventListener("click", () => compareAs(which, index));
    return button;
  });
  parts.push(element("p", { className: "buttons" }, ...buttons));
  for (const [name, at] of row.records) {
    const record = data.records[at];
    const part = element("details", { className: "whole" }, element("summary", {}, `record: ${name}`));
    part.append(element("p", { className: "quiet" }, record.name));
    // its fields are many: made when they are asked for
    part.addEventListener("toggle", () => {
      if (part.open && !part.querySelector(".record")) part.append(recordElement(record, { open: data.sections }));
    });
    parts.push(part);
  }
  byId("panel").replaceChildren(...parts);
}

function startPanel() {
  onChange(() => drawPanel(state.kept ?? panelRow));
}

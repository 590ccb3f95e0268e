// Where a number comes from: a dialog with every field of the record behind it.

// Sections of a {shape, values} list: [[section, [[name, text], ...]], ...] in the order of `order`.
function sectionsOf(fields, order) {
  const found = new Map(order.map((name) => [name, []]));
  data.shapes[fields.shape].forEach(([section, name], i) => {
    if (!found.has(section)) found.set(section, []);
    found.get(section).push([name, textOf(fields.values[i])]);
  });
  return [...found];
}

function definitions(pairs) {
  const list = element("dl");
  for (const [name, text] of pairs) list.append(element("div", {}, element("dt", {}, name), element("dd", {}, text)));
  return list;
}

const NOT_PART = "not part of this measurement";

function recordElement(record, { open = [] } = {}) {
  const box = element("div", { className: "record" });
  for (const [section, pairs] of sectionsOf(record, data.sections)) {
    if (!pairs.length) {
      box.append(element("p", { className: "absent quiet" }, `${section}: ${NOT_PART}`));
      continue;
    }
    const part = element("details", {}, element("summary", {}, section), definitions(pairs));
    part.open = open.includes(section);
    box.append(part);
  }
  return box;
}

function fieldOf(record, path) {
  const names = data.shapes[record.shape];
  const wanted = path.replace(/^(key|result|info)\./, "");
  const at = names.findIndex(([, name]) => name === wanted);
  return at < 0 ? null : textOf(record.values[at]);
}

function explainCell(row, column) {
  const [text, origin, remark] = row.cells[column];
  const title = data.columns[column].title;
  const parts = [element("p", { className: "big" }, textOf(text))];
  if (remark !== undefined && remark >= 0) parts.push(element("p", {}, textOf(remark)));
  if (origin !== undefined && origin >= 0) parts.push(...originParts(row, data.origins[origin]));
  else if (remark === undefined) parts.push(element("p", {}, "This is a name, not a measurement."));
  openDialog(`${title} of ${row.label}`, parts);
}

function originParts(row, [name, field, how]) {
  const record = data.records[row.records.find(([known]) => known === name)[1]];
  const facts = [["how", how], ["record", record.name], ["field", field]];
  const value = fieldOf(record, field);
  if (value !== null) facts.push(["value in the record", value]);
  facts.push(["in a terminal", `paretopose explain ${record.name}`]);
  const open = ["code", "weights", "data", "boxes", "protocol", "machine", "command"];
  return [definitions(facts), element("h3", {}, "Origin"), recordElement(record, { open })];
}

function openDialog(title, parts) {
  const dialog = byId("explain");
  const close = element("button", { type: "button", className: "close", "aria-label": "Close" }, "×");
  close.addEventListener("click", () => dialog.close());
  const head = element("div", { className: "head" }, element("h2", { id: "explain-title" }, title), close);
  dialog.replaceChildren(head, element("div", { className: "body", tabIndex: 0, role: "document" }, ...parts));
  dialog.showModal();
}

byId("explain").addEventListener("click", (event) => {
  if (event.target === byId("explain")) byId("explain").close(); // a press beside it
});

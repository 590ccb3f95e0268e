// Persons of one configuration: where it is worst, in the middle, best.

function drawPictures() {
  const row = Number(byId("people-row").value);
  const figures = data.pictures
    .filter((p) => p.row === row)
    .map((p) => {
      const image = element("img", { src: p.src, alt: `${p.kind} case of ${rows[row].label}: ${p.caption}` });
      return element("figure", {}, image, element("figcaption", {}, element("b", {}, p.kind), ` ${p.caption}`));
    });
  byId("gallery").replaceChildren(...figures);
}

function startPictures() {
  const shownRows = [...new Set(data.pictures.map((p) => p.row))];
  byId("people").hidden = !shownRows.length;
  byId("people-row").append(...shownRows.map((i) => element("option", { value: String(i) }, rows[i].label)));
  byId("people-row").addEventListener("input", drawPictures);
  if (shownRows.length) drawPictures();
}

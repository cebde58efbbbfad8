/* The parameter explorer: shows the row of a precomputed grid that the radio buttons name. Without this script the page
   shows the whole grid as a table. */
"use strict";
(() => {
  const SVG = "http://www.w3.org/2000/svg";
  const SIZE = 340, EDGE = 64;

  const add = (parent, name, attributes, text) => {
    const made = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    if (text !== undefined) made.textContent = text;
    parent.append(made);
    return made;
  };
  const percent = (share) => `${Math.round(100 * share)} %`;

  function draw(row, top) {
    const words = row.predicted.map((risk, k) => `${["lowest", "middle", "highest"][k]} third: predicted ${percent(risk)}, observed ${percent(row.observed[k])}`);
    const picture = document.createElementNS(SVG, "svg");
    const all = { viewBox: `0 0 ${SIZE} ${SIZE}`, role: "img", "aria-label": words.join("; "), class: "book-picture" };
    for (const [key, value] of Object.entries(all)) picture.setAttribute(key, value);
    picture.style.cssText = "width: 440px; max-width: 100%; height: auto; background: #fff; color: #000";
    const inner = SIZE - EDGE - 16;
    const x = (risk) => EDGE + (inner * risk) / top;
    const y = (risk) => SIZE - EDGE - (inner * risk) / top;
    add(picture, "line", { x1: x(0), y1: y(0), x2: x(top), y2: y(top), stroke: "#6E6E6E", "stroke-dasharray": "4 3" });
    add(picture, "line", { x1: x(0), y1: y(0), x2: x(top), y2: y(0), stroke: "#000" });
    add(picture, "line", { x1: x(0), y1: y(0), x2: x(0), y2: y(top), stroke: "#000" });
    for (const tick of [0, top / 2, top]) {
      add(picture, "text", { x: x(tick), y: y(0) + 16, "text-anchor": "middle", "font-size": 12 }, percent(tick));
      add(picture, "text", { x: x(0) - 6, y: y(tick) + 4, "text-anchor": "end", "font-size": 12 }, percent(tick));
    }
    add(picture, "text", { x: x(top / 2), y: SIZE - 8, "text-anchor": "middle", "font-size": 13 }, "predicted risk");
    const side = add(picture, "text", { x: 0, y: 0, "text-anchor": "middle", "font-size": 13, transform: `translate(12 ${y(top / 2)}) rotate(-90)` }, "observed risk");
    side.setAttribute("dominant-baseline", "middle");
    row.predicted.forEach((risk, k) => {
      add(picture, "circle", { cx: x(Math.min(risk, top)), cy: y(Math.min(row.observed[k], top)), r: 6 + 2 * k, fill: "#0072B2", "fill-opacity": 0.75, stroke: "#000" });
      add(picture, "text", { x: x(Math.min(risk, top)) + 12 + 2 * k, y: y(Math.min(row.observed[k], top)) + 4, "font-size": 12 }, ["low", "middle", "high"][k]);
    });
    return picture;
  }

  function start(form) {
    const rows = JSON.parse(document.querySelector(".book-explorer-data").textContent);
    const figure = document.querySelector(".book-explorer-figure");
    const top = Math.ceil(10 * Math.max(...rows.flatMap((row) => [...row.predicted, ...row.observed]))) / 10;
    const update = () => {
      const chosen = Object.fromEntries(new FormData(form));
      const row = rows.find((one) => Object.entries(chosen).every(([name, value]) => String(one[name]) === value));
      if (!row) return;
      figure.querySelector(".book-explorer-picture").replaceChildren(draw(row, top));
      figure.querySelector("figcaption").textContent =
        `Uno's C ${row.c.toFixed(2)} (SD over splits ${row.c_sd.toFixed(2)}), age alone ${row.age.toFixed(2)}; ` +
        `${Math.round(row.events)} events among ${row.patients} test patients within ${row.years} years; ` +
        `${row.parameters.toLocaleString("en")} parameters.`;
    };
    form.hidden = figure.hidden = false;
    document.querySelector(".book-explorer-all")?.removeAttribute("open");
    form.addEventListener("change", update);
    form.addEventListener("submit", (event) => event.preventDefault());
    update();
  }

  document.addEventListener("DOMContentLoaded", () => document.querySelectorAll("form.book-explorer").forEach(start));
})();

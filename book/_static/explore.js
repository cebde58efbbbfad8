/* Figures whose points have names (txtlib.figures.show): search, arrow keys, and the text of a point below the box.
   Everything but the search works without this script. */
"use strict";
(() => {
  const MOST = 5; // texts written out where a name stands for several points

  function explore(figure) {
    const points = [...figure.querySelectorAll(".book-point")];
    const box = figure.querySelector(".book-search");
    const input = box.querySelector("input");
    const output = box.querySelector("output");
    const textOf = (point) => point.getAttribute("aria-label");
    const write = (found) => {
      const more = found.length > MOST ? ` and ${found.length - MOST} more` : "";
      output.textContent = found.slice(0, MOST).map(textOf).join("; ") + more;
    };

    function find() {
      const wanted = input.value.trim().toLowerCase();
      const named = (test) => points.filter((point) => test(point.dataset.name.toLowerCase()));
      const exact = wanted ? named((name) => name === wanted) : [];
      const found = exact.length || !wanted ? exact : named((name) => name.startsWith(wanted));
      points.forEach((point) => point.classList.toggle("found", found.includes(point)));
      write(found);
      if (wanted && !found.length) output.textContent = "No point of that name is in this picture.";
    }

    function step(event) {
      const by = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
      const at = points.indexOf(document.activeElement);
      if (!by || at < 0) return;
      event.preventDefault();
      const next = points[(at + by + points.length) % points.length];
      points[at].setAttribute("tabindex", "-1");
      next.setAttribute("tabindex", "0");
      next.focus();
    }

    input.addEventListener("input", find);
    figure.addEventListener("keydown", step);
    points.forEach((point) => {
      point.addEventListener("focus", () => write([point]));
      point.addEventListener("click", () => write([point]));
    });
    box.hidden = false;
  }

  const start = () => document.querySelectorAll(".book-search").forEach((box) => explore(box.closest("figure")));
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", start);
  else start();
})();

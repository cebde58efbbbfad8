/* Filters of the results ledger: by word and by verdict. A row that spans several results is shown if one of them fits.
   Without this script the ledger is whole. */
"use strict";
(() => {
  /* Rows that belong together: those under a first cell that spans them. */
  function blocks(table) {
    const found = [];
    let left = 0;
    for (const row of table.tBodies[0].rows) {
      if (left > 0) found.at(-1).push(row);
      else {
        found.push([row]);
        left = Math.max(...[...row.cells].map((cell) => cell.rowSpan));
      }
      left -= 1;
    }
    return found;
  }

  function start(form) {
    const tables = [...document.querySelectorAll(".ledger table")].filter((table) => table.querySelector(".verdict"));
    const parts = tables.map((table) => ({ table, rows: blocks(table) }));
    const output = form.querySelector("output");
    const update = () => {
      const word = form.elements.word.value.trim().toLowerCase();
      const verdict = form.elements.verdict.value;
      let shown = 0, all = 0;
      for (const { table, rows } of parts) {
        let some = false;
        for (const block of rows) {
          const text = block.map((row) => row.textContent).join(" ").toLowerCase();
          const verdicts = block.flatMap((row) => [...row.querySelectorAll(".verdict")].map((one) => one.textContent));
          const fits = text.includes(word) && (!verdict || verdicts.includes(verdict));
          for (const row of block) row.hidden = !fits;
          some ||= fits;
          shown += fits;
          all += 1;
        }
        table.closest(".ledger").hidden = !some;
      }
      output.textContent = `${shown} of ${all} rows`;
    };
    form.hidden = false;
    form.addEventListener("input", update);
    form.addEventListener("submit", (event) => event.preventDefault());
    form.addEventListener("reset", () => setTimeout(update));
    update();
  }

  document.addEventListener("DOMContentLoaded", () => document.querySelectorAll("form.ledger-filter").forEach(start));
})();

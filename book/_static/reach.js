/* What scrolls sideways can be reached with the keyboard while there is something to scroll; the theme sees to code and
   outputs only when a window changes its size. A reference is an item of its list: the role that docutils gives it is
   deprecated, and lists may not hold it. */
"use strict";
(() => {
  const BOXES = ".book-scroll, .ledger, .pst-scrollable-table-container, .cell_output > .output";

  function reach(box) {
    const scrolls = box.scrollWidth > box.clientWidth || box.scrollHeight > box.clientHeight;
    if (scrolls) box.setAttribute("tabindex", "0");
    else box.removeAttribute("tabindex");
  }

  function start() {
    const sizes = new ResizeObserver((seen) => seen.forEach(({ target }) => reach(target)));
    document.querySelectorAll(BOXES).forEach((box) => sizes.observe(box));
    document.querySelectorAll('[role="doc-biblioentry"]').forEach((entry) => entry.setAttribute("role", "listitem"));
  }

  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", start);
  else start();
})();

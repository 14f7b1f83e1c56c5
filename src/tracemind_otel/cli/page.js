"use strict";
for (const table of document.querySelectorAll("table.sums")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => head.querySelector("button").addEventListener("click", () => {
    const descending = head.getAttribute("aria-sort") !== "descending" && column > 0 ||
      head.getAttribute("aria-sort") === "ascending";
    for (const other of heads) other.setAttribute("aria-sort", "none");
    head.setAttribute("aria-sort", descending ? "descending" : "ascending");
    const key = (row) => column ? Number(row.cells[column].dataset.value) : row.cells[0].textContent;
    const sign = descending ? -1 : 1;
    const rows = [...table.tBodies[0].rows].sort((a, b) => (key(a) < key(b) ? -1 : key(a) > key(b) ? 1 : 0) * sign);
    table.tBodies[0].append(...rows);
  }));
}
for (const table of document.querySelectorAll("table.trace")) {
  const rows = [...table.tBodies[0].rows];
  const depth = (row) => Number(row.dataset.depth);
  const show = () => {
    let hiddenBelow = Infinity;
    for (const row of rows) {
      if (depth(row) <= hiddenBelow) hiddenBelow = Infinity;
      row.hidden = depth(row) > hiddenBelow;
      const button = row.querySelector("button");
      if (!row.hidden && button && button.getAttribute("aria-expanded") === "false") hiddenBelow = depth(row);
    }
  };
  rows.forEach((row, index) => {
    if (index + 1 >= rows.length || depth(rows[index + 1]) <= depth(row)) return;
    const button = document.createElement("button");
    button.type = "button";
    button.className = "toggle";
    button.setAttribute("aria-expanded", "true");
    button.setAttribute("aria-label", "Show or hide what is below");
    button.textContent = "\u25be";
    button.addEventListener("click", () => {
      const open = button.getAttribute("aria-expanded") !== "true";
      button.setAttribute("aria-expanded", String(open));
      button.textContent = open ? "\u25be" : "\u25b8";
      show();
    });
    row.cells[0].prepend(button);
  });
}

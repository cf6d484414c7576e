"use strict";
// Tables sort by a click on a column's head: by number where the cells begin with one, else by text.
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => head.addEventListener("click", () => {
    const down = head.getAttribute("aria-sort") === "descending";
    heads.forEach((other) => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", down ? "ascending" : "descending");
    const value = (row) => row.cells[column] ? row.cells[column].textContent.trim() : "";
    const number = (row) => parseFloat(value(row).replace(/^[≤<]\s*/, ""));
    const body = table.tBodies[0];
    const compare = (a, b) => {
      const [x, y] = [number(a), number(b)];
      if (Number.isNaN(x) && Number.isNaN(y)) return (down ? 1 : -1) * value(a).localeCompare(value(b));
      if (Number.isNaN(x) || Number.isNaN(y)) return Number.isNaN(x) ? 1 : -1;  // what has no number comes last
      return down ? x - y : y - x;
    };
    [...body.rows].sort(compare).forEach((row) => body.append(row));
  }));
}
addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((one) => { one.open = true; }));

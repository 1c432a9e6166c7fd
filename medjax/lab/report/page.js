"use strict";

// A number, a word, or nothing, which comes last.
const keyOf = (cell) =>
  cell.dataset.value !== undefined ? Number(cell.dataset.value) : cell.classList.contains("number") ? null : cell.textContent;

const compare = (a, b, sign) => {
  if (a === null || b === null) return (a === null) - (b === null);
  return sign * (typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), "en", { numeric: true }));
};

const makeSortable = (table) => {
  const headers = [...table.tHead.rows[0].cells];
  headers.forEach((header, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...header.childNodes);
    header.append(button);
    button.addEventListener("click", () => {
      const order = header.ariaSort === "ascending" ? "descending" : "ascending";
      headers.forEach((other) => other.removeAttribute("aria-sort"));
      header.setAttribute("aria-sort", order);
      const sign = order === "ascending" ? 1 : -1;
      const rows = [...table.tBodies[0].rows].map((row) => [keyOf(row.cells[column]), row]);
      rows.sort(([a], [b]) => compare(a, b, sign));
      table.tBodies[0].append(...rows.map(([, row]) => row));
    });
  });
};

const makeFilterable = (table) => {
  const rows = [...table.tBodies[0].rows];
  const line = document.createElement("div");
  const label = document.createElement("label");
  const input = document.createElement("input");
  const count = document.createElement("output");
  line.className = "filter";
  input.type = "search";
  label.append("Only rows with ", input);
  line.append(label, count);
  input.addEventListener("input", () => {
    const words = input.value.toLowerCase().split(/\s+/);
    rows.forEach((row) => {
      const text = [...row.cells].map((cell) => cell.textContent.toLowerCase()).join("\n");
      row.hidden = !words.every((word) => text.includes(word));
    });
    count.value = input.value.trim() ? `${rows.filter((row) => !row.hidden).length} of ${rows.length}` : "";
  });
  table.closest(".table").prepend(line);
};

const FEW_ROWS = 5;
for (const table of document.querySelectorAll(".table table")) {
  if (table.tBodies[0].rows.length > 1) makeSortable(table);
  if (table.tBodies[0].rows.length > FEW_ROWS) makeFilterable(table);
}

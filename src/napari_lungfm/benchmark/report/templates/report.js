"use strict";
// Sort tables by a click on a heading; undefined values stay at the end.
function sortBy(heading) {
  const table = heading.closest("table");
  const body = table.tBodies[0];
  const index = [...heading.parentNode.children].indexOf(heading);
  const down = heading.getAttribute("aria-sort") !== "descending";
  for (const other of heading.parentNode.children) other.removeAttribute("aria-sort");
  heading.setAttribute("aria-sort", down ? "descending" : "ascending");
  const text = heading.dataset.sort === "text";
  const value = (row) => {
    const cell = row.cells[index];
    return text ? cell.textContent.trim() : parseFloat(cell.dataset.v);
  };
  const rows = [...body.rows];
  rows.sort((a, b) => {
    const x = value(a), y = value(b);
    if (text) return (down ? 1 : -1) * x.localeCompare(y, undefined, { numeric: true });
    if (isNaN(x) || isNaN(y)) return isNaN(x) - isNaN(y);
    return (down ? -1 : 1) * (x - y);
  });
  rows.forEach((row) => row.classList.remove("group"));
  body.append(...rows);
}
for (const heading of document.querySelectorAll("th[data-sort]")) {
  heading.tabIndex = 0;
  heading.addEventListener("click", () => sortBy(heading));
  heading.addEventListener("keydown", (event) => {
    if (event.key === "Enter" || event.key === " ") { event.preventDefault(); sortBy(heading); }
  });
}
// Show only rows that hold every word.
for (const input of document.querySelectorAll("input[data-for]")) {
  const table = document.getElementById(input.dataset.for);
  input.addEventListener("input", () => {
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    for (const row of table.tBodies[0].rows) {
      const text = row.textContent.toLowerCase();
      row.hidden = !words.every((word) => text.includes(word));
    }
  });
}
// Contours on and off, panels large and small.
for (const chip of document.querySelectorAll(".chip")) {
  chip.addEventListener("click", () => {
    const on = chip.getAttribute("aria-pressed") !== "true";
    chip.setAttribute("aria-pressed", on);
    for (const path of chip.closest(".case").querySelectorAll(`path[data-r="${chip.dataset.r}"]`)) {
      path.classList.toggle("off", !on);
    }
  });
}
for (const panel of document.querySelectorAll(".panel")) {
  panel.querySelector("svg").addEventListener("click", () => panel.classList.toggle("big"));
}
// Folded parts are printed too.
window.addEventListener("beforeprint", () => {
  for (const part of document.querySelectorAll("details")) part.open = true;
});

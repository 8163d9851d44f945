// The tree of branches: a column for each branch, a row for each entry, oldest at the top. A click goes there.
import { el } from "./dom.js";

const ROW = 30, COLUMN = 18, LEFT = 14;
const SVG = "http://www.w3.org/2000/svg";

/** Columns: an entry continues its parent's column where it is the first shown child, else it opens one. */
export function layout(nodes) {
  const rows = [...nodes].sort((a, b) => a.lamport - b.lamport || (a.id < b.id ? -1 : 1));
  const place = new Map(rows.map((node, index) => [node.id, { row: index, column: -1, node }]));
  const ends = [];  // for each column the id of the entry that it ends with
  for (const node of rows) {
    const parents = node.parents.filter((id) => place.has(id));
    const at = place.get(node.id);
    const mine = parents.find((id) => ends[place.get(id).column] === id);
    if (mine !== undefined) at.column = place.get(mine).column;
    else {
      at.column = ends.findIndex((id) => id === undefined);
      if (at.column < 0) at.column = ends.length;
    }
    ends[at.column] = node.id;
    for (const id of parents) {
      const other = place.get(id).column;
      if (other !== at.column && ends[other] === id && parents.length > 1) ends[other] = undefined;  // branches that meet
    }
  }
  return place;
}

export function treeElement({ nodes, left_out }, select) {
  const place = layout(nodes);
  const columns = Math.max(1, ...[...place.values()].map((at) => at.column + 1));
  const x = (at) => LEFT + at.column * COLUMN, y = (at) => 16 + at.row * ROW;
  const svg = document.createElementNS(SVG, "svg");
  const width = LEFT * 2 + (columns - 1) * COLUMN;
  svg.setAttribute("width", width);
  svg.setAttribute("height", nodes.length * ROW + 8);
  svg.setAttribute("aria-hidden", "true");
  const draw = (name, attributes) => {
    const made = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    svg.append(made);
  };
  for (const at of place.values()) {
    for (const id of at.node.parents) {
      const from = place.get(id);
      if (!from) continue;
      const bend = x(from) === x(at) ? "" : `C${x(from)} ${y(from) + ROW / 2} ${x(at)} ${y(from) + ROW / 2} ${x(at)} ${y(from) + ROW} `;
      draw("path", { d: `M${x(from)} ${y(from)} ${bend}V${y(at)}`, class: at.node.shown && from.node.shown ? "edge shown" : "edge" });
    }
  }
  for (const at of place.values()) draw("circle", { cx: x(at), cy: y(at), r: 5, class: `node ${at.node.role}${at.node.shown ? " shown" : ""}` });
  const list = el("ol", { class: "tree-rows" }, ...[...place.values()].sort((a, b) => a.row - b.row).map((at) =>
    el("li", {}, el("button", { type: "button", class: at.node.shown ? "shown" : "", title: at.node.words,
      onclick: () => select(at.node) }, at.node.words || `(${at.node.role})`))));
  const whole = el("div", { class: "tree-body" }, svg, list);
  return el("div", {}, left_out > 0 && el("p", { class: "quiet" }, `${left_out} older entries are left out here.`), whole);
}

// Questions to a person, in the page's one dialog. Escape always means no.
import { $, el } from "./dom.js";

function ask(title, content, buttons, first) {
  const dialog = $("dialog");
  return new Promise((done) => {
    const end = (value) => { dialog.close(); done(value); };
    dialog.oncancel = () => done(null);
    const row = el("div", { class: "row end" }, ...buttons.map(([label, kind, value]) =>
      el("button", { type: "button", class: kind, onclick: () => end(value()) }, label)));
    dialog.replaceChildren(el("h2", { id: "dialog-title" }, title), ...content, row);
    dialog.showModal();
    first?.focus();
    first?.select?.();
  });
}

/** Text from a person, or null. */
export function askText(title, value, { label = "Text", send = "Save", long = true } = {}) {
  const input = long ? el("textarea", { rows: 8, "aria-label": label }) : el("input", { type: "text", "aria-label": label });
  input.value = value;
  input.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (!long || event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      $("dialog").querySelector("button.primary").click();
    }
  });
  return ask(title, [input], [["Cancel", "", () => null], [send, "primary", () => input.value]], input);
}

/** Whether a person means it. `list`: lines to show, with boxes where `choose`; resolves to the chosen ones, or null. */
export function confirm(title, text, { send = "Yes", list = [], choose = false } = {}) {
  const boxes = list.map((line) => [el("input", { type: "checkbox" }), line]);
  const shown = boxes.map(([box, line]) => el("li", {}, choose ? el("label", {}, box, " ", line) : line));
  const content = [el("p", {}, text)];
  if (shown.length) content.push(el("ul", { class: "lines" }, ...shown));
  const chosen = () => boxes.map(([box], index) => (box.checked ? index : -1)).filter((index) => index >= 0);
  return ask(title, content, [["Cancel", "", () => null], [send, "danger", chosen]]);
}

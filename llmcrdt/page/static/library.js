// The side: the library's conversations, and what a search finds.
import { $, el, tell, when } from "./dom.js";
import { get } from "./api.js";

export class Library {
  constructor(open) {
    this.open = open;
    this.rows = [];
    this.current = null;
    this.asked = 0;
    $("search").addEventListener("input", () => this.search());
    $("archived").addEventListener("change", () => this.show());
    $("list").addEventListener("keydown", (event) => this.walk(event));
  }

  update(conversations) {
    this.rows = conversations;
    if (!$("search").value.trim()) this.show();
  }

  choose(id) {
    this.current = id;
    for (const button of $("list").querySelectorAll("button")) button.setAttribute("aria-current", String(button.dataset.id === id));
  }

  title(id) {
    return this.rows.find((row) => row.id === id)?.title ?? "";
  }

  has(id) {
    return this.rows.some((row) => row.id === id);
  }

  show() {
    const rows = this.rows.filter((row) => $("archived").checked || !row.archived);
    $("list").replaceChildren(...rows.map((row) => el("li", {}, el("button", {
      type: "button", data: { id: row.id }, "aria-current": String(row.id === this.current), onclick: () => this.open(row.id),
    }, el("span", { class: "line" }, row.title || "Untitled"), el("span", { class: "quiet" }, when(row.created_at) + (row.archived ? " · archived" : "") + (row.local ? " · local" : ""))))));
    if (!rows.length) $("list").append(el("li", { class: "quiet pad" }, "No conversation yet."));
  }

  async search() {
    const text = $("search").value.trim(), asked = ++this.asked;
    if (!text) return this.show();
    await new Promise((done) => setTimeout(done, 150));
    if (asked !== this.asked) return;
    try {
      const { hits, unread } = await get("/api/search?text=" + encodeURIComponent(text));
      if (asked !== this.asked) return;
      $("list").replaceChildren(...hits.map((hit) => el("li", {}, el("button", {
        type: "button", data: { id: hit.conversation }, onclick: () => this.open(hit.conversation, hit.entry),
      }, el("span", { class: "line" }, hit.title || "Untitled"), el("span", { class: "quiet" }, hit.snippet + (hit.shown ? "" : " · not shown"))))));
      if (!hits.length) $("list").append(el("li", { class: "quiet pad" }, "Nothing holds all these words."));
      if (unread) $("list").append(el("li", { class: "quiet pad" }, `${unread} conversations are still being read.`));
    } catch (error) {
      tell(error);
    }
  }

  walk(event) {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (!step) return;
    const buttons = [...$("list").querySelectorAll("button")];
    buttons[buttons.indexOf(document.activeElement) + step]?.focus();
    event.preventDefault();
  }
}

// The field in which a person writes. Half-typed words stay with their conversation, also when the page is loaded again.
import { $, bytes, el, tried } from "./dom.js";
import { post, upload } from "./api.js";

export class Composer {
  constructor(current) {
    this.current = current;  // the conversation's view that is open
    this.files = [];
    const text = $("composer-text");
    text.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && !event.shiftKey && !event.isComposing) { event.preventDefault(); this.send(); }
    });
    text.addEventListener("input", () => { this.keep(); this.typing(); this.grow(); });
    $("composer").addEventListener("submit", (event) => { event.preventDefault(); this.send(); });
    $("attach").addEventListener("click", () => $("file").click());
    $("file").addEventListener("change", () => { this.add($("file").files); $("file").value = ""; });
    text.addEventListener("paste", (event) => { if (event.clipboardData.files.length) { event.preventDefault(); this.add(event.clipboardData.files); } });
    document.addEventListener("dragover", (event) => event.preventDefault());
    document.addEventListener("drop", (event) => { event.preventDefault(); if (this.current()) this.add(event.dataTransfer.files); });
  }

  key() { return "llmcrdt-draft-" + this.current()?.id; }

  keep() { sessionStorage.setItem(this.key(), $("composer-text").value); }

  open() {
    $("composer").hidden = !this.current();
    $("composer-text").value = sessionStorage.getItem(this.key()) ?? "";
    this.files = [];
    this.showFiles();
    this.grow();
  }

  grow() {
    const text = $("composer-text");
    text.style.height = "auto";
    text.style.height = Math.min(240, text.scrollHeight + 2) + "px";
  }

  add(files) {
    this.files.push(...files);
    this.showFiles();
  }

  showFiles() {
    $("files").replaceChildren(...this.files.map((file, index) => el("li", {}, `${file.name}, ${bytes(file.size)} `,
      el("button", { type: "button", "aria-label": "Remove " + file.name, onclick: () => { this.files.splice(index, 1); this.showFiles(); } }, "×"))));
  }

  typing() {
    const view = this.current();
    if (!view || this.told) return;
    this.told = setTimeout(() => { this.told = null; post(view.path + "/typing", { typing: false }).catch(() => {}); }, 4000);
    post(view.path + "/typing", { typing: true }).catch(() => {});
  }

  async send() {
    const view = this.current(), box = $("composer-text"), text = box.value, note = $("note").checked, model = $("model").value;
    if (!view || this.sending || (!text.trim() && !this.files.length)) return;
    this.sending = true;
    $("send").disabled = true;
    try {
      const done = this.files.length ? await this.sendFiles(view, text, note, model) : await view.say(text, { note, model });
      if (done) {
        if (box.value === text) box.value = "";
        this.keep();
        this.grow();
        view.toEnd();
      }
    } finally {
      this.sending = false;
      $("send").disabled = false;
    }
  }

  sendFiles(view, text, note, model) {
    return tried(async () => {
      while (this.files.length) {
        const [file] = this.files, lastOne = this.files.length === 1;
        const query = new URLSearchParams({ name: file.name });
        if (lastOne && text.trim()) query.set("text", text);
        if (lastOne && !note) { query.set("ask", "1"); query.set("model", model); }
        await upload(`${view.path}/attach?${query}`, file);
        this.files.shift();
        this.showFiles();
      }
      await view.read();
      return true;
    });
  }
}

// One conversation: the window of turns that is shown, kept in step with the document, and what a person does with it.
import { $, el, tell, tried } from "./dom.js";
import { follow, get, post, Refused } from "./api.js";
import { askText, confirm } from "./dialogs.js";
import { bar, detailElement, turnElement } from "./turn.js";
import { treeElement } from "./tree.js";

const FIRST = 60, STEP = 100;

export class ConversationView {
  constructor(id, { models, gone, opened, model }) {
    this.id = id;
    this.path = `/api/conversations/${encodeURIComponent(id)}`;
    this.models = models;
    this.gone = gone;
    this.opened = opened;
    this.model = model;
    this.last = FIRST;
    this.shown = new Map();     // entry -> its turn as JSON text
    this.arrived = new Set();   // what a merge brought while this was open
    this.back = [];             // tips that were shown before a branch was chosen
    this.ending = new AbortController();
    this.reading = null;
    this.stretches = new Map();
  }

  async start(entry) {
    await this.read();
    this.toEnd();
    if (entry) await this.goTo(entry);
    follow(this.path + "/changes", this.ending.signal, (line) => this.heard(line), (on, error) => {
      if (error) this.end(error);
      document.body.classList.toggle("away-from-server", !on);
      if (on) this.read().catch(() => {});
    });
  }

  close() {
    this.ending.abort();
  }

  end(error) {
    this.close();
    this.gone(error);
  }

  heard(line) {
    if (line.type === "gone") return this.end(new Error(line.error));
    for (const id of line.arrived ?? []) this.arrived.add(id);
    if (line.type === "moved") this.readSoon();
    if (line.type === "turns") {
      const atEnd = this.isAtEnd();
      for (const turn of line.turns) this.put(turn);
      if (atEnd) this.toEnd();
      if (line.turns.some((turn) => turn.status !== "streaming")) this.readCache();
    }
  }

  readSoon() {
    this.read().catch((error) => this.failed(error));
  }

  failed(error) {
    if (this.ending.signal.aborted) return;
    if (error instanceof Refused && [404, 410].includes(error.status)) this.end(error);
    else tell(error);
  }

  /** Read the window again. Calls that come meanwhile wait for one more look, which sees what they mean. */
  async read() {
    this.again = true;
    this.reading ??= this.readWhileAsked().finally(() => { this.reading = null; });
    return this.reading;
  }

  async readWhileAsked() {
    while (this.again) {
      this.again = false;
      await this.readOnce();
    }
  }

  async readOnce() {
    const window = await get(`${this.path}?last=${this.last}`, this.ending.signal);
    if (this.ending.signal.aborted) return;
    const atEnd = this.isAtEnd();
    $("title").textContent = window.title || "Untitled";
    document.title = (window.title || "Untitled") + " · llmcrdt";
    $("older").hidden = !window.more;
    this.window = window;
    this.place(window.turns);
    this.showEmpty(window);
    this.showAsks(window.asks);
    $("present").textContent = window.present.map((other) =>
      (other.author || "somebody") + (other.generating ? ` answers with ${other.generating}` : other.typing ? " is writing" : "")).join(", ");
    if (atEnd) this.toEnd();
    this.readCache();
    if (!$("tree").hidden) this.readTree();
  }

  /** Bring the list of turns into this order; only what says something else is built anew. */
  place(turns) {
    const wanted = new Set(turns.map((turn) => turn.id)), log = $("log");
    for (const child of [...log.children]) {
      if (!wanted.has(child.dataset.id)) { child.remove(); this.shown.delete(child.dataset.id); }
    }
    turns.forEach((turn, index) => {
      const made = this.put(turn) ?? this.build(turn);
      if (log.children[index] !== made) log.insertBefore(made, log.children[index] ?? null);
    });
  }

  build(turn) {
    this.shown.set(turn.id, JSON.stringify(turn));
    return turnElement(turn, this.does(), { arrived: this.arrived.has(turn.id) });
  }

  /** Show a turn as it is now, where it stands already. */
  put(turn) {
    const there = document.getElementById("turn-" + turn.id);
    if (!there) return null;
    const text = JSON.stringify(turn);
    if (this.shown.get(turn.id) === text && there.classList.contains("new") === this.arrived.has(turn.id)) return there;
    const open = [...there.querySelectorAll(":scope > .parts > details[open] > summary")].map((each) => each.textContent);
    const focused = there.contains(document.activeElement);
    const made = this.build(turn);
    made.classList.toggle("new", this.arrived.has(turn.id));
    for (const each of made.querySelectorAll(":scope > .parts > details")) each.open ||= open.includes(each.querySelector("summary").textContent);
    const detail = there.querySelector(":scope > .detail:not([hidden])");
    if (detail) {
      made.querySelector(":scope > .detail").replaceWith(detail);
      made.querySelector(".fold").setAttribute("aria-expanded", "true");
    }
    there.replaceWith(made);
    if (focused) made.focus({ preventScroll: true });
    return made;
  }

  showEmpty(window) {
    const place = $("empty");
    place.hidden = window.turns.length > 0;
    place.replaceChildren(el("h2", {}, "Nothing was said here yet"),
      el("p", {}, this.models.length ? `${this.models.join(", ")} answers on this machine.`
        : "No model runs on this machine. Your question waits here until a worker answers it, on whatever device (llmcrdt serve)."));
  }

  showAsks(asks) {
    const words = {
      waiting: "Waits for a model", taken: "A worker has taken it", streaming: "An answer is being written",
      outdated: "Not answered: something else was said meanwhile",
    };
    $("asks").replaceChildren(...asks.filter((ask) => ask.state !== "outdated" && !(ask.state === "streaming" && this.shown.has(ask.answer))).map((ask) => {
      const over = ask.state === "failed";
      return el("div", { class: "ask " + ask.state }, over ? `No answer: ${ask.text || ask.code}` : words[ask.state], ask.model ? ` (${ask.model})` : "", " ",
        over ? el("button", { type: "button", onclick: () => this.act("ask") }, "Ask again")
          : el("button", { type: "button", onclick: () => this.act("stop", { ask: ask.id }) }, "Cancel"));
    }));
  }

  readCache() {
    if (this.cacheAsked || !this.models.length) return;
    this.cacheAsked = setTimeout(async () => {
      this.cacheAsked = null;
      try {
        const cache = await get(this.path + "/cache", this.ending.signal);
        this.stretches = new Map();
        for (const { entry, tokens, cached } of cache.stretches) {
          if (!entry) continue;
          const before = this.stretches.get(entry) ?? { tokens: 0, cached: 0 };
          this.stretches.set(entry, { tokens: before.tokens + tokens, cached: before.cached + cached });
        }
        $("cache").hidden = !cache.total && !cache.why;
        $("cache").replaceChildren(...cache.why ? [cache.why] : [bar(cache.cached, cache.total), ` The KV cache holds ${cache.cached} of the next prompt's ${cache.total} tokens.`]);
      } catch { $("cache").hidden = true; }
    }, 400);
  }

  async readTree() {
    const tree = await get(this.path + "/tree", this.ending.signal);
    $("tree").replaceChildren(el("h2", {}, "Branches"), treeElement(tree, (node) => this.choose(node)));
  }

  isAtEnd() {
    const place = $("turns");
    return place.scrollHeight - place.scrollTop - place.clientHeight < 80;
  }

  toEnd() {
    $("turns").scrollTop = $("turns").scrollHeight;
  }

  async older() {
    const place = $("turns"), height = place.scrollHeight;
    this.last += STEP;
    await this.read();
    place.scrollTop += place.scrollHeight - height;
  }

  async goTo(entry) {
    while (!document.getElementById("turn-" + entry) && this.window.more && this.last < 2000) {
      this.last = Math.min(2000, this.last * 4);
      await this.read();
    }
    let found = document.getElementById("turn-" + entry);
    if (!found) {
      await this.choose({ id: entry, shown: false });
      found = document.getElementById("turn-" + entry);
    }
    found?.scrollIntoView({ block: "center" });
    found?.focus({ preventScroll: true });
    found?.classList.add("found");
  }

  async act(name, given = {}) {
    return tried(async () => {
      const done = await post(`${this.path}/${name}`, given);
      await this.read();
      return done;
    });
  }

  /** Show a branch, and remember the one that was shown. */
  async choose(node) {
    if (!node.shown) {
      const tip = this.window.turns.at(-1)?.id;
      if (await this.act("select", { entry: node.id })) {
        if (tip) this.back.push(tip);
        $("back").hidden = !this.back.length;
      }
    }
    document.getElementById("turn-" + node.id)?.scrollIntoView({ block: "center" });
  }

  async goBack() {
    const tip = this.back.pop();
    $("back").hidden = !this.back.length;
    if (tip) await this.act("select", { entry: tip });
  }

  say(text, { note, model }) {
    return this.act("say", { text, ask: !note, model });
  }

  does() {
    return this.done ??= {
      select: (id) => this.choose({ id, shown: false }),
      stop: (turn) => this.act("stop", { entry: turn.id }),
      seal: (turn) => this.act("seal", { entry: turn.id }),
      again: (turn) => this.act("ask", { entry: turn.id, model: this.model() }),
      copy: (turn) => tried(() => navigator.clipboard.writeText(turn.parts.map((part) => part.text ?? "").join(""))),
      edit: async (turn) => {
        const before = turn.parts.filter((part) => part.type === "text").map((part) => part.text).join("");
        const text = await askText(turn.role === "user" ? "Say it in other words" : "Edit", before, { send: turn.role === "user" ? "Send" : "Save" });
        if (text !== null && text !== before) await this.act("edit", { entry: turn.id, text, model: this.model() });
      },
      fork: async (turn) => {
        const made = await this.act("fork", { entry: turn.id, title: `${this.window.title || "Untitled"} (fork)` });
        if (made) this.opened(made.conversation);
      },
      erase: (turn) => this.erase(turn),
      fetch: async (hash, told) => {
        for (let far = {}; !far.here;) told(far = await post(this.path + "/fetch", { hash }));
      },
      detail: (turn) => tried(async () => {
        const place = document.getElementById("detail-" + turn.id);
        place.hidden = !place.hidden;
        place.closest(".turn").querySelector(".fold").setAttribute("aria-expanded", String(!place.hidden));
        if (place.hidden) return;
        const detail = await post(this.path + "/detail", { entry: turn.id });
        place.replaceChildren(detailElement(detail, this.stretches.get(turn.id)));
      }),
    };
  }

  async erase(turn) {
    const sure = await confirm("Erase these words?", "They go for good, from every device and the relay. The place of the entry stays.", { send: "Erase" });
    if (!sure) return;
    const erased = await this.act("erase", { entry: turn.id });
    if (!erased?.still_held.length) return;
    const names = { alternative: "another version", summary: "a summary", entry: "another entry", copy: "a copy elsewhere" };
    const chosen = await confirm("Other places still hold the words", "Choose those that are to be erased as well.",
      { send: "Erase these", choose: true, list: erased.still_held.map((held) => `${names[held.kind]}: ${held.words}`) });
    if (chosen?.length) await this.act("erase", { entry: turn.id, also: chosen.map((index) => erased.still_held[index]) });
  }
}

// The page: which conversation is open, the side, the relay's state, keys.
import { $, el, tell, tried } from "./dom.js";
import { follow, get, post, takeToken } from "./api.js";
import { askText, confirm } from "./dialogs.js";
import { Composer } from "./composer.js";
import { ConversationView } from "./conversation.js";
import { Library } from "./library.js";

let view = null, models = [];
const composer = new Composer(() => view);
const library = new Library(open);

const LINK = { none: "no relay", connecting: "connecting", online: "online", offline: "offline", closed: "offline" };

function showLink(link) {
  const place = $("link");
  place.className = "badge " + link.state;
  const waiting = link.waiting > 0 ? `, ${link.waiting} to send` : "";
  place.textContent = (LINK[link.state] ?? link.state) + waiting;
  place.title = link.error ?? (link.state === "none" ? "This device keeps its conversations to itself." : "The relay that keeps devices in step");
}

async function open(id, entry) {
  if (view?.id === id) return entry ? tried(() => view.goTo(entry)) : undefined;
  view?.close();
  clear();
  view = new ConversationView(id, {
    models, opened: (other) => open(other), model: () => $("model").value,
    gone: (error) => { view = null; clear(); show(); tell(error); },
  });
  library.choose(id);
  document.body.classList.remove("side-open");
  $("menu").setAttribute("aria-expanded", "false");
  history.replaceState(null, "", "#conversation=" + encodeURIComponent(id));
  $("tools").hidden = false;
  composer.open();
  if (!entry) $("composer-text").focus();  // at once: a letter that is typed now is meant for it
  await tried(() => view.start(entry));
}

function clear() {
  tell(null);
  $("log").replaceChildren();
  $("asks").replaceChildren();
  $("tree").hidden = $("cache").hidden = $("older").hidden = $("back").hidden = true;
  $("tree-open").setAttribute("aria-pressed", "false");
  $("tools").hidden = true;
  $("present").textContent = "";
  $("title").textContent = "llmcrdt";
  closeMenu();
}

/** The first thing that a person sees where no conversation is open. */
function show() {
  history.replaceState(null, "", location.pathname);
  library.choose(null);
  composer.open();
  $("empty").hidden = false;
  $("empty").replaceChildren(el("h2", {}, library.rows.length ? "Choose a conversation" : "Welcome"),
    el("p", {}, "Conversations are kept on this device, and merge with your other ones. Nothing that is said is ever lost."),
    el("button", { type: "button", class: "primary", onclick: begin }, "New conversation"));
}

async function begin() {
  const made = await tried(() => post("/api/conversations", {}));
  if (made) await open(made.id);
}

// more: what is done with a whole conversation

function closeMenu() {
  $("menu-more").hidden = true;
  $("more").setAttribute("aria-expanded", "false");
}

function openMenu() {
  const archived = library.rows.find((row) => row.id === view.id)?.archived ?? false;
  const item = (label, act) => el("button", { type: "button", role: "menuitem", onclick: () => { closeMenu(); act(); } }, label);
  $("menu-more").replaceChildren(
    item("Rename", async () => {
      const title = await askText("Title", view.window.title, { long: false });
      if (title !== null) await view.act("rename", { title });
    }),
    item("Not shown", showElsewhere),
    item(archived ? "Bring back" : "Archive", () => view.act("archive", { archived: !archived })),
    ...(view.window.forked_from && library.has(view.window.forked_from)
      ? [item("Give back to its origin", async () => { const done = await view.act("adopt"); if (done) open(done.conversation); })] : []),
    item("Delete", async () => {
      if (await confirm("Delete this conversation?", "It goes from every device, for good.", { send: "Delete" })) {
        const { id } = view;
        view.close();
        view = null;
        clear();
        await tried(() => post(`/api/conversations/${id}/delete`));
        show();
      }
    }));
  $("menu-more").hidden = false;
  $("more").setAttribute("aria-expanded", "true");
  $("menu-more").querySelector("button").focus();
}

async function showElsewhere() {
  await tried(async () => {
    const { entries, of } = await get(view.path + "/elsewhere");
    const rows = entries.map((each) => el("li", {}, el("span", {}, `${each.author || each.role}: ${each.words} `),
      each.way === "withheld" && el("span", { class: "badge broken" }, "withheld: it may say what was erased"),
      each.unseen && el("span", { class: "badge" }, "not seen by whoever replaced it"),
      el("button", { type: "button", onclick: () => { dialog.close(); each.way === "withheld" ? view.act("keep", { entry: each.id }) : view.choose({ id: each.id, shown: false }); } },
        each.way === "withheld" ? "Keep" : "Show")));
    const dialog = $("dialog");
    dialog.replaceChildren(el("h2", { id: "dialog-title" }, `Not shown: ${of}`), el("ul", { class: "lines" }, ...rows),
      el("div", { class: "row end" }, el("button", { type: "button", onclick: () => dialog.close() }, "Close")));
    dialog.showModal();
  });
}

// light, dark, or as the system has it

function theme(name) {
  if (name) document.documentElement.dataset.theme = name;
  else delete document.documentElement.dataset.theme;
  localStorage.setItem("llmcrdt-theme", name);
  $("theme").textContent = { light: "Light", dark: "Dark" }[name] ?? "Theme";
}

function keys(event) {
  const writing = event.target.matches("input, textarea, select") || $("dialog").open;
  if (event.key === "Escape") { closeMenu(); document.body.classList.remove("side-open"); if (event.target === $("search")) $("composer-text").focus(); return; }
  if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "k") { event.preventDefault(); document.body.classList.add("side-open"); $("search").focus(); return; }
  if (writing || event.ctrlKey || event.metaKey || !view) return;
  const turn = document.activeElement?.closest?.(".turn");
  const go = { j: "nextElementSibling", k: "previousElementSibling" }[event.key];
  if (go) {
    const next = turn ? turn[go] : $("log").lastElementChild;
    next?.focus();
    next?.scrollIntoView({ block: "nearest" });
  } else if (turn && event.altKey === false && ["ArrowLeft", "ArrowRight"].includes(event.key)) {
    turn.querySelectorAll(".walk button")[event.key === "ArrowLeft" ? 0 : 1]?.click();
  } else if (event.key === "b") $("tree-open").click();
  else if (event.key === "/") { event.preventDefault(); $("composer-text").focus(); }
}

async function start() {
  theme(localStorage.getItem("llmcrdt-theme") ?? "");
  const wanted = new URLSearchParams(location.hash.slice(1)).get("conversation");
  try {
    if (!await takeToken()) throw new Error('Open the address that "llmcrdt open" prints: the token in it says that it is you.');
  } catch (error) {
    tell(error);
    return;
  }
  $("new").addEventListener("click", begin);
  $("older").addEventListener("click", () => tried(() => view.older()));
  $("back").addEventListener("click", () => view.goBack());
  $("more").addEventListener("click", () => ($("menu-more").hidden ? openMenu() : closeMenu()));
  $("theme").addEventListener("click", () => theme({ "": "light", light: "dark", dark: "" }[localStorage.getItem("llmcrdt-theme") ?? ""]));
  $("menu").addEventListener("click", () => $("menu").setAttribute("aria-expanded", String(document.body.classList.toggle("side-open"))));
  $("tree-open").addEventListener("click", () => {
    const showing = ($("tree").hidden = !$("tree").hidden) === false;
    $("tree-open").setAttribute("aria-pressed", String(showing));
    if (showing) tried(() => view.readTree());
  });
  document.addEventListener("keydown", keys);
  document.addEventListener("click", (event) => { if (!event.target.closest("#more, #menu-more")) closeMenu(); });

  const first = await tried(() => get("/api/library"));
  if (!first) return;
  models = first.models;
  $("model").replaceChildren(el("option", { value: "" }, "any"), ...models.map((name) => el("option", { value: name }, name)));
  $("model-label").hidden = models.length < 2;
  library.update(first.conversations);
  showLink(first.link);
  follow("/api/changes", new AbortController().signal, (line) => {
    if (line.type === "library") library.update(line.conversations);
    if (line.type === "link") showLink(line);
  }, (on) => { if (!on) showLink({ state: "offline", error: "llmcrdt open has ended, or is busy; your words stay here." }); });
  if (wanted && library.has(wanted)) await open(wanted);
  else show();
}

start();

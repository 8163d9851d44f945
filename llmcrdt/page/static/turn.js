// One entry as a turn: its words, its place among its alternatives, its buttons, and all that is known of it, folded.
import { bytes, el, sanitized, tried, when } from "./dom.js";
import { content } from "./api.js";

const ROLES = { user: "You", assistant: "Answer", system: "Instructions", tool: "Tool" };
const SYNC = { local: "on this device only", sent: "on its way", durable: "kept by the relay" };
const SIGNS = { local: "○", sent: "◐", durable: "●" };

function part(value, does) {
  switch (value.type) {
    case "text":
      return value.html === null
        ? el("pre", { class: "plain" }, value.text)
        : el("div", { class: "words" }, sanitized(value.html));
    case "reasoning":
      return el("details", { class: "reasoning" }, el("summary", {}, "Reasoning"), el("div", { class: "plain" }, value.text));
    case "tool_call":
      return el("details", { class: "call" }, el("summary", {}, `→ ${value.name}`), el("pre", {}, value.arguments));
    case "tool_result":
      return el("details", { class: "call", open: value.text.length < 400 },
        el("summary", {}, value.error ? "Result: an error" : "Result"), el("pre", {}, value.text));
    case "blob":
      return blob(value, does);
    case "config":
      return el("details", { class: "call" }, el("summary", {}, "Settings"), el("pre", {}, JSON.stringify(value.json, null, 2)));
  }
  return el("details", { class: "call" }, el("summary", {}, "Something of a newer version"), el("pre", {}, JSON.stringify(value.json, null, 2)));
}

function blob(value, does) {
  const name = value.name || value.media_type;
  if (!value.here) {
    const missing = el("button", { type: "button", class: "blob quiet", onclick: () => tried(async () => {
      missing.disabled = true;
      try {
        await does.fetch(value.hash, ({ done, size }) => { missing.textContent = `${name}: ${bytes(done)} of ${bytes(size)}`; });
        missing.replaceWith(blob({ ...value, here: true }, does));
      } finally {
        missing.disabled = false;
        missing.textContent = absent;
      }
    }) });
    const absent = `${name}, ${bytes(value.size)}: not on this device; fetch it`;
    missing.textContent = absent;
    return missing;
  }
  if (value.picture) {
    const picture = el("img", { alt: name, class: "picture" });
    content(value.hash, value.media_type).then((address) => { picture.src = address; }, () => picture.replaceWith(name));
    return picture;
  }
  return el("button", { type: "button", class: "blob", onclick: () => tried(async () => {
    el("a", { href: await content(value.hash, value.media_type), download: value.name || "attachment" }).click();
  }) }, `${name}, ${bytes(value.size)}`);
}

/** The element of a turn. `does`: what its buttons do, by name. */
export function turnElement(turn, does, { arrived = false } = {}) {
  const streaming = turn.status === "streaming";
  const head = el("div", { class: "turn-head" },
    el("span", { class: "role" }, ROLES[turn.role] ?? turn.role),
    el("span", { class: "quiet" }, [turn.summary ? "summary" : "", turn.author, turn.model && turn.model !== turn.author ? turn.model : "", when(turn.created_at)].filter(Boolean).join(" · ")),
    arrived && el("span", { class: "badge new" }, "new"),
    ["stopped", "failed", "erased"].includes(turn.status) && el("span", { class: "badge " + turn.status }, turn.status),
    el("span", { class: "sync", title: SYNC[turn.sync], "aria-label": SYNC[turn.sync], role: "img" }, SIGNS[turn.sync]));
  const body = el("div", { class: "parts" + (streaming ? " growing" : ""), "aria-busy": streaming ? "true" : undefined }, ...turn.parts.map((each) => part(each, does)));
  if (turn.status === "erased") body.replaceChildren(el("p", { class: "quiet" }, "The words were erased."));
  const buttons = el("div", { class: "turn-buttons" });
  const add = (label, act, title) => buttons.append(el("button", { type: "button", title, onclick: act }, label));
  if (turn.alternatives.length > 1) {
    const at = turn.place, of = turn.alternatives.length;
    const walk = (to) => () => does.select(turn.alternatives[(to + of) % of]);
    buttons.append(el("span", { class: "walk", role: "group", "aria-label": `Alternative ${at + 1} of ${of}` },
      el("button", { type: "button", "aria-label": "The alternative before", onclick: walk(at - 1) }, "‹"),
      `${at + 1}/${of}`,
      el("button", { type: "button", "aria-label": "The next alternative", onclick: walk(at + 1) }, "›")));
  }
  if (streaming) {
    add("Stop", () => does.stop(turn), "Stop whoever writes this");
    add("Seal", () => does.seal(turn), "End it, where its writer is gone");
  } else if (turn.status !== "erased") {
    if (turn.role !== "tool") add("Edit", () => does.edit(turn), "Say something else in its place");
    if (turn.generated) add("Again", () => does.again(turn), "Ask for another answer");
    add("Fork", () => does.fork(turn), "A new conversation that begins as this one stands here");
    add("Copy", () => does.copy(turn), "Copy the text");
    add("Erase", () => does.erase(turn), "Remove the words for good, on every device");
  }
  const detail = el("div", { class: "detail", id: "detail-" + turn.id, hidden: true });
  const fold = el("button", { type: "button", class: "fold", "aria-expanded": "false", "aria-controls": detail.id, onclick: () => does.detail(turn) },
    turn.hidden ? `Details, ${turn.hidden} hidden` : "Details");
  buttons.append(fold);
  return el("li", { class: `turn ${turn.role}`, id: "turn-" + turn.id, tabindex: "-1", data: { id: turn.id } }, head, body, buttons, detail);
}

/** Fill in the folded details of a turn. */
export function detailElement(detail, stretch) {
  const rows = [];
  const row = (name, ...value) => rows.push(el("dt", {}, name), el("dd", {}, ...value));
  row("Entry", el("code", {}, detail.id));
  if (detail.hash) row("Version", el("code", {}, detail.hash));
  if (detail.frame) {
    const { frame } = detail;
    row("Computed on", el("details", {}, el("summary", {}, `frame ${frame.hash.slice(0, 12)}…, its last ${frame.entries.length} entries${frame.assumed ? ", assumed" : ""}`),
      el("ol", { class: "frame" }, ...frame.entries.map((each) => el("li", {}, `${each.role}: ${each.words}`)))));
    if (frame.renderer) row("Rendered by", frame.renderer);
  }
  const counted = Object.entries(detail.usage).filter(([, value]) => ["number", "string"].includes(typeof value));
  if (counted.length) row("Usage", counted.map(([name, value]) => `${name} ${value}`).join(", "));
  if (stretch) {
    const { tokens, cached } = stretch;
    row("Tokens", `${tokens}, of which the KV cache holds ${cached} `, bar(cached, tokens));
  }
  for (const field of detail.hidden) {
    const bound = Object.entries(field.binding).map(([name, value]) => `${name} ${typeof value === "string" ? value : JSON.stringify(value)}`).join(", ");
    const state = field.locked ? "can't be read here" : field.holds ? "would go out" : `would not go out: ${field.why}`;
    row("Hidden field", el("div", { class: field.holds ? "" : "broken" }, el("code", {}, field.name),
      ` ${field.size === null ? "" : bytes(field.size) + ", "}${field.sealed ? "encrypted, " : ""}bound to ${bound || "nothing"}: ${state}`));
  }
  for (const name of detail.missing) row("Hidden field", el("div", { class: "broken" }, el("code", {}, name), " is not on this device"));
  if (detail.alternatives.length > 1) {
    row("Alternatives", el("ol", { class: "frame" }, ...detail.alternatives.map((each) =>
      el("li", {}, `${each.id === detail.id ? "(this one) " : ""}${each.author} ${when(each.created_at)}: ${each.words}`))));
  }
  row("JSON", el("details", {}, el("summary", {}, "raw"), el("pre", {}, JSON.stringify(detail.json, null, 2))));
  return el("dl", {}, ...rows);
}

export function bar(part, whole) {
  return el("meter", { min: 0, max: Math.max(1, whole), value: part, "aria-label": `${part} of ${whole} tokens` });
}

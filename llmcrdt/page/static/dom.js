// Small helpers to build what is shown. Text is always set as text.

/** An element: `el("button", {class: "primary", onclick: f, hidden: true}, "Send")`. */
export function el(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (key === "data") Object.assign(made.dataset, value);
    else made.setAttribute(key, value === true ? "" : String(value));
  }
  made.append(...children.filter((child) => child !== null && child !== undefined && child !== false));
  return made;
}

export const $ = (id) => document.getElementById(id);

/** HTML that the server has sanitized, as nodes. */
export function sanitized(html) {
  const template = document.createElement("template");
  template.innerHTML = html;
  return template.content;
}

export function when(seconds) {
  const date = new Date(seconds * 1000);
  if (!seconds || Number.isNaN(date.getTime())) return "";
  const today = new Date().toDateString() === date.toDateString();
  return today
    ? date.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" })
    : date.toLocaleDateString([], { year: "numeric", month: "short", day: "numeric" });
}

export function bytes(size) {
  for (const unit of ["B", "kB", "MB", "GB"]) {
    if (size < 1000 || unit === "GB") return `${unit === "B" ? size : size.toFixed(1)} ${unit}`;
    size /= 1000;
  }
}

export function tell(error) {
  const place = $("message");
  place.hidden = !error;
  place.replaceChildren();
  if (!error) return;
  place.append(String(error.message ?? error), " ", el("button", { type: "button", onclick: () => tell(null) }, "Close"));
}

/** Run something that may fail, and tell the person if it does. */
export async function tried(work) {
  try {
    tell(null);
    return await work();
  } catch (error) {
    tell(error);
  }
}

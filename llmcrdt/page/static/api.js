// The page's requests to its server. The token comes in the address's fragment, and stays in this tab alone.

const KEY = "llmcrdt-token";

export class Refused extends Error {
  constructor(status, message, hint) {
    super(hint ? `${message} ${hint}` : message);
    this.status = status;
  }
}

/** Take the token out of the address, or exchange the code in it for one, so that it stands in no history and no screenshot. */
export async function takeToken() {
  const given = new URLSearchParams(location.hash.slice(1));
  const code = given.get("code");
  let token = given.get("token");
  if (token || code) {
    given.delete("token");
    given.delete("code");
    history.replaceState(null, "", location.pathname + (given.toString() ? "#" + given : ""));
    if (!token) {
      const asked = { method: "POST", headers: { Authorization: "Code " + code } };
      token = (await (await answer(await fetch("/api/token", asked))).json()).token;
    }
    sessionStorage.setItem(KEY, token);
  }
  return sessionStorage.getItem(KEY) !== null;
}

function headers(more = {}) {
  return { Authorization: "Bearer " + (sessionStorage.getItem(KEY) ?? ""), ...more };
}

async function answer(response) {
  if (response.ok) return response;
  let told = {};
  try { told = await response.json(); } catch { /* no JSON: the status says it */ }
  throw new Refused(response.status, told.error ?? `The server answered ${response.status}.`, told.hint);
}

export async function get(path, signal) {
  return (await answer(await fetch(path, { headers: headers(), signal }))).json();
}

export async function post(path, value = {}) {
  const body = JSON.stringify(value);
  return (await answer(await fetch(path, { method: "POST", headers: headers({ "Content-Type": "application/json" }), body }))).json();
}

export async function upload(path, file) {
  const type = file.type || "application/octet-stream";
  return (await answer(await fetch(path, { method: "POST", headers: headers({ "Content-Type": type }), body: file }))).json();
}

/** The address of an attachment's content, for as long as the page is open. */
const contents = new Map();
export async function content(hash, type) {
  if (!contents.has(hash)) {
    const response = await answer(await fetch(`/api/blobs/${hash}?type=${encodeURIComponent(type)}`, { headers: headers() }));
    contents.set(hash, URL.createObjectURL(await response.blob()));
  }
  return contents.get(hash);
}

/** Call `heard` with each line of a stream, for as long as `signal` is not aborted; connect again where it breaks off. */
export async function follow(path, signal, heard, state = () => {}) {
  for (let wait = 200; !signal.aborted; wait = Math.min(5000, wait * 2)) {
    try {
      const response = await answer(await fetch(path, { headers: headers(), signal }));
      state(true);
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      for (let rest = ""; ;) {
        const { value, done } = await reader.read();
        if (done) break;
        wait = 200;
        const lines = (rest + value).split("\n");
        rest = lines.pop();
        for (const each of lines) if (each) heard(JSON.parse(each));
      }
    } catch (error) {
      if (signal.aborted) return;
      if (error instanceof Refused && error.status < 500) { state(false, error); return; }
    }
    if (signal.aborted) return;
    state(false);
    await new Promise((done) => setTimeout(done, wait));
  }
}

/** The REST API under /v1, which is all that the pages know. */

/** An answer that is no success, as its problem document says. */
export class Problem extends Error {
  constructor(status, document) {
    super(document.detail || document.title || `the service answered ${status}`);
    this.status = status;
    this.errors = document.errors ?? [];
    this.retryable = document.retryable ?? false;
  }
}

const known = new Map();

async function refused(response) {
  if (response.status === 401) location.assign(`/sign-in?next=${encodeURIComponent(location.pathname + location.search)}`);
  try {
    return new Problem(response.status, await response.json());
  } catch {
    return new Problem(response.status, { title: response.statusText });
  }
}

async function reach(url, options) {
  try {
    return await fetch(url, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem(0, { detail: "the service does not answer", retryable: true });
  }
}

/** A JSON document; asked for by its ETag where it is known, so that nothing is sent that has not changed. */
export async function get(url) {
  const before = known.get(url);
  const headers = before ? { "If-None-Match": before.etag } : {};
  const response = await reach(url, { headers, cache: "no-store" });
  if (response.status === 304) return before.document;
  if (!response.ok) throw await refused(response);
  const document = await response.json();
  const etag = response.headers.get("ETag");
  if (etag) known.set(url, { etag, document });
  return document;
}

export async function getText(url) {
  const response = await reach(url, { cache: "no-cache" });
  if (!response.ok) throw await refused(response);
  return response.text();
}

/** POST JSON, and answer the response as it is; raises Problem. */
export async function post(url, body, { signal, once = false } = {}) {
  const headers = body === undefined ? {} : { "Content-Type": "application/json" };
  if (once)
    headers["Idempotency-Key"] = [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16)).join("-");
  const response = await reach(url, {
    method: "POST",
    headers,
    body: body === undefined ? undefined : JSON.stringify(body),
    signal,
  });
  if (!response.ok) throw await refused(response);
  return response;
}

export async function remove(url) {
  const response = await reach(url, { method: "DELETE" });
  if (!response.ok) throw await refused(response);
}

/** Every item of a list, page by page, until `enough` says so. */
export async function* pages(url) {
  let cursor = null;
  do {
    const separator = url.includes("?") ? "&" : "?";
    const page = await get(cursor ? `${url}${separator}cursor=${encodeURIComponent(cursor)}` : url);
    yield* page.data;
    cursor = page.next_cursor;
  } while (cursor);
}

/**
 * Look again and again: `look` answers whether anything still moves. Quickly while it does and the page is seen, slowly else;
 * after a failure it waits longer each time. Answers a function that looks at once.
 */
export function follow(look, { quick = 1000, slow = 10000 } = {}) {
  let timer;
  let failures = 0;
  let busy = false;
  const turn = async () => {
    clearTimeout(timer);
    if (busy) return;
    busy = true;
    let moves = true;
    try {
      moves = await look();
      failures = 0;
      offline(false);
    } catch (error) {
      failures += 1;
      if (!(error instanceof Problem)) throw error;
      offline(true, error.message);
    } finally {
      busy = false;
      const pause = failures ? Math.min(quick * 2 ** failures, 30000) : moves ? quick : slow;
      timer = setTimeout(turn, document.hidden ? Math.max(pause, slow) : pause);
    }
  };
  document.addEventListener("visibilitychange", () => document.hidden || turn());
  turn();
  return turn;
}

function offline(away, words = "") {
  let bar = document.getElementById("offline");
  if (!away) return bar?.remove();
  if (!bar) {
    bar = document.createElement("p");
    bar.id = "offline";
    bar.setAttribute("role", "alert");
    document.body.prepend(bar);
  }
  const said = `What is shown may be old: ${words}. Trying again.`;
  if (bar.textContent !== said) bar.textContent = said;
}

// The server, as functions. The token is in a header, so that no other site's page can use it.

let token = "";

export class ApiError extends Error {
  constructor(status, text) {
    super(text);
    this.status = status;
  }
}

async function call(method, path, { params = {}, body, signal } = {}) {
  const query = new URLSearchParams(params).toString();
  let answer;
  try {
    answer = await fetch(`api/${path}${query ? `?${query}` : ""}`, {
      method, body, signal, headers: { "X-Fewseg-Session": token },
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0, "The server does not answer. Is fewseg serve still running?");
  }
  if (!answer.ok) {
    let text = `${answer.status} ${answer.statusText}`;
    try {
      const { detail } = await answer.json();
      text = typeof detail === "string" ? detail : detail.map((d) => `${d.loc.at(-1)}: ${d.msg}`).join("; ");
    } catch { /* not JSON: the status has to do */ }
    throw new ApiError(answer.status, text);
  }
  return answer;
}

const json = async (...given) => (await call(...given)).json();

/** The tokens of this browser's sessions, the newest first: of several servers, which one address may have had. */
const known = () => JSON.parse(localStorage.getItem("fewseg tokens") || "[]");

/** Goes on with this browser's last session that the server still has, or opens one. */
export async function open() {
  for (token of known()) {
    try { return await session(); } catch (error) { if (error.status !== 401) throw error; }
  }
  return begin();
}

/** Opens an empty session. */
async function begin() {
  const opened = await json("POST", "sessions");
  token = opened.token;
  localStorage.setItem("fewseg tokens", JSON.stringify([token, ...known()].slice(0, 8)));
  return opened;
}

/** Ends the session, of all tabs, and opens an empty one. */
export async function restart() {
  await call("DELETE", "session");
  return begin();
}

export const session = () => json("GET", "session");
export const upload = (content, name) => json("POST", "images", { params: { name }, body: content });
export const removeImage = (id) => call("DELETE", `images/${id}`);
export const picture = async (id, params) => (await call("GET", `images/${id}/picture`, { params })).blob();
export const file = async (id) => (await call("GET", `images/${id}/file`)).blob();
export const labels = async (id, params, signal) =>
  (await call("GET", `images/${id}/labels`, { params, signal })).arrayBuffer();
export const settle = (id, role, body, again = false, edit = undefined) =>
  json("PUT", `images/${id}/labels`, { params: { role, again, ...(edit === undefined ? {} : { edit }) }, body });
export const complete = async (id, body) => (await call("POST", `images/${id}/complete`, { body })).arrayBuffer();
export const reopen = (id) => json("DELETE", `images/${id}/labels`);
export const quality = (id) => json("GET", `images/${id}/quality`);
export const advice = () => json("GET", "advice");
export const undo = () => json("POST", "undo");
export const redo = () => json("POST", "redo");
export const importMasks = (content, name, role) => json("POST", "masks", { params: { name, role }, body: content });
export const examples = async () => (await call("GET", "examples")).blob();
export const addClass = (name) => json("POST", "classes", { params: { name } });
export const renameClass = (number, name) => json("PUT", `classes/${number}`, { params: { name } });
export const removeClass = (number) => json("DELETE", `classes/${number}`);
export const download = async (form, params) => {
  const answer = await call("GET", `download/${form}`, { params });
  const name = /filename="([^"]+)"/.exec(answer.headers.get("Content-Disposition"))[1];
  return { name, blob: await answer.blob() };
};

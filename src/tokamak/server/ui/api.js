// Talks to the server: one place for the key, for errors in words, and for reading server-sent events.

const KEY = "tokamak-key";

export class ApiError extends Error {
  constructor(status, message) { super(message); this.status = status; }
}

export const key = {
  get: () => sessionStorage.getItem(KEY) || "",
  set: (value) => value ? sessionStorage.setItem(KEY, value) : sessionStorage.removeItem(KEY),
};

function headers(body) {
  const found = {};
  if (body !== undefined) found["Content-Type"] = "application/json";
  if (key.get()) found.Authorization = `Bearer ${key.get()}`;
  return found;
}

export async function call(path, body, { signal, method } = {}) {
  let response;
  try {
    response = await fetch(path, {
      method: method || (body === undefined ? "GET" : "POST"),
      headers: headers(body), body: body === undefined ? undefined : JSON.stringify(body), signal,
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0, "the server does not answer");
  }
  if (response.ok) return response;
  let message = `${response.status} ${response.statusText}`;
  try { message = (await response.json()).error.message; } catch { /* no JSON: the status says it */ }
  throw new ApiError(response.status, message);
}

export const json = async (path, body, options) => (await call(path, body, options)).json();

// Yields the JSON of every event until [DONE]; an error event throws.
export async function* events(path, body, signal) {
  const response = await call(path, body, { signal });
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let held = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    held += value.replaceAll("\r\n", "\n");
    let end;
    while ((end = held.indexOf("\n\n")) >= 0) {
      const data = held.slice(0, end).split("\n").filter((line) => line.startsWith("data:"))
        .map((line) => line.slice(5).trimStart()).join("\n");
      held = held.slice(end + 2);
      if (data === "[DONE]") return;
      if (!data) continue;
      const event = JSON.parse(data);
      if (event.error) throw new ApiError(500, event.error.message || "the stream failed");
      yield event;
    }
  }
}

/* What the page asks the daemon, and how it asks the person who looks at it. */
import { $, make } from "./draw.js";

let asking = null;

/* Asks once for a token, however many requests were refused meanwhile. */
function token(why) {
  asking ??= ask({ title: "A token, please", text: [why], label: "Token", secret: true, yes: "Use it" })
    .then(given => {
      if (given) sessionStorage.setItem("token", given);
      return Boolean(given);
    })
    .finally(() => { asking = null; });
  return asking;
}

async function send(path, options = {}) {
  for (;;) {
    const held = sessionStorage.getItem("token");
    const headers = { ...options.headers };
    if (held) headers.authorization = `Bearer ${held}`;
    const answer = await fetch(path, { ...options, headers, cache: "no-store" });
    if (answer.status !== 401) return answer;
    if (held && held === sessionStorage.getItem("token")) sessionStorage.removeItem("token");
    if (!await token(held ? "The daemon does not take that token." : "The daemon asks who you are.")) return answer;
  }
}

/* Why a request was refused, in words. */
async function refusal(answer) {
  const text = await answer.text();
  try {
    const problem = JSON.parse(text);
    return problem.detail ?? problem.title ?? text;
  } catch {
    return text.trim() || `the daemon answers ${answer.status}`;
  }
}

/* The answer as JSON; null where there is no such thing. */
export async function get(path) {
  const answer = await send(path);
  if (answer.status === 404) return null;
  if (!answer.ok) throw new Error(await refusal(answer));
  return answer.json();
}

/* Has something done. Answers JSON or text; an error has the daemon's own words. */
export async function change(path, body, method = "POST") {
  const options = { method };
  if (body !== undefined) {
    options.body = JSON.stringify(body);
    options.headers = { "content-type": "application/json" };
  }
  const answer = await send(path, options);
  if (!answer.ok) throw new Error(await refusal(answer));
  const text = await answer.text();
  return answer.headers.get("content-type")?.includes("json") ? JSON.parse(text) : text;
}

/* Server-sent events by a plain request, which can bear a token. Ends when the stream does. */
export async function stream(path, heard, signal) {
  const answer = await send(path, { signal });
  if (!answer.ok) throw new Error(await refusal(answer));
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const blocks = (rest + value).split("\n\n");
    rest = blocks.pop();
    for (const block of blocks) {
      let name = "message", data = "";
      for (const line of block.split("\n")) {
        if (line.startsWith("event:")) name = line.slice(6).trim();
        else if (line.startsWith("data:")) data += line.slice(5).trimStart();
      }
      if (data) heard(JSON.parse(data), name);
    }
  }
}

/* What of the API there is, by its own description. */
let described;
export function can(method, path) {
  described ??= get("openapi.json").catch(() => null);
  return described.then(it => Boolean(it?.paths?.[path]?.[method]));
}

/* Asks once. Answers whether, or what was written. */
export function ask({ title, text = [], label, value = "", secret, yes = "Yes", danger }) {
  const dialog = $("ask");
  $("ask-title").textContent = title;
  $("ask-text").replaceChildren(...text.map(line => make("p", line)));
  $("ask-label").hidden = !label;
  $("ask-label").firstChild.textContent = label ?? "";
  const input = $("ask-input");
  input.type = secret ? "password" : "text";
  input.value = value;
  $("ask-yes").textContent = yes;
  $("ask-yes").className = danger ? "danger" : "strong";
  dialog.returnValue = "no";
  dialog.showModal();
  if (label) input.focus();
  return new Promise(resolve => {
    dialog.onclose = () => {
      const agreed = dialog.returnValue === "yes";
      resolve(label ? agreed && input.value.trim() : agreed);
      input.value = "";
    };
    /* Enter in the field is a yes. */
    input.onkeydown = event => {
      if (event.key !== "Enter") return;
      event.preventDefault();
      dialog.close("yes");
    };
  });
}

/* Says something for a while. */
let until;
export function say(text) {
  $("toast").textContent = text;
  clearTimeout(until);
  until = setTimeout(() => { $("toast").textContent = ""; }, 6000);
}

/* A button that does something and says what became of it. */
export function button(text, act, classes) {
  const it = make("button", text, classes);
  it.type = "button";
  it.onclick = async () => {
    it.disabled = true;
    try {
      await act();
    } catch (error) {
      say(error.message);
    } finally {
      it.disabled = false;
    }
  };
  return it;
}

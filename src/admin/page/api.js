/* What the page asks the daemon, and how it asks the person who looks at it. */
import { $, make } from "./draw.js";

/* What the daemon or the way to it has done. Any other error is the page's own. */
export class Failure extends Error {
  constructor(text, status) {
    super(text);
    this.status = status;
  }
}

/* Why something has not been done, in words. */
export const words = error => error instanceof Failure ? error.message : `the page has failed: ${error?.message ?? error}`;

/* Whoever has not given a token is asked again when they want to sign in, and not before. */
let asking = null, hasDeclined = false;

/* Asks once for a token, however many requests were refused meanwhile. */
async function token(why) {
  if (hasDeclined) return false;
  asking ??= given(why).then(it => {
    if (it) sessionStorage.setItem("token", it);
    Object.keys(known).forEach(path => delete known[path]);
    hasDeclined = !it;
    $("sign-in").hidden = Boolean(it);
    return Boolean(it);
  }).finally(() => { asking = null; });
  return asking;
}

/* A token that a header can bear; nothing if there is none. */
async function given(why) {
  for (let text = why; ;) {
    const it = await ask({ title: "A token, please", text: [text], label: "Token", secret: true, yes: "Use it" });
    if (!it || /^[\x21-\x7e]+$/.test(it)) return it;
    text = "That is no token: it holds a character that no token has. Copy it once more, as a whole.";
  }
}

$("sign-in").onclick = () => {
  hasDeclined = false;
  $("sign-in").hidden = true;
  dispatchEvent(new Event("sign-in"));
};

/* Bounds what comes over the network: what fails there is no fault of the page. */
async function over(network, told) {
  try {
    return await network;
  } catch (error) {
    throw error.name === "AbortError" ? error : new Failure(told);
  }
}

async function send(path, options = {}) {
  for (;;) {
    const held = sessionStorage.getItem("token");
    const headers = { ...options.headers };
    if (held) headers.authorization = `Bearer ${held}`;
    const answer = await over(fetch(path, { ...options, headers, cache: "no-store" }), "no answer from the daemon");
    if (answer.ok) return answer;
    const why = await refusal(answer);
    if (answer.status !== 401) throw new Failure(why, answer.status);
    /* Another request may have been given one meanwhile. */
    if (held !== sessionStorage.getItem("token")) continue;
    sessionStorage.removeItem("token");
    if (!await token(why)) throw new Failure(`not signed in: ${why}`, 401);
  }
}

/* Why a request was refused, in words. */
async function refusal(answer) {
  const text = await over(answer.text(), "the daemon has broken off");
  try {
    const problem = JSON.parse(text);
    return problem.detail ?? problem.title ?? `the daemon answers ${answer.status}`;
  } catch {
    return text.trim() || `the daemon answers ${answer.status}`;
  }
}

/* What has come, as JSON. */
function read(text) {
  try {
    return JSON.parse(text);
  } catch {
    throw new Failure("what has answered is no daemon, or one of another version");
  }
}

/* The answer as JSON; null where there is no such thing. */
export async function get(path) {
  try {
    const answer = await send(path);
    return read(await over(answer.text(), "the daemon has broken off"));
  } catch (error) {
    if (error.status === 404) return null;
    throw error;
  }
}

/* Has something done. Answers JSON or text; an error has the daemon's own words. */
export async function change(path, body, method = "POST") {
  const options = { method };
  if (body !== undefined) {
    options.body = JSON.stringify(body);
    options.headers = { "content-type": "application/json" };
  }
  const answer = await send(path, options);
  const text = await over(answer.text(), "the daemon has broken off: look whether it was done");
  return answer.headers.get("content-type")?.includes("json") ? read(text) : text;
}

/* Server-sent events by a plain request, which can bear a token. Ends when the stream does. */
export async function stream(path, heard, signal) {
  const answer = await send(path, { signal });
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { value, done } = await over(reader.read(), "the daemon has broken off");
      if (done) return;
      const blocks = (rest + value).split("\n\n");
      rest = blocks.pop();
      for (const block of blocks) {
        let name = "message", data = "";
        for (const line of block.split("\n")) {
          if (line.startsWith("event:")) name = line.slice(6).trim();
          else if (line.startsWith("data:")) data += line.slice(5).trimStart();
        }
        if (data) heard(read(data), name);
      }
    }
  } finally {
    /* Where the page has failed, the daemon need not go on. */
    reader.cancel().catch(() => {});
  }
}

/* An operation of the API, by its own description; nothing if it has none, or if it is not for who
   looks. What could not be had is asked for again. */
const ROLES = ["viewer", "operator", "admin"];
const known = {};
function once(path) {
  return known[path] ??= get(path).catch(error => {
    delete known[path];
    throw error;
  });
}

export async function can(method, template) {
  const [api, caller] = await Promise.all([once("openapi.json"), once("caller")]);
  const operation = api.paths?.[template]?.[method], role = operation?.["x-role"];
  const isOfOthers = caller.routes && method !== "get" && operation?.["x-scope"] === "daemon";
  return isOfOthers || (role && ROLES.indexOf(caller.role) < ROLES.indexOf(role)) ? undefined : operation;
}

/* Whether who looks may see all routes. */
export async function seesAll() {
  return !(await once("caller")).routes;
}

/* A path of the API with its parameter filled in, seen from the page: it may lie below others. */
export const at = (template, name = "") => template.slice(1).replace(/\{[^}]*\}/, () => encodeURIComponent(name));

/* Asks one thing after the other. Answers whether, or what was written. */
let last = Promise.resolve();
export function ask(options) {
  const answer = last.then(() => show(options));
  last = answer.catch(() => {});
  return answer;
}

function show({ title, text = [], more = [], label, value = "", secret, yes = "Yes", danger }) {
  const dialog = $("ask");
  $("ask-title").textContent = title;
  $("ask-text").replaceChildren(...text.map(line => make("p", line)), ...more);
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
    /* Enter in a field is a yes. */
    dialog.onkeydown = event => {
      if (event.key !== "Enter" || event.target.tagName !== "INPUT") return;
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

/* A button that does something and says why not. */
export function button(text, act, classes) {
  const it = make("button", text, classes);
  it.type = "button";
  it.onclick = async ({ currentTarget: pressed }) => {
    pressed.disabled = true;
    try {
      await act();
    } catch (error) {
      say(words(error));
    } finally {
      pressed.disabled = false;
    }
  };
  return it;
}

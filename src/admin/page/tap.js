/* The next events as they pass. */
import { button, say, stream, words } from "./api.js";
import { about, choices, events, labelled, make, number, within, written } from "./draw.js";

const KEPT = 200;
let place = null, fields = null, list = null, told = null, status = null, open = null, toggle = null, wished = null;

export function enter(node, _, query, known) {
  status = known ?? status;
  if (!place) build(node);
  wished = query.get("route");
  offer();
}

export function leave() {
  open?.abort();
}

/* Another configuration has other routes. */
export function hear(known) {
  const isOther = status?.generation !== known.generation;
  status = known;
  if (fields && isOther) offer();
}

const field = name => fields.elements.namedItem(name);

function build(node) {
  place = node;
  const count = (value, max) => Object.assign(make("input"), { type: "number", value, min: 1, max });
  toggle = make("button", "Open", "strong");
  fields = within("form", "fields", labelled("route", "Route", make("select")), labelled("every", "One in", count(1, 1000000)), labelled("max", "At most", count(50, 1000)), toggle,
    button("Clear", () => list.replaceChildren()));
  fields.onsubmit = event => {
    event.preventDefault();
    if (open) open.abort();
    else look();
  };
  told = make("p", "A tap shows copies: it never slows the flow. What comes too fast for it is left out and counted.", "quiet");
  told.setAttribute("role", "status");
  list = make("div");
  list.setAttribute("role", "log");
  list.setAttribute("aria-label", "Events");
  place.append(within("section", "", make("h2", "Tap"), fields, told), within("section", "", list));
  list.parentElement.hidden = true;
}

/* The routes there are; one that a link has asked for is chosen once they are known. */
function offer() {
  if (!status) return;
  choices(field("route"), [["", "any"], ...status.routes.map(it => [it.name, it.name])]);
  if (wished) field("route").value = wished;
  wished = null;
}

async function look() {
  open = new AbortController();
  toggle.textContent = "Close";
  const query = new URLSearchParams({ every: field("every").value, max: field("max").value });
  if (field("route").value) query.set("route", field("route").value);
  let seen = 0, end = "cut off: the daemon has taken up another configuration, or a token has ended";
  told.className = "quiet";
  told.textContent = "waiting for the next event …";
  try {
    await stream(`tap?${query}`, (it, name) => {
      if (name === "end") {
        end = { max: "as many as were asked for", quiet: "nothing has passed for a minute", ending: "the daemon is ending" }[it.why] ?? it.why;
        return;
      }
      seen += 1;
      list.parentElement.hidden = false;
      list.prepend(shown(it));
      while (list.children.length > KEPT) list.lastChild.remove();
      told.textContent = `open · ${events(seen)}${it.dropped ? `, ${number(it.dropped)} left out` : ""}`;
    }, open.signal);
  } catch (error) {
    end = error.name === "AbortError" ? "closed" : words(error);
    if (end !== "closed") say(end);
  }
  told.textContent = `${events(seen)}; ${end}`;
  open = null;
  toggle.textContent = "Open";
}

function shown(it) {
  const { event } = it, { data, data_text, data_base64, bytes, ...rest } = event, body = data ?? data_text ?? data_base64;
  const summary = make("summary", `${it.at ? new Date(it.at).toLocaleTimeString([], { hour12: false }) : ""} · ${event.type ?? "no type"} · ${event.id}`);
  const chips = make("span", undefined, "chips");
  for (const route of it.taken) chips.append(make("span", route, "chip"));
  if (it.unrouted) chips.append(make("span", it.unrouted, "chip bad"));
  summary.append(chips);
  const routes = it.routes.flatMap(route => [
    make("h3", `${route.why_not.length ? "not " : ""}${route.route}`),
    within("ul", "plain", ...route.why_not.map(why => make("li", why)),
      ...route.steps.map((step, at) => {
        const line = make("li", `step ${at + 1}, ${step.step}${step.events === 1 ? "" : `: ${events(step.events)}`}${step.changes.length ? "" : ": nothing changes"}`);
        if (step.changes.length && body === undefined) line.append(`: ${step.changes.join(", ")}`);
        else if (step.changes.length) line.append(lines(step.changes));
        return line;
      }),
      ...route.outcomes.map(outcome => make("li", outcome))),
  ]);
  const facts = make("pre", written(about(rest)));
  facts.tabIndex = 0;
  return within("details", "", summary, make("p", `from ${it.source}, ${number(it.bytes)} bytes`), facts,
    ...(body === undefined ? [] : [make("pre", typeof body === "string" ? body : JSON.stringify(body, null, 2))]), ...routes);
}

/* A difference, in its colours. */
function lines(changes) {
  const all = make("pre");
  for (const line of changes) all.append(make("span", `${line}\n`, line[0] === "+" ? "add" : line[0] === "-" ? "cut" : ""));
  return all;
}

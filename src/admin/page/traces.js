/* What the next deliveries go through, span by span. */
import { button, say, stream, words } from "./api.js";
import { choices, labelled, make, number, shape, table, within, written } from "./draw.js";

const KEPT = 100, ROWS = 200;
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
  toggle = make("button", "Trace", "strong");
  fields = within("form", "fields", labelled("route", "Route", make("select")),
    labelled("max", "Deliveries", Object.assign(make("input"), { type: "number", value: 5, min: 1, max: 100 })),
    toggle, button("Clear", () => list.replaceChildren()));
  fields.onsubmit = event => {
    event.preventDefault();
    if (open) open.abort();
    else look();
  };
  told = make("p", "The next deliveries are traced from their receive to their settlement, with or without a collector.", "quiet");
  told.setAttribute("role", "status");
  list = make("div");
  list.setAttribute("role", "log");
  list.setAttribute("aria-label", "Traces");
  place.append(within("section", "", make("h2", "Traces"), fields, told), within("section", "", list));
  list.parentElement.hidden = true;
}

/* The routes there are; one that a link has asked for is chosen once they are known. */
function offer() {
  if (!status) return;
  choices(field("route"), [["", "any"], ...status.routes.map(it => [it.name, it.name])]);
  if (wished) field("route").value = wished;
  wished = null;
}

const deliveries = n => n === 1 ? "1 delivery" : `${number(n)} deliveries`;

async function look() {
  open = new AbortController();
  toggle.textContent = "Stop";
  const query = new URLSearchParams({ max: field("max").value });
  if (field("route").value) query.set("route", field("route").value);
  const traces = new Map(), waiting = new Map(), changed = new Set();
  /* Many spans come at once: what has changed is drawn once. */
  const drawn = () => {
    changed.forEach(draw);
    changed.clear();
  };
  let seen = 0, end = "cut off: the daemon has taken up another configuration, or a token has ended";
  told.className = "quiet";
  told.textContent = "waiting for the next delivery …";
  try {
    await stream(`traces?${query}`, (it, name) => {
      if (name === "end") {
        end = { max: "as many as were asked for", quiet: "nothing has happened for a minute", long: "ten minutes are over", ending: "the daemon is ending" }[it.why] ?? it.why;
        if (it.dropped) end += `, and ${number(it.dropped)} spans came too fast`;
        return;
      }
      const isDelivery = it.attributes["messaging.operation.name"] === "process";
      if (isDelivery) seen += 1;
      /* What a delivery was sent and settled with is told before or after it has ended itself. */
      for (const of of isDelivery ? [it.span] : [it.parent, ...it.about].filter(Boolean)) {
        if (!waiting.has(of)) waiting.set(of, []);
        waiting.get(of).push(it);
        const delivery = waiting.get(of).find(one => one.span === of);
        if (!delivery) continue;
        const trace = traces.get(delivery.trace) ?? { spans: new Set() };
        traces.set(delivery.trace, trace);
        for (const one of waiting.get(of)) trace.spans.add(one);
        if (!changed.size) setTimeout(drawn, 50);
        changed.add(trace);
      }
      told.textContent = `open · ${deliveries(seen)}`;
    }, open.signal);
  } catch (error) {
    end = error.name === "AbortError" ? "stopped" : words(error);
    if (end !== "stopped") say(end);
  }
  told.textContent = `${deliveries(seen)}; ${end}`;
  open = null;
  toggle.textContent = "Trace";
}

const took = us => us < 1000 ? `${us} µs` : us < 1_000_000 ? `${(us / 1000).toFixed(us < 10_000 ? 1 : 0)} ms` : `${(us / 1_000_000).toFixed(1)} s`;

/* A trace, in the place of what was shown of it before. */
function draw(trace) {
  const spans = [...trace.spans].sort((a, b) => a.start_us - b.start_us);
  const own = spans.filter(it => it.attributes["messaging.operation.name"] === "process"), [first] = own;
  /* A poll may have waited long before there was anything to receive. */
  const from = first.start_us, until = Math.max(...spans.map(it => it.start_us + it.took_us)), whole = Math.max(1, until - from);
  const summary = make("summary", `${new Date(from / 1000).toLocaleTimeString([], { hour12: false })} · ${first.attributes["messaging.message.id"]} · ${took(whole)}`);
  const chips = make("span", undefined, "chips");
  for (const it of own.slice(0, 10)) chips.append(make("span", `${it.attributes["eventferry.source"]}: ${it.attributes["eventferry.outcome"].replace("_", " ")}`, it.error ? "chip bad" : "chip"));
  summary.append(chips);
  const rows = spans.slice(0, ROWS).map(it => [
    it.name + (it.attributes["messaging.batch.message_count"] > 1 ? `, ${number(it.attributes["messaging.batch.message_count"])} events` : ""),
    bar(it, from, whole), it.start_us < from ? `${took(from - it.start_us)} before` : took(it.start_us - from), took(it.took_us), it.error ?? "",
  ]);
  const facts = make("pre", written({ trace: first.trace, deliveries: own.slice(0, ROWS).map(it => ({ span: it.span, ...it.attributes })) }));
  facts.tabIndex = 0;
  const more = spans.length > ROWS && make("p", `and ${number(spans.length - ROWS)} more`, "quiet");
  const node = within("details", "", summary, table("Spans", ["Span", "When", "Began after", "Took", "Error"], rows), more, facts);
  node.open = trace.node?.open ?? false;
  if (trace.node?.isConnected) trace.node.replaceWith(node);
  else list.prepend(node);
  trace.node = node;
  list.parentElement.hidden = false;
  while (list.children.length > KEPT) list.lastChild.remove();
}

function bar(it, from, whole) {
  const svg = shape("svg", { viewBox: "0 0 1000 20", preserveAspectRatio: "none", class: "bar", "aria-hidden": "true" });
  const at = time => Math.min(1000, Math.max(0, 1000 * (time - from) / whole));
  const x = at(it.start_us), width = Math.max(4, at(it.start_us + it.took_us) - x);
  svg.append(shape("rect", { x: Math.min(x, 996), y: 4, width, height: 12, rx: 2, class: it.error ? "bad" : "" }));
  return svg;
}

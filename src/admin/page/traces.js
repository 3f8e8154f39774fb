/* What the next deliveries go through, span by span. */
import { make, number, shape, table, within, written } from "./draw.js";
import { passing } from "./passing.js";

const ROWS = 200;

export const { enter, leave, hear } = passing({
  path: "traces",
  title: "Traces",
  note: "The next deliveries are traced from their receive to their settlement, with or without a collector.",
  label: "Traces",
  words: ["Trace", "Stop", "stopped"],
  awaited: "waiting for the next delivery …",
  numbers: [["max", "Deliveries", 5, 100]],
  counted: n => n === 1 ? "1 delivery" : `${number(n)} deliveries`,
  ends: { max: "as many as were asked for", quiet: "nothing has happened for a minute", long: "ten minutes are over", ending: "the daemon is ending" },
  kept: 100,
  begin: gather,
});

/* Puts spans together by their traces. */
function gather(show) {
  const traces = new Map(), waiting = new Map(), changed = new Set();
  /* Many spans come at once: what has changed is drawn once. */
  const drawn = () => {
    for (const trace of changed) draw(trace, show);
    changed.clear();
  };
  return it => {
    const isDelivery = it.attributes["messaging.operation.name"] === "process";
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
    return isDelivery;
  };
}

const took = us => us < 1000 ? `${us} µs` : us < 1_000_000 ? `${(us / 1000).toFixed(us < 10_000 ? 1 : 0)} ms` : `${(us / 1_000_000).toFixed(1)} s`;

/* A trace, in the place of what was shown of it before. */
function draw(trace, show) {
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
  show(node, trace.node);
  trace.node = node;
}

function bar(it, from, whole) {
  const svg = shape("svg", { viewBox: "0 0 1000 20", preserveAspectRatio: "none", class: "bar", "aria-hidden": "true" });
  const at = time => Math.min(1000, Math.max(0, 1000 * (time - from) / whole));
  const x = at(it.start_us), width = Math.max(4, at(it.start_us + it.took_us) - x);
  svg.append(shape("rect", { x: Math.min(x, 996), y: 4, width, height: 12, rx: 2, class: it.error ? "bad" : "" }));
  return svg;
}

/* The next events as they pass. */
import { about, events, make, number, within, written } from "./draw.js";
import { passing } from "./passing.js";

export const { enter, leave, hear } = passing({
  path: "tap",
  title: "Tap",
  note: "A tap shows copies: it never slows the flow. What comes too fast for it is left out and counted.",
  label: "Events",
  words: ["Open", "Close", "closed"],
  awaited: "waiting for the next event …",
  numbers: [["every", "One in", 1, 1000000], ["max", "At most", 50, 1000]],
  counted: events,
  ends: { max: "as many as were asked for", quiet: "nothing has passed for a minute", ending: "the daemon is ending" },
  kept: 200,
  begin: show => it => {
    show(shown(it));
    return true;
  },
});

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

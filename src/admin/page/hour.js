/* The last hour, as the daemon remembers it, for whoever shows it. */
import { get, words } from "./api.js";
import { make, number, perSecond, plot, within } from "./draw.js";

let known = null, problem = null, asking = null;

/* Asks for it, but not while that has been done and is not answered. */
export function load() {
  asking ??= get("history").then(
    it => { [known, problem] = [it, null]; },
    error => { problem = words(error); },
  ).finally(() => { asking = null; });
  return asking;
}

/* The steps of a route into a sink, in events a second. */
export function past(route, sink) {
  const leg = known?.legs.find(it => it.route === route && it.sink === sink);
  return leg ? leg.delivered.map(perStep) : [];
}

const perStep = n => n === null ? null : n / known.step_seconds;

/* The sum of these, step by step; nothing where nothing is known of any. */
function add(lists) {
  return lists[0].map((_, at) => {
    const there = lists.map(list => list[at]).filter(it => it !== null);
    return there.length ? there.reduce((a, b) => a + b, 0) : null;
  });
}

const total = values => values.reduce((sum, n) => sum + (n ?? 0), 0);

function rate(title, values, classes) {
  const per = values.map(perStep);
  return plot(title, per, `${number(total(values))}, at most ${perSecond(Math.max(0, ...per.map(it => it ?? 0)))}`, classes);
}

/* Under its head; or why there is none. */
function shown(figures, none) {
  const told = problem ? make("p", `it is not known: ${problem}`, "bad")
    : !known ? make("p", "asking …", "quiet")
    : !known.at.length ? make("p", "nothing is known yet: a sample is taken every 10 s", "quiet")
    : null;
  if (told) return [make("h3", "The last hour"), told];
  const all = figures();
  const minutes = Math.max(1, Math.round(known.at.length * known.step_seconds / 60));
  const head = make("h3", minutes < 60 ? `Since the start, ${minutes} min` : "The last hour");
  if (all.length) return [head, within("div", "plots", ...all)];
  return none ? [head, make("p", none, "quiet")] : [];
}

export function ofSource(name) {
  return shown(() => {
    const it = known.sources.find(it => it.source === name);
    if (!it) return [];
    const waiting = it.backlog.filter(n => n !== null), figures = [rate("received", it.received)];
    if (waiting.length) figures.push(plot("waiting at the service", it.backlog, `now ${number(waiting.at(-1))}, at most ${number(Math.max(...waiting))}`, "wait"));
    return figures;
  });
}

/* Of the routes into sinks that are meant. */
export function ofLegs(isMeant) {
  return shown(() => {
    const legs = known.legs.filter(it => isMeant(it.route, it.sink));
    if (!legs.length) return [];
    return [rate("delivered", add(legs.map(it => it.delivered))), rate("retried", add(legs.map(it => it.retried)), "wait"),
      rate("parked", add(legs.map(it => it.dead_lettered)), "bad")];
  });
}

/* What each route has parked, by cause; not those that have parked nothing. */
export function ofParked() {
  return shown(() => known.parked.filter(it => total(it.dead_lettered)).map(it => rate(`${it.route}: ${it.class}`, it.dead_lettered, "bad")), "nothing was parked");
}

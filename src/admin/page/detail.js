/* What there is to know of one source, route, sink, or route into a sink. */
import { get, seesAll, words } from "./api.js";
import { age, ago, link, make, number, seconds, table, within, written } from "./draw.js";
import * as hour from "./hour.js";
import { offers, state } from "./operations.js";

const AGAIN = 10_000, HOUR_AGAIN = 60_000;
/* What is asked for each kind of thing, beside the hour. */
const WANTED = { "": [], source: ["errors", "checkpoints", "config"], route: ["errors", "config"], sink: ["errors", "config"], edge: ["errors", "config"] };
let chosen = [""], timer = null, latest = null;
/* The last answer to each of these, or why there is none; and what is not answered yet. */
const facts = {}, open = new Set();
/* The places on the page that are drawn anew when something is answered. */
let places = {};

/* Nothing is asked while nobody looks. */
export function rest() {
  clearInterval(timer);
}

export function choose(section, parts, status, isNew) {
  [chosen, latest] = [parts, status ?? latest];
  clearInterval(timer);
  if (chosen[0] === "") {
    section.hidden = true;
    section.replaceChildren();
    places = {};
    hour.load();
    timer = setInterval(hour.load, HOUR_AGAIN);
    return;
  }
  if (isNew || section.hidden) build(section);
  look();
  timer = setInterval(look, AGAIN);
}

/* Each answer is shown when it comes: one of them may take long. */
function look() {
  hour.load().then(() => draw("hour"));
  WANTED[chosen[0]].forEach(ask);
  offer();
}

async function ask(path) {
  if (open.has(path)) return;
  open.add(path);
  try {
    const isForAll = path === "config" && !await seesAll();
    facts[path] = isForAll ? { isNotTheirs: true } : { known: await get(path) };
  } catch (error) {
    facts[path] = { problem: words(error) };
  } finally {
    open.delete(path);
  }
  draw(path);
  if (path === "checkpoints") offer();
}

function build(section) {
  const [kind, name, sink] = chosen;
  const title = make("h2", kind === "edge" ? `${name} → ${sink}` : `${kind} ${name}`);
  title.id = "detail-title";
  title.tabIndex = -1;
  places = { lines: make("div", undefined, "lines"), buttons: make("p", undefined, "buttons"), hour: make("div") };
  for (const path of WANTED[kind]) places[path] = make("div");
  section.replaceChildren(within("div", "head", title, link("close", "")), ...Object.values(places));
  section.hidden = false;
  offered = "";
  if (latest) fill();
  for (const path of ["hour", ...WANTED[kind]]) draw(path);
  title.focus({ preventScroll: true });
  section.scrollIntoView({ block: "nearest" });
}

/* Whoever reads or types there is not disturbed. */
function draw(path) {
  const place = places[path];
  if (!place || place.contains(document.activeElement)) return;
  const of = { hour: plots, errors, checkpoints: partitions, config };
  place.replaceChildren(...of[path]());
}

/* The lines that change every second. */
export function refresh(status) {
  const isOther = latest?.generation !== status.generation;
  latest = status;
  if (!places.lines) return;
  if (isOther && places.config) ask("config");
  fill();
  if (offered !== null) offer();
}

function thing() {
  const [kind, name] = chosen;
  return kind === "edge" ? latest?.routes.find(it => it.name === name) : latest?.[`${kind}s`]?.find(it => it.name === name);
}

function fill() {
  const it = thing(), lines = it ? told(it) : ["the configuration that runs does not have it"];
  if (places.lines.textContent !== lines.join("")) places.lines.replaceChildren(...lines.map((line, at) => make("p", line, at === 0 && it?.problem ? "bad" : "")));
}

/* What can be done is offered anew when that is something else; `null` where it could not be known. */
let offered = "";
async function offer() {
  const it = thing(), place = places.buttons;
  const about = { kind: chosen[0], it, status: latest, partitions: mine().map(it => it.partition) };
  const now = state(about), isOld = () => offered !== now || place !== places.buttons;
  if (!place || !now || now === offered) return;
  offered = now;
  try {
    const all = await offers(about);
    if (isOld()) return;
    const held = place.contains(document.activeElement) && document.activeElement.textContent;
    renew(place, all);
    if (held) ([...place.children].find(it => it.textContent === held) ?? place.querySelector("button"))?.focus();
  } catch (error) {
    if (isOld()) return;
    offered = null;
    place.replaceChildren(make("span", `what can be done is not known: ${words(error)}`, "quiet"));
  }
}

/* What stays offered stays the element that it is: somebody may be pressing it. */
function renew(place, all) {
  const now = all.map(it => [...place.children].find(old => old.textContent === it.textContent) ?? it);
  for (const old of [...place.children]) if (!now.includes(old)) old.remove();
  now.forEach((it, at) => {
    it.onclick = all[at].onclick;
    if (place.children[at] !== it) place.insertBefore(it, place.children[at] ?? null);
  });
}

function told(it) {
  const [kind, , sink] = chosen;
  const lines = {
    source: () => [
      `received ${number(it.received)}, settled ${number(it.settled)}, in flight ${number(it.in_flight)}`,
      it.backlog === null ? "the service does not tell what waits there" : `${number(it.backlog)} wait at the service${!it.backlog_age_seconds ? "" : `, the oldest for ${age(it.backlog_age_seconds)}`}`,
      ...(it.partitions === null ? [] : [`reads ${number(it.partitions)} partitions`]),
    ],
    route: () => [`from ${it.from.join(", ")} to ${it.to.map(leg => leg.sink).join(", ")}`, ...it.promises, ...rateLimit(it), `taken and not sent: ${number(it.filtered)}`],
    sink: () => [
      it.held ? "left alone by an operator, until the breaker is closed; its events wait"
        : { closed: "its breaker is closed: it is sent to", probing: "one event is on its way to see whether it works again", open: "it does not work and is left alone for now; its events wait" }[it.breaker],
      limit(it),
      ...(it.concurrency ? [`up to ${number(it.concurrency)} requests at once`] : []),
    ],
    edge: () => {
      const leg = it.to.find(leg => leg.sink === sink);
      return leg ? [
        `in flight ${number(leg.in_flight)}, delivered ${number(leg.delivered)}, retried ${number(leg.retried)}, parked ${number(leg.dead_lettered)}, returned ${number(leg.returned)}, duplicates ${number(leg.duplicates)}`,
        `from receive to confirmation, in the last five minutes: half ${seconds(leg.p50_seconds)}, 99 in a hundred ${seconds(leg.p99_seconds)}`,
      ] : ["the route does not send there"];
    },
  }[kind]();
  return it.problem ? [it.problem, ...lines] : lines;
}

const whose = isAsked => isAsked ? "as an operator has asked, in place of what the file says" : "as the file says";

/* What a sink is sent in a second, and who says so. */
function limit({ limit: { events_per_second: count, bytes_per_second: bytes }, limit_overridden: isAsked }) {
  const most = [count && `${number(count)} events`, bytes].filter(Boolean).join(" and ");
  return most ? `at most ${most} in a second, ${whose(isAsked)}` : "without a limit";
}

/* What a route passes on in a second, and who says so; of most there is nothing to say. */
function rateLimit({ rate_limit: limit, rate_limit_overridden: isAsked }) {
  if (!limit) return [];
  const over = { wait: "the others wait", drop: "the others are dropped", dead_letter: "the others are parked" }[limit.over];
  return [`passes on ${number(limit.per_second)} events${limit.by === "key" ? " of each key" : ""} in a second, and ${over}; ${whose(isAsked)}`];
}

function isMine(route, sink) {
  const [kind, name, into] = chosen;
  return kind === "route" ? route === name : kind === "sink" ? sink === name : kind === "edge" && route === name && sink === into;
}

/* What is drawn of an answer; else that there is none yet, or why there is none. */
function of(path, title, drawn) {
  const { known, problem, isNotTheirs } = facts[path] ?? {};
  if (isNotTheirs) return [];
  if (problem) return [make("h3", title), make("p", `not known: ${problem}`, "bad")];
  return known === undefined ? [make("h3", title), make("p", "asking …", "quiet")] : drawn(known);
}

const plots = () => chosen[0] === "source" ? hour.ofSource(chosen[1]) : hour.ofLegs(isMine);

function errors() {
  return of("errors", "Last errors", known => {
    const mine = (known?.errors ?? []).filter(it => it.source === undefined ? isMine(it.route, it.sink) : chosen[0] === "source" && it.source === chosen[1]);
    if (mine.length === 0) return [make("h3", "Last errors"), make("p", "none since the start", "quiet")];
    const rows = mine.slice(0, 20).map(it => [
      ago(it.last), it.source ?? (it.sink ? `${it.route} → ${it.sink}` : it.route), it.class, number(it.count), it.text,
      it.event ? [it.event.type, it.event.id, it.event.subject, it.event.key && `key ${it.event.key}`, `from ${it.event.source}`].filter(Boolean).join(" · ") + `, ${number(it.event.bytes)} bytes` : "",
    ]);
    return [make("h3", "Last errors"), table("Last errors", ["Last", "Where", "Cause", "Times", "long:In words", "long:Such as"], rows)];
  });
}

/* The partitions of the source, as far as they are known. */
const mine = () => chosen[0] === "source" ? (facts.checkpoints?.known?.partitions ?? []).filter(it => it.source === chosen[1]) : [];

function partitions() {
  return of("checkpoints", "Partitions", known => {
    const all = mine(), problems = (known?.problems ?? []).filter(it => it.startsWith(`source ${chosen[1]}: `));
    if (all.length + problems.length === 0) return [];
    /* Where replicas do not share them, nobody owns any. */
    const isShared = all.some(it => it.owner !== null);
    const heads = ["Partition", ...(isShared ? ["Owner"] : []), "Checkpoint", "Oldest event", "Newest event", "Lag"];
    const rows = all.map(it => [it.partition, ...(isShared ? [it.owner ?? "nobody"] : []), number(it.checkpoint?.sequence_number),
      number(it.first_sequence_number), number(it.last_sequence_number), number(it.lag)]);
    return [make("h3", "Partitions"), ...problems.map(problem => make("p", problem, "bad")), ...(all.length ? [table("Partitions", heads, rows)] : [])];
  });
}

function config() {
  return of("config", "Configuration", known => {
    const running = known?.running, [kind, name, sink] = chosen;
    if (!running) return [];
    const route = () => running.routes?.find(it => it.name === name);
    const it = { source: () => running.sources?.[name], sink: () => running.sinks?.[name], route, edge: () => route() && { route: route(), sink: running.sinks?.[sink] } }[kind]();
    if (!it) return [];
    const shown = make("pre", written(it));
    shown.tabIndex = 0;
    const details = within("details", "", make("summary", "Configuration"), shown);
    details.open = Boolean(places.config.querySelector("details[open]"));
    return [details];
  });
}

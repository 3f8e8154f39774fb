/* What there is to know of one source, route, sink, or route into a sink. */
import { ask, button, can, change, get, say } from "./api.js";
import { age, ago, link, make, number, perSecond, plot, seconds, table, within, written } from "./draw.js";

const AGAIN = 10_000;
let chosen = [""], hour = null, timer = null, facts = {}, latest = null;

/* The steps of the last hour of a route into a sink, in events a second. */
export function past(route, sink) {
  const leg = hour?.legs.find(it => it.route === route && it.sink === sink);
  return leg ? leg.delivered.map(n => n === null ? null : n / hour.step_seconds) : [];
}

async function load() {
  const [history, errors, checkpoints, config] =
    await Promise.all(["history", "errors", "checkpoints", "config"].map(path => get(path).catch(() => null)));
  hour = history;
  facts = { errors: errors?.errors ?? [], partitions: checkpoints?.partitions ?? [], config: config?.running };
}

export function choose(section, parts, status, isNew) {
  chosen = parts;
  clearInterval(timer);
  if (chosen[0] === "") {
    section.hidden = true;
    section.replaceChildren();
    if (!hour) get("history").then(it => { hour = it; }).catch(() => {});
    return;
  }
  latest = status ?? latest;
  const show = () => chosen === parts && build(section);
  if (isNew) section.replaceChildren();
  load().then(() => {
    show();
    if (!isNew || chosen !== parts) return;
    section.querySelector("h2")?.focus({ preventScroll: true });
    section.scrollIntoView({ block: "nearest" });
  });
  timer = setInterval(() => load().then(show), AGAIN);
}

/* The lines that change every second. */
export function refresh(section, status) {
  latest = status;
  const lines = section.querySelector(".lines");
  if (lines && chosen[0] !== "") fill(lines, status);
}

function thing(status) {
  const [kind, name] = chosen;
  return kind === "edge" ? status.routes.find(it => it.name === name) : status[`${kind}s`]?.find(it => it.name === name);
}

function fill(place, status) {
  const it = thing(status), lines = it ? words(it) : ["the configuration that runs does not have it"];
  if (place.textContent !== lines.join("")) place.replaceChildren(...lines.map((line, at) => make("p", line, at === 0 && it?.problem ? "bad" : "")));
}

function words(it) {
  const [kind, , sink] = chosen;
  const lines = {
    source: () => [
      `received ${number(it.received)}, settled ${number(it.settled)}, in flight ${number(it.in_flight)}`,
      it.backlog === null ? "the service does not tell what waits there" : `${number(it.backlog)} wait at the service${it.backlog_age_seconds === null ? "" : `, the oldest for ${age(it.backlog_age_seconds)}`}`,
      ...(it.partitions === null ? [] : [`reads ${number(it.partitions)} partitions`]),
    ],
    route: () => [`from ${it.from.join(", ")} to ${it.to.map(leg => leg.sink).join(", ")}`, ...it.promises, `taken and not sent: ${number(it.filtered)}`],
    sink: () => [
      { closed: "its breaker is closed: it is sent to", probing: "one event is on its way to see whether it works again", open: "it does not work and is left alone for now; its events wait" }[it.breaker],
      ...(it.concurrency ? [`up to ${number(it.concurrency)} requests at once`] : []),
    ],
    edge: () => {
      const leg = it.to.find(leg => leg.sink === sink);
      return leg ? [
        `delivered ${number(leg.delivered)}, retried ${number(leg.retried)}, parked ${number(leg.dead_lettered)}, returned ${number(leg.returned)}, duplicates ${number(leg.duplicates)}`,
        `from receive to confirmation: half ${seconds(leg.p50_seconds)}, 99 in a hundred ${seconds(leg.p99_seconds)}`,
      ] : ["the route does not send there"];
    },
  }[chosen[0]]();
  return it.problem ? [it.problem, ...lines] : lines;
}

function build(section) {
  const [kind, name, sink] = chosen, now = latest;
  /* Whoever reads or types there is not disturbed. */
  const focused = section.contains(document.activeElement) && document.activeElement.id !== "detail-title" && section.children.length > 0;
  if (focused && document.activeElement.closest(".buttons, pre, .scroll")) return;
  const title = make("h2", kind === "edge" ? `${name} → ${sink}` : `${kind} ${name}`);
  title.id = "detail-title";
  title.tabIndex = -1;
  const hadFocus = document.activeElement?.id === "detail-title";
  const lines = make("div", undefined, "lines");
  if (now) fill(lines, now);
  const close = link("close", "");
  const buttons = make("p", undefined, "buttons");
  section.replaceChildren(within("div", "head", title, close), lines, buttons, ...plots(), ...errors(), ...partitions(), ...config());
  section.hidden = false;
  if (hadFocus) title.focus({ preventScroll: true });
  operations(now && thing(now)).then(all => buttons.replaceChildren(...all));
}

function isMine(route, sink) {
  const [kind, name, into] = chosen;
  return kind === "route" ? route === name : kind === "sink" ? sink === name : kind === "edge" && route === name && sink === into;
}

function add(lists) {
  if (lists.length === 0) return [];
  return lists[0].map((_, at) => {
    const known = lists.map(list => list[at]).filter(it => it !== null);
    return known.length ? known.reduce((a, b) => a + b, 0) : null;
  });
}

function rate(title, values, classes) {
  const per = values.map(n => n === null ? null : n / hour.step_seconds);
  const sum = values.reduce((sum, n) => sum + (n ?? 0), 0);
  return plot(title, per, `${number(sum)}, at most ${perSecond(Math.max(0, ...per.map(it => it ?? 0)))}`, classes);
}

function plots() {
  if (!hour?.at.length) return [make("h3", "The last hour"), make("p", "nothing is known yet: a sample is taken every 10 s", "quiet")];
  const figures = [];
  if (chosen[0] === "source") {
    const it = hour.sources.find(it => it.source === chosen[1]);
    if (it) {
      figures.push(rate("received", it.received));
      const waiting = it.backlog.filter(n => n !== null);
      if (waiting.length) figures.push(plot("waiting at the service", it.backlog, `now ${number(waiting.at(-1))}, at most ${number(Math.max(...waiting))}`, "wait"));
    }
  } else {
    const legs = hour.legs.filter(it => isMine(it.route, it.sink));
    if (legs.length) {
      figures.push(rate("delivered", add(legs.map(it => it.delivered))), rate("retried", add(legs.map(it => it.retried)), "wait"),
        rate("parked", add(legs.map(it => it.dead_lettered)), "bad"));
    }
  }
  const minutes = Math.max(1, Math.round(hour.at.length * hour.step_seconds / 60));
  const span = minutes < 60 ? `Since the start, ${minutes} min` : "The last hour";
  return figures.length ? [make("h3", span), within("div", "plots", ...figures)] : [];
}

function errors() {
  const mine = facts.errors.filter(it => isMine(it.route, it.sink) || (chosen[0] === "route" && it.route === chosen[1]));
  if (chosen[0] === "source") return [];
  if (mine.length === 0) return [make("h3", "Last errors"), make("p", "none since the start", "quiet")];
  const rows = mine.slice(0, 20).map(it => [
    ago(it.last), it.sink ? `${it.route} → ${it.sink}` : it.route, it.class, number(it.count), it.text,
    [it.event.type, it.event.id].filter(Boolean).join(" · ") + `, ${number(it.event.bytes)} bytes`,
  ]);
  return [make("h3", "Last errors"), table("Last errors", ["Last", "Where", "Cause", "Times", "long:In words", "long:Such as"], rows)];
}

function partitions() {
  const mine = chosen[0] === "source" ? facts.partitions.filter(it => it.source === chosen[1]) : [];
  if (mine.length === 0) return [];
  const rows = mine.map(it => [it.partition, it.is_ours ? "this replica" : it.owner ?? "nobody", number(it.checkpoint?.sequence_number ?? it.sequence_number), number(it.last_sequence_number), number(it.lag)]);
  return [make("h3", "Partitions"), table("Partitions", ["Partition", "Owner", "Checkpoint", "Last event", "Lag"], rows)];
}

function config() {
  const { config } = facts, [kind, name, sink] = chosen;
  if (!config) return [];
  const route = () => config.routes?.find(it => it.name === name);
  const it = { source: () => config.sources?.[name], sink: () => config.sinks?.[name], route, edge: () => route() && { route: route(), sink: config.sinks?.[sink] } }[kind]();
  if (!it) return [];
  const shown = make("pre", written(it));
  shown.tabIndex = 0;
  const open = within("details", "", make("summary", "Configuration"), shown);
  open.open = Boolean(document.querySelector("#detail details[open]"));
  return [open];
}

/* What can be done, as far as the daemon can. Each asks once. */
async function operations(it) {
  if (!it) return [];
  const [kind, name] = chosen, all = [];
  const offer = async (text, path, title, lines, options = {}) => {
    const { method = "post", body, label, classes, undo } = options;
    if (!await can(method, path.replace(name, `{${kind}}`))) return;
    all.push(button(text, async () => {
      const agreed = await ask({ title, text: lines, label, yes: text, danger: classes === "danger" });
      if (!agreed) return;
      await change(path.replace(name, encodeURIComponent(name)), body?.(agreed), method.toUpperCase());
      say(undo ?? `${text}: done`);
    }, classes));
  };
  if (kind === "source" || kind === "route") {
    const base = `${kind}s/${name}`;
    const paused = kind === "route" ? it.from.every(name => latest.sources.find(source => source.name === name)?.paused) : it.paused;
    if (paused) await offer("Resume", `/${base}/resume`, `Resume ${kind} ${name}?`, ["Its events flow again."]);
    else await offer("Pause", `/${base}/pause`, `Pause ${kind} ${name}?`, [`Nothing more is received${kind === "route" ? ` from ${it.from.join(", ")}` : ""} until it is resumed; what is under way finishes. Events wait at the service.`]);
  }
  if (kind === "sink") {
    const breaker = (text, state, lines) => offer(text, `/sinks/${name}/breaker`, `${text} of ${name}?`, [lines], { body: () => ({ state }) });
    if (it.breaker === "open") await breaker("Close the breaker", "closed", "It is tried again at once.");
    else await breaker("Open the breaker", "open", "It is left alone until the breaker is closed; its events wait, or go to a stand-in.");
    await offer("Limit…", `/sinks/${name}/limit`, `Limit ${name}`, ["It holds until the daemon ends or another one is set."],
      { method: "put", label: "Events in a second", body: text => ({ events_per_second: Number(text) }) });
    await offer("Lift the limit", `/sinks/${name}/limit`, `Lift the limit of ${name}?`, ["The one of the file holds again."], { method: "delete" });
  }
  if (kind === "route") {
    const tap = link("Tap it", "tap");
    tap.href += `?route=${encodeURIComponent(name)}`;
    const letters = link("Dead letters", "dead-letters");
    letters.href += `?route=${encodeURIComponent(name)}`;
    all.push(tap, letters);
  }
  return all;
}

/* Sources, routes and sinks with the edges between them, live. */
import { $, link, make, number, perSecond, seconds, age, shape, spark } from "./draw.js";
import * as detail from "./detail.js";
import { past } from "./hour.js";

/* Rates of the last seconds, which the steps of the last hour do not have yet. */
const KEPT = 10;
let last = null, lastAt = 0, chosen = [""];
const rates = new Map(), history = new Map(), counts = new Map();

export function enter(_, parts, __, status) {
  const before = chosen.join("/");
  chosen = parts;
  if (status) draw(status);
  detail.choose($("detail"), parts, status, before !== parts.join("/"));
}

export function leave() {
  detail.rest();
}

/* Rates are measured whatever view is open. */
export function hear(status, seen) {
  const at = performance.now();
  measure(status, at);
  [last, lastAt] = [status, at];
  if (seen) draw(status);
}

/* Counters become rates: what a restart has set back counts from there. */
function measure(status, at) {
  const counters = [];
  for (const it of status.sources) counters.push([`source ${it.name}`, it.received]);
  for (const route of status.routes) {
    counters.push([`park ${route.name}`, route.dead_lettered]);
    for (const leg of route.to) {
      const name = `${route.name} ${leg.sink}`;
      counters.push([`leg ${name}`, leg.delivered], [`retry ${name}`, leg.retried]);
    }
  }
  const took = (at - lastAt) / 1000;
  for (const [name, count] of counters) {
    const before = counts.get(name);
    counts.set(name, count);
    if (before === undefined || !last || took <= 0) continue;
    const rate = Math.max(0, count - before) / took, known = rates.get(name);
    rates.set(name, known === undefined ? rate : known + 0.3 * (rate - known));
    const recent = history.get(name) ?? [];
    recent.push(rate);
    if (recent.length > KEPT) recent.shift();
    history.set(name, recent);
  }
}

/* Keeps the nodes that are there, so that focus and clicks are not lost. */
function fill(list, things, kind, lines) {
  const wanted = new Set(things.map(it => it.name));
  for (const item of [...list.children]) if (!wanted.has(item.dataset.name)) item.remove();
  things.forEach((thing, place) => {
    let item = [...list.children].find(it => it.dataset.name === thing.name);
    if (!item) {
      item = make("li");
      item.dataset.name = thing.name;
      const node = link("", kind, thing.name);
      node.className = "node";
      node.id = `${kind} ${thing.name}`;
      node.append(make("strong", thing.name), make("small"), make("small"));
      item.append(node);
    }
    if (list.children[place] !== item) list.insertBefore(item, list.children[place] ?? null);
    const node = item.firstChild, [first, second, classes] = lines(thing);
    if (chosen[0] === kind && chosen[1] === thing.name) node.setAttribute("aria-current", "true");
    else node.removeAttribute("aria-current");
    node.children[1].textContent = first;
    node.children[2].textContent = second;
    node.children[2].className = classes ?? "";
  });
}

/* What keeps events from a sink, as a class of its edge; nothing if nothing does. */
function trouble(status, route, leg) {
  const sink = status.sinks.find(it => it.name === leg.sink);
  return sink?.breaker !== "closed" ? "open" : rates.get(`retry ${route.name} ${leg.sink}`) > 0.05 ? "retrying" : "";
}

function edges(status) {
  const flow = $("flow"), svg = flow.querySelector("svg"), from = flow.getBoundingClientRect();
  const side = (id, right) => {
    const box = $(id)?.getBoundingClientRect();
    return box && [(right ? box.right : box.left) - from.left, box.top + box.height / 2 - from.top];
  };
  const paths = [];
  const edge = (a, b, rate, classes, target) => {
    const start = side(a, true), end = side(b, false);
    if (!start || !end) return;
    const middle = (start[0] + end[0]) / 2;
    const d = `M${start} C${middle},${start[1]} ${middle},${end[1]} ${end}`;
    paths.push([{ d, "stroke-width": Math.min(12, 1.5 + 2 * Math.log10(1 + (rate ?? 0))), class: classes ?? "" }]);
    if (target) paths.push([{ d, "stroke-width": 16, class: "hit" }, () => { location.hash = `#/${target.map(encodeURIComponent).join("/")}`; }]);
  };
  for (const route of status.routes) {
    const parked = rates.get(`park ${route.name}`) ?? 0;
    /* What it takes of a source is not counted: no more than that brings, nor than goes out. */
    const out = route.to.reduce((sum, leg) => sum + (rates.get(`leg ${route.name} ${leg.sink}`) ?? 0), parked);
    for (const source of route.from) edge(`source ${source}`, `route ${route.name}`, Math.min(rates.get(`source ${source}`) ?? 0, out));
    for (const leg of route.to) {
      edge(`route ${route.name}`, `sink ${leg.sink}`, rates.get(`leg ${route.name} ${leg.sink}`), trouble(status, route, leg), ["edge", route.name, leg.sink]);
    }
    for (const sink of parked > 0.05 ? route.dead_letters : []) edge(`route ${route.name}`, `sink ${sink}`, parked, "parked");
  }
  /* They stay the elements that they are: who presses one lets go of it after the next status. */
  while (svg.children.length > paths.length) svg.lastChild.remove();
  while (svg.children.length < paths.length) svg.append(shape("path", {}));
  paths.forEach(([attributes, click], at) => {
    for (const [key, value] of Object.entries(attributes)) svg.children[at].setAttribute(key, value);
    svg.children[at].onclick = click ?? null;
  });
}

/* Rows stay where they are, so that focus is not lost. */
function legs(status) {
  const body = $("legs");
  const all = status.routes.flatMap(route => route.to.map(leg => ({ route: route.name, leg, name: `${route.name} ${leg.sink}` })));
  const wanted = new Set(all.map(it => it.name));
  for (const row of [...body.children]) if (!wanted.has(row.dataset.name)) row.remove();
  all.forEach(({ route, leg, name }, place) => {
    let row = [...body.children].find(it => it.dataset.name === name);
    if (!row) {
      row = make("tr");
      row.dataset.name = name;
      const first = make("td");
      first.append(link(`${route} → ${leg.sink}`, "edge", route, leg.sink));
      row.append(first, ...Array.from({ length: 10 }, () => make("td")));
      row.children[2].className = "plot";
    }
    if (body.children[place] !== row) body.insertBefore(row, body.children[place] ?? null);
    const cells = [perSecond(rates.get(`leg ${name}`)), null, number(leg.delivered), number(leg.in_flight), seconds(leg.p50_seconds), seconds(leg.p99_seconds),
      number(leg.retried), number(leg.dead_lettered), number(leg.returned), number(leg.duplicates)];
    cells.forEach((text, at) => {
      if (text !== null) row.children[at + 1].textContent = text;
    });
    row.children[2].replaceChildren(spark([...past(route, leg.sink), ...history.get(`leg ${name}`) ?? []]));
    row.children[8].className = leg.dead_lettered ? "bad" : "";
    row.children[9].className = leg.returned ? "bad" : "";
  });
}

function draw(status) {
  fill($("sources"), status.sources, "source", it => [
    it.paused ? "paused" : `${perSecond(rates.get(`source ${it.name}`))} · ${number(it.in_flight)} in flight`,
    it.problem ? "does not work" : it.backlog === null ? "" : `${number(it.backlog)} waiting${it.backlog_age_seconds ? `, ${age(it.backlog_age_seconds)}` : ""}`,
    it.problem ? "bad" : "",
  ]);
  fill($("routes"), status.routes, "route", it => {
    const sum = field => it.to.reduce((sum, leg) => sum + leg[field], 0);
    const rate = it.to.reduce((sum, leg) => sum + (rates.get(`leg ${it.name} ${leg.sink}`) ?? 0), 0);
    const parked = it.dead_lettered, returned = it.returned;
    /* Said in words as well: a phone has no edges, and not everybody sees red. */
    const troubled = kind => it.to.filter(leg => trouble(status, it, leg) === kind).map(leg => leg.sink).join(", ");
    const waits = troubled("open"), retries = troubled("retrying");
    return [it.from.every(name => status.sources.find(source => source.name === name)?.paused) ? "paused" : `${perSecond(rate)} · ${number(sum("delivered"))} delivered`,
      retries ? `retrying into ${retries}` : waits ? `waits for ${waits}` : returned ? `${number(returned)} returned` : parked ? `${number(parked)} parked` : "",
      retries || returned && !waits ? "bad" : "wait"];
  });
  const parkedIn = new Set(status.routes.flatMap(route => route.dead_letters));
  fill($("sinks"), status.sinks, "sink", it => {
    const legs = status.routes.flatMap(route => route.to.filter(leg => leg.sink === it.name).map(() => `leg ${route.name} ${it.name}`));
    return [
      legs.length || !parkedIn.has(it.name) ? perSecond(legs.reduce((sum, leg) => sum + (rates.get(leg) ?? 0), 0)) : "dead letters",
      it.held ? "left alone by an operator" : it.problem ? "does not work" : { closed: "", probing: "being tried again", open: "left alone" }[it.breaker],
      it.problem ? "bad" : "wait",
    ];
  });
  edges(status);
  legs(status);
  detail.refresh(status);
}

addEventListener("resize", () => last && !$("flow-view").hidden && edges(last));

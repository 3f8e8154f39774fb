/* Dead letters: counted, looked at, and sent again or thrown away after a dry run. */
import { Failure, ask, button, can, change, get, say, seesAll, stream, words } from "./api.js";
import { about, ago, choices, events, labelled, link, make, number, table, within, written } from "./draw.js";
import * as hour from "./hour.js";

let place = null, fields = null, found = null, work = null, past = null, parked = null, event = null;
let status = null, wished = null, timer = null;

const HOUR_AGAIN = 60_000;
/* So many are shown at once when somebody asks for more; the daemon tells no more. */
const SHOWN_MAX = 500;

export function enter(node, parts, query, known) {
  status = known ?? status;
  if (!place) build(node);
  wished = query;
  offer();
  event.replaceChildren();
  if (parts[1]) inspect(parts[1], query.get("parked_by"));
  found.hidden = Boolean(parts[1]);
  jobs();
  plots();
  clearInterval(timer);
  timer = setInterval(plots, HOUR_AGAIN);
}

export function leave() {
  clearInterval(timer);
}

/* Another configuration has other sinks and routes. */
export function hear(known) {
  const isOther = status?.generation !== known.generation;
  status = known;
  if (fields && isOther) offer();
}

const field = name => fields.elements.namedItem(name);

function build(node) {
  place = node;
  const spans = [["", "any time"], ["15m", "15 minutes"], ["1h", "1 hour"], ["24h", "24 hours"], ["7d", "7 days"]];
  const since = choices(make("select"), spans);
  const look = make("button", "Look", "strong");
  fields = within("form", "fields", labelled("sink", "Dead-letter sink", make("select")), labelled("route", "Route", make("select")),
    labelled("class", "Cause", make("input")), labelled("since", "Given up since", since), look);
  fields.onsubmit = event => {
    event.preventDefault();
    list(look);
  };
  found = make("div");
  found.setAttribute("aria-live", "polite");
  work = make("div");
  past = make("div");
  event = make("div");
  parked = make("section");
  parked.hidden = true;
  const note = "To look is to receive: while the daemon looks, and only then, a queue hides these messages from others; afterwards they are where they were.";
  place.append(within("section", "", make("h2", "Dead letters"), fields, make("p", note, "quiet")), parked, event, work, found, past);
}

/* The sinks and routes there are, and of these what a link has asked for, once they are known. Who
   has some routes looks at one of them at a time. */
async function offer() {
  if (!status) return;
  const routes = status.routes.map(route => [route.name, route.name]), sinks = new Set(status.routes.flatMap(route => route.dead_letters));
  const any = await seesAll() ? [["", "any"]] : [];
  choices(field("sink"), [["", "all"], ...[...sinks].map(it => [it, it])]);
  const all = [...any, ...routes];
  choices(field("route"), all.length ? all : [["", "none of yours is here"]]);
  fields.querySelector("button").disabled = !all.length;
  for (const name of ["sink", "route", "class"]) if (wished?.has(name)) field(name).value = wished.get(name);
  wished = null;
}

async function plots() {
  await hour.load();
  parked.hidden = false;
  parked.replaceChildren(make("h2", "Parked, by route and cause"), ...hour.ofParked());
}

/* What the form says, by the names that both a look and a job know; a job takes sinks. */
function selection() {
  const names = ["sink", "route", "class", "since"].filter(name => field(name).value.trim());
  return Object.fromEntries(names.map(name => [name, field(name).value.trim()]));
}

async function list(look, chosen = selection(), more = {}) {
  /* One event is left for all of them: there is one thing at a time to redrive. */
  if (found.hidden) history.replaceState(null, "", "#/dead-letters");
  found.hidden = false;
  inspected = null;
  event.replaceChildren();
  look.disabled = true;
  found.replaceChildren(within("section", "", make("p", "looking …", "quiet")));
  try {
    show(await get(`dead-letters?${new URLSearchParams({ ...chosen, ...more })}`), chosen);
  } catch (error) {
    found.replaceChildren(within("section", "", make("p", words(error), "bad")));
  } finally {
    look.disabled = false;
  }
}

/* A link that says which route has parked it; what the form says stays as it is. */
function ofRoute(to, route) {
  if (route) to.href += `?parked_by=${encodeURIComponent(route)}`;
  return to;
}

/* What was found of what was chosen: whatever the form says later, this is what is dealt with. */
function show(listing, chosen) {
  if (!listing) {
    found.replaceChildren(within("section", "", make("p", "this daemon cannot show dead letters", "quiet")));
    return;
  }
  const { groups, entries, summary } = listing;
  if (summary.meant === 0) {
    found.replaceChildren(within("section", "", make("p", summary.seen ? `none of ${events(summary.seen)} is meant` : "nothing is parked", "quiet")));
    return;
  }
  /* Nothing else can be asked for by having no route or no cause. */
  const cause = group => !group.class ? "not ours" : !group.route ? group.class : button(group.class, () => {
    const narrower = { ...chosen, route: group.route, class: group.class };
    for (const name of ["sink", "route", "class", "since"]) field(name).value = narrower[name] ?? "";
    fields.requestSubmit();
  }, "link");
  const counted = groups.map(group => [group.route ?? "–", cause(group), number(group.entries), ago(group.first), ago(group.last)]);
  const rows = entries.map(entry => [
    ago(entry.record?.last), ofRoute(link(entry.event.id ?? "–", "dead-letters", entry.event.id ?? ""), entry.record?.route), entry.event.type ?? "–",
    entry.record ? [entry.record.route ?? "–", entry.record.sink].filter(Boolean).join(" → ") : "–", entry.record?.class ?? "–",
    entry.unreadable ?? entry.record?.error ?? "no record of ours", entry.record?.redriven ? `${entry.record.redriven}×` : "–",
  ]);
  const head = `${events(summary.meant)} of ${number(summary.seen)}${summary.is_full ? ", and there may be more" : ""}`;
  const actions = offers(chosen);
  const isAll = entries.length >= summary.meant;
  const more = button(`Show ${number(Math.min(summary.meant, SHOWN_MAX))}`, () => list(more, chosen, { max: SHOWN_MAX }));
  const rest = "To see others, choose a route, a cause or a time. Redrive and discard mean all of them, shown or not.";
  found.replaceChildren(
    within("section", "", within("div", "head", make("h2", head), actions),
      make("h3", "By route and cause"), table("By route and cause", ["Route", "Cause", "Events", "First", "Last"], counted)),
    within("section", "", within("div", "head", make("h2", isAll ? "Each of them" : `The first ${number(entries.length)}`), ...(isAll || entries.length >= SHOWN_MAX ? [] : [more])),
      ...(isAll ? [] : [make("p", rest, "quiet")]),
      table("Dead letters", ["Given up", "Event", "Type", "Route and sink", "Cause", "long:In words", "Redriven"], rows)),
  );
}

/* What can be done with those that were chosen, to whoever may. */
function offers(chosen) {
  const actions = within("p", "buttons");
  for (const [text, task, classes] of [["Redrive…", "redrive", "strong"], ["Discard…", "discard", "danger"]]) {
    const offer = button(text, () => dryRun(task, chosen), classes);
    can("post", `/dead-letters/${task}`).then(may => may && (task === "redrive" ? actions.prepend(offer) : actions.append(offer)));
  }
  return actions;
}

/* The routes that may have parked an event, each of which is asked for: who sees all asks for all at
   once. */
async function mayHaveParked(asked) {
  if (asked) return [asked];
  if (await seesAll()) return [""];
  return ((status ?? await get("status"))?.routes ?? []).map(it => it.name);
}

let inspected = null;
async function inspect(id, asked) {
  inspected = id;
  const section = (...children) => within("section", "", ...children);
  const head = within("div", "head", make("h2", `Event ${id}`), link("close", "dead-letters"));
  const tell = (...sections) => inspected === id && location.hash.includes("/dead-letters/") && event.replaceChildren(...sections);
  tell(section(head, make("p", "looking …", "quiet")));
  try {
    const shown = [], problems = [], routes = await mayHaveParked(asked);
    for (const route of routes) {
      if (inspected !== id) return;
      const query = route ? `?${new URLSearchParams({ route })}` : "";
      const answer = await get(`dead-letters/${encodeURIComponent(id)}${query}`).catch(error => {
        if (routes.length === 1) throw error;
        problems.push(`not known of ${route}: ${words(error)}`);
      });
      const entries = answer?.entries ?? [];
      if (!entries.length) continue;
      const first = shown.length ? within("div", "head", make("h2", `And by ${route}`)) : head;
      first.append(offers(route ? { id, route } : { id }));
      shown.push(...entries.map((entry, at) => section(at === 0 ? first : make("h2", "And once more"), ...whole(entry))));
    }
    if (!shown.length) shown.push(section(head, make("p", "no dead letter is of this event", "quiet")));
    tell(...shown, ...problems.map(text => section(make("p", text, "bad"))));
  } catch (error) {
    tell(section(head, make("p", words(error), "bad")));
  }
}

/* All that is told of a dead letter. */
function whole(entry) {
  const { data, data_text, data_base64, ...rest } = entry.event;
  const body = data ?? data_text ?? data_base64;
  const pairs = { "dead-letter sink": entry.sink, ...entry.record, ...(entry.skipped && { skipped: entry.skipped }) };
  const facts = make("dl");
  for (const [name, value] of Object.entries(pairs)) facts.append(make("dt", name), make("dd", String(value)));
  const shown = make("pre", written(about(rest)));
  shown.tabIndex = 0;
  const none = make("p", "Its body and the values of its attributes are for administrators.", "quiet");
  return [facts, make("h3", "The event"), shown,
    ...(body === undefined ? [none] : [make("h3", "Its body"), make("pre", typeof body === "string" ? body : JSON.stringify(body, null, 2))])];
}

/* Which they are, in words. */
function which({ sinks, route, class: cause, since, id }) {
  if (id) return `Those of event ${id}${route ? ` that the route ${route} has parked` : ""}.`;
  const parts = [sinks.length ? `in ${sinks.join(", ")}` : "in all dead-letter sinks", route ? `of the route ${route}` : "of any route",
    cause ? `of the cause ${cause}` : "of any cause", since ? `given up in the last ${since}` : "given up at any time"];
  return `Those ${parts.join(", ")}.`;
}

async function dryRun(task, { sink, ...chosen }) {
  const job = await change(`dead-letters/${task}`, { dry_run: { ...chosen, ...(sink && { sinks: [sink] }) } });
  const done = await follow(job);
  if (done.state !== "done") return;
  const skipped = Object.entries(done.summary.skipped);
  const left = skipped.reduce((sum, [, count]) => sum + count, 0), meant = done.summary.meant - left;
  const verb = task === "redrive" ? "sent again" : "deleted for good";
  const text = [`${events(meant)} would be ${verb}; nothing has happened yet.`, which(done.selection), ...skipped.map(([why, count]) => `${number(count)} left alone: ${why}`)];
  if (meant === 0) {
    say(text.join("\n"));
    return;
  }
  text.push("What is parked from now on is not touched.");
  const yes = task === "redrive" ? `Redrive ${events(meant)}` : `Discard ${events(meant)}`;
  if (!await ask({ title: task === "redrive" ? "Send them again?" : "Delete them?", text, yes, danger: task === "discard" })) return;
  await follow(await change(`dead-letters/${task}`, { confirm: job.id }), meant);
  found.replaceChildren();
  event.replaceChildren();
}

const isOpen = job => job.state === "waiting" || job.state === "running";

/* Listens once. A stream ends early where the daemon takes up another file or a token ends; one that
   is out of reach may come back. */
async function listen(path, heard) {
  let isDone = false;
  try {
    await stream(path, it => {
      heard(it);
      isDone = !isOpen(it);
    });
  } catch (error) {
    if (!(error instanceof Failure) || error.status) throw error;
  }
  if (!isDone) await new Promise(resolve => setTimeout(resolve, 1000));
}

/* Shows a job until it has ended. */
async function follow(job, meant) {
  const title = make("h2", name(job)), bar = make("progress"), line = make("p");
  line.setAttribute("role", "status");
  const stop = button("Stop", () => change(`jobs/${job.id}/stop`), "danger");
  bar.setAttribute("aria-label", name(job));
  if (meant) bar.max = meant;
  work.replaceChildren(within("section", "", within("div", "head", title, stop), bar, line));
  let now = job;
  const hear = told => {
    now = told;
    if (meant && now.state !== "waiting") bar.value = meant - left(now.summary) - now.summary.in_flight;
    line.textContent = sum(now);
  };
  hear(job);
  try {
    while (isOpen(now)) await listen(`jobs/${job.id}/live`, hear);
  } catch (error) {
    line.textContent = error.status === 404 ? "the daemon does not know of it any more: it may have ended since" : words(error);
    line.className = "bad";
    throw error;
  } finally {
    stop.remove();
  }
  if (meant && now.state === "done") bar.value = meant;
  bar.hidden = !meant;
  if (now.state !== "done") line.className = "bad";
  jobs();
  return now;
}

const name = job => `${{ redrive: "Redrive", discard: "Discard", list: "Look" }[job.task]}${job.dry_run ? ", dry run" : ""}`;
const total = counts => Object.values(counts).reduce((sum, count) => sum + count, 0);
const left = it => Math.max(0, it.meant - it.redriven - it.duplicates - it.filtered - it.discarded - total(it.failed) - total(it.skipped) - it.in_flight);

function sum(job) {
  const { summary: it } = job, state = { waiting: "waits for its turn", running: "under way", done: "done", failed: "failed", stopped: "stopped" }[job.state];
  const parts = [`${state}: ${number(it.meant)} of ${number(it.seen)} meant`];
  const counts = [[it.redriven, "redriven"], [it.duplicates, "had been delivered before"], [it.filtered, "filtered by their routes"], [it.discarded, "discarded"], [it.in_flight, "under way"]];
  for (const [count, what] of counts) if (count) parts.push(`${number(count)} ${what}`);
  for (const [cause, count] of Object.entries(it.failed)) parts.push(`${number(count)} failed again: ${cause}`);
  for (const [why, count] of Object.entries(it.skipped)) parts.push(`${number(count)} left alone: ${why}`);
  if (!job.dry_run && job.ended && left(it)) parts.push(`${number(left(it))} left where they were`);
  if (job.error) parts.push(job.error);
  return parts.join(" · ");
}

async function jobs() {
  const known = await seesAll().catch(() => false) ? (await get("jobs").catch(() => null))?.jobs ?? [] : [];
  if (known.length === 0) {
    past.replaceChildren();
    return;
  }
  const chosen = job => [job.selection.sinks.join(", "), job.selection.route, job.selection.class, job.selection.since, job.selection.id].filter(Boolean).join(", ") || "all";
  const rows = known.map(job => [job.id, name(job), chosen(job), ago(job.began), sum(job)]);
  past.replaceChildren(within("section", "", make("h2", "What was done"), table("Jobs", ["Job", "What", "Which", "Began", "long:What became of it"], rows)));
}

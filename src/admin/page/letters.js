/* Dead letters: counted, looked at, and sent again or thrown away after a dry run. */
import { ask, button, change, get, say, stream } from "./api.js";
import { about, ago, choices, events, labelled, link, make, number, table, within, written } from "./draw.js";

let place = null, fields = null, found = null, work = null, past = null, status = null;

export function enter(node, parts, query, known) {
  status = known ?? status;
  if (!place) build(node);
  for (const name of ["sink", "route", "class"]) if (query.has(name)) field(name).value = query.get(name);
  if (parts[1]) inspect(parts[1]);
  jobs();
}

export function hear(known) {
  const isFirst = !status;
  status = known;
  if (fields && isFirst) offer();
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
  const note = "To look is to receive: while the daemon looks, and only then, a queue hides these messages from others; afterwards they are where they were.";
  place.append(within("section", "", make("h2", "Dead letters"), fields, make("p", note, "quiet")), work, found, past);
  offer();
}

/* The sinks and routes there are. */
function offer() {
  const fill = (name, all, names) => choices(field(name), [["", all], ...names.map(it => [it, it])]);
  const routes = status?.routes ?? [];
  fill("sink", "all", [...new Set(routes.flatMap(route => route.dead_letters))]);
  fill("route", "any", routes.map(route => route.name));
}

function selection() {
  const chosen = {};
  if (field("sink").value) chosen.sinks = [field("sink").value];
  for (const name of ["route", "class", "since"]) if (field(name).value.trim()) chosen[name] = field(name).value.trim();
  return chosen;
}

async function list(look) {
  const query = new URLSearchParams();
  for (const name of ["sink", "route", "class", "since"]) if (field(name).value.trim()) query.set(name, field(name).value.trim());
  look.disabled = true;
  found.replaceChildren(within("section", "", make("p", "looking …", "quiet")));
  try {
    show(await get(`dead-letters?${query}`));
  } catch (error) {
    found.replaceChildren(within("section", "", make("p", error.message, "bad")));
  } finally {
    look.disabled = false;
  }
}

function show(listing) {
  if (!listing) {
    found.replaceChildren(within("section", "", make("p", "this daemon cannot show dead letters", "quiet")));
    return;
  }
  const { groups, entries, summary } = listing;
  if (summary.meant === 0) {
    found.replaceChildren(within("section", "", make("p", summary.seen ? `none of ${events(summary.seen)} is meant` : "nothing is parked", "quiet")));
    return;
  }
  const counted = groups.map(group => [
    group.route ?? "–",
    button(group.class ?? "not ours", () => {
      field("route").value = group.route ?? "";
      field("class").value = group.class ?? "";
      fields.requestSubmit();
    }, "link"),
    number(group.entries), ago(group.first), ago(group.last),
  ]);
  const rows = entries.map(entry => [
    ago(entry.record?.last), link(entry.event.id ?? "–", "dead-letters", entry.event.id ?? ""), entry.event.type ?? "–",
    entry.record ? [entry.record.route ?? "–", entry.record.sink].filter(Boolean).join(" → ") : "–", entry.record?.class ?? "–",
    entry.unreadable ?? entry.record?.error ?? "no record of ours", entry.record?.redriven ? `${entry.record.redriven}×` : "–",
  ]);
  const head = `${events(summary.meant)} of ${number(summary.seen)}${summary.is_full ? ", and there may be more" : ""}`;
  const actions = within("p", "buttons",
    button("Redrive…", () => dryRun("redrive"), "strong"), button("Discard…", () => dryRun("discard"), "danger"));
  found.replaceChildren(
    within("section", "", within("div", "head", make("h2", head), actions),
      make("h3", "By route and cause"), table("By route and cause", ["Route", "Cause", "Events", "First", "Last"], counted)),
    within("section", "", make("h2", entries.length < summary.meant ? `The first ${number(entries.length)}` : "Each of them"),
      table("Dead letters", ["Given up", "Event", "Type", "Route and sink", "Cause", "long:In words", "Redriven"], rows)),
  );
}

async function inspect(id) {
  work.replaceChildren(within("section", "", make("p", `looking for ${id} …`, "quiet")));
  try {
    const listing = await get(`dead-letters/${encodeURIComponent(id)}`);
    const shown = listing?.entries ?? [];
    const head = within("div", "head", make("h2", `Event ${id}`), link("close", "dead-letters"));
    if (!shown.length) work.replaceChildren(within("section", "", head, make("p", "no dead letter is of this event", "quiet")));
    else work.replaceChildren(...shown.map((entry, at) => {
      const { data, data_text, data_base64, ...rest } = entry.event;
      const body = data ?? data_text ?? data_base64;
      const pairs = { "dead-letter sink": entry.sink, ...entry.record, ...(entry.skipped && { skipped: entry.skipped }) };
      const facts = make("dl");
      for (const [name, value] of Object.entries(pairs)) facts.append(make("dt", name), make("dd", String(value)));
      const event = make("pre", written(about(rest)));
      event.tabIndex = 0;
      return within("section", "", at === 0 ? head : make("h2", "And once more"), facts, make("h3", "The event"), event,
        ...(body === undefined ? [make("p", "Its body and the values of its attributes are for administrators.", "quiet")] : [make("h3", "Its body"), make("pre", typeof body === "string" ? body : JSON.stringify(body, null, 2))]));
    }));
  } catch (error) {
    work.replaceChildren(within("section", "", make("p", error.message, "bad")));
  }
}

async function dryRun(task) {
  const job = await change(`dead-letters/${task}`, { dry_run: selection() });
  const done = await follow(job);
  if (done.state !== "done") return;
  const skipped = Object.entries(done.summary.skipped);
  const left = skipped.reduce((sum, [, count]) => sum + count, 0), meant = done.summary.meant - left;
  const verb = task === "redrive" ? "sent again" : "deleted for good";
  const text = [`${events(meant)} would be ${verb}; nothing has happened yet.`, ...skipped.map(([why, count]) => `${number(count)} left alone: ${why}`)];
  if (meant === 0) {
    say(text.join("\n"));
    return;
  }
  text.push("What is parked from now on is not touched.");
  const yes = task === "redrive" ? `Redrive ${events(meant)}` : `Discard ${events(meant)}`;
  if (!await ask({ title: task === "redrive" ? "Send them again?" : "Delete them?", text, yes, danger: task === "discard" })) return;
  await follow(await change(`dead-letters/${task}`, { confirm: job.id }), meant);
  found.replaceChildren();
}

/* Shows a job until it has ended. */
async function follow(job, meant) {
  const title = make("h2", name(job)), bar = make("progress"), words = make("p");
  words.setAttribute("role", "status");
  const stop = button("Stop", () => change(`jobs/${job.id}/stop`), "danger");
  bar.setAttribute("aria-label", name(job));
  if (meant) bar.max = meant;
  work.replaceChildren(within("section", "", within("div", "head", title, stop), bar, words));
  let now = job;
  const hear = told => {
    now = told;
    if (meant && now.state !== "waiting") bar.value = meant - left(now.summary) - now.summary.in_flight;
    words.textContent = sum(now);
  };
  hear(job);
  await stream(`jobs/${job.id}/live`, hear);
  if (meant && now.state === "done") bar.value = meant;
  bar.hidden = !meant;
  stop.remove();
  if (now.state !== "done") words.className = "bad";
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
  const known = (await get("jobs").catch(() => null))?.jobs ?? [];
  if (known.length === 0) {
    past.replaceChildren();
    return;
  }
  const chosen = job => [job.selection.sinks.join(", "), job.selection.route, job.selection.class, job.selection.since].filter(Boolean).join(", ") || "all";
  const rows = known.map(job => [job.id, name(job), chosen(job), ago(job.began), sum(job)]);
  past.replaceChildren(within("section", "", make("h2", "What was done"), table("Jobs", ["Job", "What", "Which", "Began", "long:What became of it"], rows)));
}

/* What runs, and what the file says now. */
import { ask, button, can, change, get, say, seesAll, words } from "./api.js";
import { make, within, written } from "./draw.js";

let place = null, generation = null;

export function enter(node) {
  place = node;
  load();
}

/* Another configuration runs: what is shown is of the past. Each is asked for once, whatever becomes
   of that. */
export function hear(status, seen) {
  const isOther = generation !== null && status.generation !== generation;
  if (!seen || !isOther) return;
  generation = status.generation;
  load();
}

async function load() {
  try {
    if (await seesAll()) show(await get("config"));
    else place.replaceChildren(within("section", "", make("p", "The configuration is for those who may see all routes.", "quiet")));
  } catch (error) {
    place.replaceChildren(within("section", "", make("p", words(error), "bad"), within("p", "buttons", button("Ask again", load))));
  }
}

function lines(title, all, classes) {
  return all.length ? [make("h3", title), within("ul", `plain ${classes ?? ""}`, ...all.map(line => make("li", line)))] : [];
}

function show(settings) {
  generation = settings.generation;
  const { now } = settings;
  const state = !now ? "the daemon was not started with a file"
    : now.problems.length ? "the file cannot be used; what runs goes on"
    : now.needs_restart.length ? "the file needs a restart of the daemon; what runs goes on"
    : now.changes.length || now.restarted.length ? "the file says something else than what runs"
    : now.generation === settings.generation ? "the file is what runs" : "the file means the same as what runs";
  const isBad = now && (now.problems.length || now.needs_restart.length);
  const word = make("p", state, isBad ? "bad" : now?.changes.length ? "wait" : "good");
  word.setAttribute("role", "status");
  const changes = make("pre");
  for (const line of now?.changes ?? []) changes.append(make("span", `${line}\n`, line[0] === "+" ? "add" : line[0] === "-" ? "cut" : ""));
  const running = make("pre", written(settings.running));
  running.tabIndex = 0;
  running.setAttribute("role", "region");
  running.setAttribute("aria-label", "What runs");
  const reload = button("Reload…", async () => {
    const text = now?.changes.length ? [...now.changes, now.restarted.length ? `starting anew: ${now.restarted.join(", ")}` : "no source starts anew"] : ["The file is read again."];
    if (!await ask({ title: "Take up the file?", text, yes: "Reload" })) return;
    const { generation, restarted } = await change("reload");
    say(`generation ${generation} runs; ${restarted.length ? `starting anew: ${restarted.join(", ")}` : "no source starts anew"}`);
    await load();
  }, now?.changes.length && !isBad ? "strong" : "");
  const validate = button("Validate", async () => {
    await load();
    say("read again");
  });
  reload.hidden = true;
  validate.hidden = !now;
  const buttons = within("p", "buttons", validate, reload);
  can("post", "/reload").then(may => reload.hidden = !now || !may);
  ending().then(end => end && buttons.append(end));
  place.replaceChildren(
    within("section", "", within("div", "head", make("h2", `Configuration ${settings.generation}`), buttons),
      settings.file && make("p", settings.file, "quiet"), word,
      ...(now?.changes.length ? [make("h3", "A reload would change"), changes] : []),
      ...lines("Starting anew", now?.restarted ?? []), ...lines("What is wrong", now?.problems ?? [], "bad"),
      ...lines("Needs a restart", now?.needs_restart ?? [], "bad"), ...lines("Warnings", now?.warnings ?? [], "wait")),
    within("section", "", make("h2", "What runs"), make("p", "With every default filled in. Secrets stand there as references.", "quiet"), running),
  );
}

/* Offered as far as the daemon can, to whoever may. */
async function ending() {
  const operation = await can("post", "/drain");
  return operation && button("End the daemon…", async () => {
    const text = ["It receives nothing more; what is in flight finishes or goes back to its source, and the process ends. It starts again only where something else starts it."];
    if (!await ask({ title: "End the daemon?", text, yes: "End it", danger: true })) return;
    await change("drain");
    say("the daemon is ending");
  }, "danger");
}

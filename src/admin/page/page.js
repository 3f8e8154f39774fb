/* Which view there is, and what all of them know. */
import { say, stream, words } from "./api.js";
import { $, age, make } from "./draw.js";
import * as flow from "./flow.js";
import * as letters from "./letters.js";
import * as tap from "./tap.js";
import * as traces from "./traces.js";
import * as settings from "./settings.js";

/* A view knows its place and what it shows there. `leave` ends what it has begun. */
const views = { "": flow, source: flow, route: flow, sink: flow, edge: flow, "dead-letters": letters, tap, traces, config: settings };
const places = new Map([[flow, "flow-view"], [letters, "letters-view"], [tap, "tap-view"], [traces, "traces-view"], [settings, "config-view"]]);
const titles = { "": "Flow", "dead-letters": "Dead letters", tap: "Tap", traces: "Traces", config: "Config" };
let last = null, shown = null;

function where() {
  const [path, query] = location.hash.replace(/^#\/?/, "").split("?");
  const parts = path.split("/").map(part => {
    try { return decodeURIComponent(part); } catch { return part; }
  });
  return { parts: Object.hasOwn(views, parts[0]) ? parts : [""], query: new URLSearchParams(query ?? "") };
}

function turn() {
  if (location.hash === "#main") return;
  const { parts, query } = where(), view = views[parts[0]];
  if (shown && shown !== view) shown.leave?.();
  for (const [other, place] of places) $(place).hidden = other !== view;
  const about = titles[parts[0]] ?? parts.join(" ");
  document.title = `${about} · eventferry`;
  const section = Object.hasOwn(titles, parts[0]) ? parts[0] : "";
  for (const it of document.querySelectorAll("nav a")) {
    if (it.getAttribute("href") === `#/${section}`) it.setAttribute("aria-current", "page");
    else it.removeAttribute("aria-current");
  }
  shown = view;
  view.enter($(places.get(view)), parts, query, last);
}

/* A screen reader says it when it is another. */
function tell(text, classes) {
  if ($("state").textContent !== text) $("state").textContent = text;
  $("state").className = classes;
}

function hear(status) {
  last = status;
  const ready = status.problems.length === 0;
  tell(ready ? "ready" : "not ready", ready ? "good" : "bad");
  $("about").textContent = `${status.version} · configuration ${status.generation} · up ${age(status.uptime_seconds)}`;
  if ($("problems").textContent !== status.problems.join("")) {
    $("problems").replaceChildren(...status.problems.map(problem => make("li", problem)));
  }
  for (const view of places.keys()) view.hear?.(status, view === shown);
}

/* For as long as the page is open; a daemon that is gone may come back. */
async function live() {
  for (;;) {
    let why = "asking the daemon again", goesOn = new Promise(resolve => setTimeout(resolve, 2000));
    try {
      await stream("status/live", hear);
    } catch (error) {
      why = words(error);
      if (error.status === 401) goesOn = new Promise(resolve => addEventListener("sign-in", resolve, { once: true }));
    }
    tell(why, "bad");
    await goesOn;
  }
}

addEventListener("hashchange", turn);
addEventListener("unhandledrejection", event => say(words(event.reason)));
addEventListener("sign-in", turn);
document.querySelector(".skip").onclick = event => {
  event.preventDefault();
  $("main").focus();
};
turn();
live();

/* A view of what passes: a form, the stream that it opens, and what has come of it, newest first. */
import { button, say, seesAll, stream, words } from "./api.js";
import { choices, labelled, make, number, within } from "./draw.js";

/* `path` is what the API calls it; `numbers` are the fields of the form, as name, words, value and
   most; `counted` puts a number of what passes into words, and `ends` why there is no more of it.
   `begin` makes what is called with each that is told: it gives back whether that counts. */
export function passing({ path, title, note, label, words: [open, close, closed], awaited, numbers, counted, ends, kept, begin }) {
  let place = null, fields = null, list = null, told = null, status = null, listening = null, toggle = null, wished = null;
  const field = name => fields.elements.namedItem(name);

  function build(node) {
    place = node;
    toggle = make("button", open, "strong");
    const count = ([name, text, value, max]) => labelled(name, text, Object.assign(make("input"), { type: "number", value, min: 1, max }));
    fields = within("form", "fields", labelled("route", "Route", make("select")), ...numbers.map(count), toggle, button("Clear", () => list.replaceChildren()));
    fields.onsubmit = event => {
      event.preventDefault();
      if (listening) listening.abort();
      else listen();
    };
    told = make("p", note, "quiet");
    told.setAttribute("role", "status");
    list = make("div");
    list.setAttribute("role", "log");
    list.setAttribute("aria-label", label);
    place.append(within("section", "", make("h2", title), fields, told), within("section", "", list));
    list.parentElement.hidden = true;
  }

  /* The routes there are; one that a link has asked for is chosen once they are known. */
  async function offer() {
    if (!status) return;
    const any = await seesAll() ? [["", "any"]] : [];
    const all = [...any, ...status.routes.map(it => [it.name, it.name])];
    choices(field("route"), all.length ? all : [["", "none of yours is here"]]);
    toggle.disabled = !all.length;
    if (wished) field("route").value = wished;
    wished = null;
  }

  /* Puts one on top, or in the place of what was shown of it before. */
  function show(node, before) {
    if (before?.isConnected) before.replaceWith(node);
    else list.prepend(node);
    list.parentElement.hidden = false;
    while (list.children.length > kept) list.lastChild.remove();
  }

  async function listen() {
    listening = new AbortController();
    toggle.textContent = close;
    const query = new URLSearchParams(numbers.map(([name]) => [name, field(name).value]));
    if (field("route").value) query.set("route", field("route").value);
    const hear = begin(show);
    let seen = 0, dropped = 0, end = "cut off: the daemon has taken up another configuration, or a token has ended";
    const sum = () => `${counted(seen)}${dropped ? `, ${number(dropped)} left out: they came too fast` : ""}`;
    told.textContent = awaited;
    try {
      await stream(`${path}?${query}`, (it, name) => {
        dropped = it.dropped ?? dropped;
        if (name === "end") {
          end = ends[it.why] ?? it.why;
          return;
        }
        if (hear(it)) seen += 1;
        told.textContent = `open · ${sum()}`;
      }, listening.signal);
    } catch (error) {
      end = error.name === "AbortError" ? closed : words(error);
      if (end !== closed) say(end);
    }
    told.textContent = `${sum()}; ${end}`;
    listening = null;
    toggle.textContent = open;
  }

  return {
    enter(node, _, query, known) {
      status = known ?? status;
      if (!place) build(node);
      wished = query.get("route");
      offer();
    },
    leave() {
      listening?.abort();
    },
    /* Another configuration has other routes. */
    hear(known) {
      const isOther = status?.generation !== known.generation;
      status = known;
      if (fields && isOther) offer();
    },
  };
}

/* Numbers, times, nodes and plots. */
export const $ = id => document.getElementById(id);
const SVG = "http://www.w3.org/2000/svg";

export const number = n => n === null || n === undefined ? "–" : n.toLocaleString("en");
export const perSecond = n => n === undefined || n === null ? "–" : `${n < 10 ? Math.round(n * 10) / 10 : Math.round(n).toLocaleString("en")}/s`;
export const seconds = s => s === null ? "–" : s < 1 ? `≤ ${s * 1000} ms` : `≤ ${s} s`;
export const age = s => s < 120 ? `${s} s` : s < 7200 ? `${Math.floor(s / 60)} min` : s < 172800 ? `${Math.floor(s / 3600)} h` : `${Math.floor(s / 86400)} d`;
export const ago = time => time ? `${age(Math.max(0, Math.round((Date.now() - new Date(time)) / 1000)))} ago` : "–";
export const events = n => n === 1 ? "1 event" : `${number(n)} events`;

export function make(tag, text, classes) {
  const node = document.createElement(tag);
  if (text !== undefined) node.textContent = text;
  if (classes) node.className = classes;
  return node;
}

/* An event that is seen from outside has names of attributes and no values. */
export function about(event) {
  const { attributes, ...rest } = event;
  const names = Object.entries(attributes ?? {});
  if (!names.length) return rest;
  return { ...rest, attributes: names.every(([, value]) => value === null) ? names.map(([name]) => name) : attributes };
}

export function within(tag, classes, ...children) {
  const node = make(tag, undefined, classes);
  node.append(...children.filter(Boolean));
  return node;
}

/* A control of a form, under its words. */
export function labelled(name, text, control) {
  control.name = name;
  return within("label", "", make("span", text), control);
}

/* What a select offers, as pairs of value and text; what is chosen stays, as long as it is there. */
export function choices(select, pairs) {
  const held = select.value;
  select.replaceChildren(...pairs.map(([value, text]) => Object.assign(make("option", text), { value })));
  select.value = pairs.some(([value]) => value === held) ? held : pairs[0]?.[0] ?? "";
  return select;
}

export function shape(name, attributes) {
  const node = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  return node;
}

export function link(text, ...path) {
  const node = make("a", text);
  node.href = `#/${path.map(encodeURIComponent).join("/")}`;
  return node;
}

/* A table in a frame of its own, so that it scrolls alone. Cells are nodes or text; a `long:` head
   wraps. */
export function table(label, heads, rows) {
  const line = make("tr");
  for (const head of heads) {
    const cell = make("th", head.replace("long:", ""));
    cell.scope = "col";
    line.append(cell);
  }
  const body = make("tbody");
  for (const row of rows) {
    const tr = make("tr");
    row.forEach((cell, at) => {
      const td = make("td", undefined, heads[at].startsWith("long:") ? "long" : "");
      td.append(cell ?? "–");
      tr.append(td);
    });
    body.append(tr);
  }
  const frame = within("div", "scroll", within("table", "", within("thead", "", line), body));
  frame.tabIndex = 0;
  frame.setAttribute("role", "region");
  frame.setAttribute("aria-label", label);
  return frame;
}

/* The points of a series, in runs: where nothing is known, there is no line. */
function paths(values, width, height) {
  const top = Math.max(1e-9, ...values.map(it => it ?? 0)), step = width / Math.max(1, values.length - 1);
  let line = "", area = "", from = null;
  const end = at => {
    if (from === null) return;
    area += `L${(at * step).toFixed(1)},${height}Z`;
    /* One that is alone is seen as well. */
    if (from === at) line += "h1";
    from = null;
  };
  values.forEach((value, at) => {
    if (value === null || value === undefined) return end(at - 1);
    const point = `${(at * step).toFixed(1)},${(height - 1 - (height - 4) * value / top).toFixed(1)}`;
    line += `${from === null ? "M" : "L"}${point}`;
    area += from === null ? `M${(at * step).toFixed(1)},${height}L${point}` : `L${point}`;
    from ??= at;
  });
  end(values.length - 1);
  return [area, line];
}

export function spark(values) {
  const svg = shape("svg", { viewBox: "0 0 144 26", "aria-hidden": "true", preserveAspectRatio: "none" });
  if (values.length > 1) svg.append(shape("path", { d: paths(values, 144, 26)[1], class: "line" }));
  return svg;
}

/* A plot of the last hour with its words. */
export function plot(title, values, told, classes) {
  const width = 360, height = 60;
  /* A daemon that has just started has no line as wide as an hour's. */
  const whole = [...Array(Math.max(0, 30 - values.length)).fill(null), ...values];
  const svg = shape("svg", { viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none", role: "img", "aria-label": `${title}: ${told}` });
  const [area, line] = paths(whole, width, height);
  svg.append(shape("path", { d: area, class: "area" }), shape("path", { d: line, class: "line" }));
  const caption = within("figcaption", "", make("span", title), make("span", told));
  return within("figure", classes, svg, caption);
}

/* Settings as YAML would have them, nearly; without those that are not set. */
export function written(value, indent = 0) {
  const pad = "  ".repeat(indent);
  const is = it => it !== null && typeof it === "object" && Object.keys(it).length > 0;
  const plain = it => {
    if (it !== null && typeof it === "object") return Array.isArray(it) ? "[]" : "{}";
    return typeof it === "string" && it.includes("\n") ? `|\n${it.trimEnd().split("\n").map(line => `${pad}  ${line}`).join("\n")}`
      : typeof it === "string" && /^[A-Za-z0-9_.\/$<>-][^#]*$/.test(it) && !it.includes(": ") ? it : JSON.stringify(it);
  };
  if (!is(value)) return `${pad}${plain(value)}\n`;
  if (Array.isArray(value)) {
    if (value.every(it => !is(it) && !String(it).includes("\n"))) return `${pad}[${value.map(plain).join(", ")}]\n`;
    return value.map(it => `${pad}- ${written(it, indent + 1).trimStart()}`).join("");
  }
  return Object.entries(value).filter(([, it]) => it !== null).map(([key, it]) => {
    const short = Array.isArray(it) && it.every(one => !is(one) && !String(one).includes("\n"));
    return !is(it) ? `${pad}${key}: ${plain(it)}\n` : short ? `${pad}${key}: ${written(it, 0)}` : `${pad}${key}:\n${written(it, indent + 1)}`;
  }).join("");
}

/* What can be done to a source, a route or a sink, as far as the daemon can. Each asks once. */
import { ask, at, button, can, change, say } from "./api.js";
import { link } from "./draw.js";
import { goBack } from "./rewind.js";

const isPaused = ({ kind, it, status }) => kind === "route" ? it.from.every(name => status.sources.find(source => source.name === name)?.paused) : it.paused;

/* What the offers depend on, as a text. */
export function state({ kind, it, status, partitions }) {
  return it ? JSON.stringify([status.generation, kind, it.name, isPaused({ kind, it, status }), it.breaker, it.held, it.limit_overridden, it.rate_limit, it.rate_limit_overridden, partitions]) : "";
}

export async function offers({ kind, it, status, partitions }) {
  const all = [];
  const offer = async (text, template, title, lines, options = {}) => {
    const { method = "post", body, label } = options, operation = await can(method, template);
    if (!operation) return;
    all.push(button(text, async () => {
      const agreed = await ask({ title, text: lines, label, yes: text });
      if (!agreed) return;
      await change(at(template, it.name), body?.(agreed), method.toUpperCase());
      say(`${text}: done`);
    }));
  };
  const { name } = it;
  /* What others use as well is not for who has some routes alone. */
  const isShared = kind === "route" ? status.sources.some(source => source.shared && it.from.includes(source.name)) : it.shared;
  if ((kind === "source" || kind === "route") && !isShared) {
    const below = `/${kind}s/{${kind}}`;
    /* A route is paused by its sources, which others may read as well. */
    const others = kind === "route" ? status.routes.filter(other => other.name !== name && other.from.some(source => it.from.includes(source))).map(other => other.name) : [];
    const shared = others.length ? [`With it: ${others.join(", ")}, which ${others.length === 1 ? "reads" : "read"} the same.`] : [];
    const options = others.length ? { body: () => ({ with_others: true }) } : {};
    if (isPaused({ kind, it, status })) await offer("Resume", `${below}/resume`, `Resume ${kind} ${name}?`, ["Its events flow again.", ...shared], options);
    else await offer("Pause", `${below}/pause`, `Pause ${kind} ${name}?`, [`Nothing more is received${kind === "route" ? ` from ${it.from.join(", ")}` : ""} until it is resumed; what is under way finishes. Events wait at the service.`, ...shared], options);
  }
  /* Where a limit drops, another one throws events away: that is not done by the way. */
  if (kind === "route" && !isShared && it.rate_limit?.over !== "drop") {
    const starts = [`What reads ${it.from.join(", ")} starts anew with it; what waits for its turn goes back until then.`];
    await offer("Limit…", "/routes/{route}/limit", `Limit ${name}`, ["It holds until the daemon ends or another one is set.", ...starts],
      { method: "put", label: "Events in a second", body: text => ({ burst: it.rate_limit?.burst, by: it.rate_limit?.by, per_second: Number(text) }) });
    if (it.rate_limit_overridden) await offer("Lift the limit", "/routes/{route}/limit", `Lift the limit of ${name}?`, ["What the file says holds again.", ...starts], { method: "delete" });
  }
  if (kind === "source" && !isShared && partitions.length) {
    const operation = await can("post", "/sources/{source}/rewind");
    if (operation) all.push(goBack(name, partitions));
  }
  if (kind === "sink" && !isShared) {
    const breaker = (text, state, line) => offer(text, "/sinks/{sink}/breaker", `${text} of ${name}?`, [line], { body: () => ({ state }) });
    if (it.held || it.breaker === "open") await breaker("Close the breaker", "closed", "It is sent to again, and what has failed there is tried at once.");
    else await breaker("Open the breaker", "open", "It is left alone until the breaker is closed; its events wait, or go to a stand-in.");
    await offer("Limit…", "/sinks/{sink}/limit", `Limit ${name}`, ["It holds until the daemon ends or another one is set. A limit of bytes stays as it is."],
      { method: "put", label: "Events in a second", body: text => ({ ...it.limit, events_per_second: Number(text) }) });
    if (it.limit_overridden) await offer("Lift the limit", "/sinks/{sink}/limit", `Lift the limit of ${name}?`, ["The one of the file holds again."], { method: "delete" });
  }
  if (kind === "route") {
    for (const [text, view] of [["Tap it", "tap"], ["Trace it", "traces"], ["Dead letters", "dead-letters"]]) {
      const to = link(text, view);
      to.href += `?route=${encodeURIComponent(name)}`;
      all.push(to);
    }
  }
  return all;
}

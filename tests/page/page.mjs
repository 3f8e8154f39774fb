// Every view of the page in a real browser, as a person would use it. See run.sh.
import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer } from "node:http";
import { join } from "node:path";
import { Readable } from "node:stream";
import { complaints, ends, finish, has, open, tell, test, trace, turnTo, undescribed, visit } from "./browser.mjs";
import { Rig, until } from "./rig.mjs";

const images = process.env.PAGE_IMAGES;
const broken = [3, 7, 11];

const rig = await Rig.start();
let stopFlow = async () => {};
ends(async () => {
  await stopFlow();
  await rig.stop();
});
tell("clouds and daemon are ready");

const page = await visit();
const go = path => open(page, rig.admin, path);
const picture = async (name, of = page) => {
  if (images) await of.screenshot({ path: join(images, `${name}.png`) });
};

await rig.publish(1, 20, broken);
stopFlow = rig.flow();
await until(async () => {
  const [{ dead_lettered, to }] = (await rig.status()).routes;
  return to[0].delivered > 30 && dead_lettered === broken.length;
}, "orders arrive, and those that are broken are parked");

await test("the first look asks nobody else", async () => {
  const asked = [];
  page.on("request", request => asked.push(request.url()));
  const from = Date.now();
  await go("");
  await page.locator("#legs tr").first().waitFor();
  const took = Date.now() - from;
  console.log(`        first data after ${took} ms`);
  assert.deepEqual(asked.filter(url => !url.startsWith(rig.admin)), []);
});

const delivered = () => page.locator("#legs tr").first().locator("td").nth(3).textContent();

await test("the flow is live: nodes, edges, rates", async () => {
  await has(page.locator("#state"), /^ready$/);
  for (const name of ["source orders", "route orders-to-azure", "sink order_hub", "sink parked"]) {
    await page.locator(`[id="${name}"]`).waitFor();
  }
  const before = await delivered();
  await until(async () => await delivered() !== before, "the count goes on");
  assert.equal(await page.locator("#flow path.hit").count(), 3);
  await has(page.locator("[id='sink parked']"), "dead letters");
  await has(page.locator("[id='route orders-to-azure']"), "3 parked");
});

await test("drill-down: series, last errors, configuration; and back", async () => {
  await until(async () => (await (await fetch(`${rig.admin}/history`)).json()).at.length >= 2, "two samples");
  await page.locator("[id='route orders-to-azure']").click();
  const detail = page.locator("#detail");
  await has(detail.locator("h2"), "route orders-to-azure");
  await has(detail, "delivery: at least once");
  await detail.locator("figure").nth(2).waitFor();
  assert.equal(await detail.locator("figure").count(), 3);
  await has(detail.locator("td"), "validate");
  await has(detail.locator("td"), "order.placed · order-");
  await detail.locator("summary").click();
  await has(detail.locator("pre"), "detect: [email]");
  await picture("page-detail");
  await page.locator("[id='source orders']").click();
  await has(detail.locator("figcaption"), "received");
  await page.locator("#legs a").first().click();
  await has(detail.locator("h2"), "orders-to-azure → order_hub");
  await has(detail, "from receive to confirmation");
  await detail.getByRole("link", { name: "close", exact: true }).click();
  await detail.waitFor({ state: "hidden" });
  await picture("page");
});

await test("a click on an edge leads to it, however long it takes", async () => {
  const edge = await page.evaluate(() => {
    const path = document.querySelector("#flow path.hit");
    scrollTo(0, 0);
    const { x, y } = path.getPointAtLength(path.getTotalLength() / 2).matrixTransform(path.getScreenCTM());
    return { x, y };
  });
  await page.mouse.move(edge.x, edge.y);
  await page.mouse.down();
  const before = await delivered();
  await until(async () => await delivered() !== before, "the flow is drawn anew");
  await page.mouse.up();
  await has(page.locator("#detail h2"), "orders-to-azure → order_hub");
});

await test("a tap shows what passes, with its steps, and covers what looks sensitive", async () => {
  await turnTo(page, "Tap");
  const view = page.locator("#tap-view");
  await view.locator("[name=route]").selectOption("large-orders");
  await view.locator("[name=max]").fill("3");
  await view.getByRole("button", { name: "Open" }).click();
  await has(view.getByRole("status"), /^3 events\b.*; as many as were asked for$/);
  const first = view.locator("details").first();
  await first.locator("summary").click();
  await has(first, "to audit, a Storage queue");
  await has(first, "redact");
  const text = await view.textContent();
  // Whoever is on the machine is an admin, where nobody is named.
  assert.ok(!text.includes("jane@") && text.includes("acme"), text);
  await picture("page-tap");
});

await test("the whole trace of a delivery is shown, without a collector", async () => {
  await turnTo(page, "Traces");
  const view = page.locator("#traces-view");
  await view.locator("[name=route]").selectOption("large-orders");
  await view.locator("[name=max]").fill("2");
  const first = await trace(view, "Trace", /^2 deliveries\b.*; as many as were asked for$/);
  await view.locator("details").nth(1).waitFor();
  assert.equal(await view.locator("details").count(), 2);
  await first.locator("summary").click();
  await has(first.locator("summary"), "orders: delivered");
  const spans = await first.locator("td:first-child").allTextContents();
  for (const span of ["receive orders", "process orders", "send audit", "settle orders"]) {
    assert.ok(spans.some(it => it.startsWith(span)), `${span} is not among ${spans}`);
  }
  assert.equal(await first.locator("svg.bar rect").count(), spans.length);
  await has(first.locator("pre"), /trace: "?[0-9a-f]{32}/);
  await picture("page-traces");
});

await test("dead letters are counted, looked at, and sent again after a dry run", async () => {
  await turnTo(page, "Dead letters");
  const view = page.locator("#letters-view");
  await view.getByRole("button", { name: "Look" }).click();
  await has(view.locator("h2"), "3 events of 3");
  await view.getByRole("button", { name: "invalid" }).waitFor();
  await picture("page-dead-letters");
  await view.getByRole("link", { name: "order-7", exact: true }).click();
  await has(view.locator("dd"), "invalid");
  await has(view, "Its body");
  assert.ok(!(await view.textContent()).includes("jane@"));
  await view.getByRole("link", { name: "close" }).click();
  await view.locator("dd").first().waitFor({ state: "detached" });
  await has(view.locator("figcaption"), "orders-to-azure");

  await rig.mend();
  await turnTo(page, "Config");
  const config = page.locator("#config-view");
  await has(config, "the file says something else than what runs");
  await has(config.locator("pre"), "~ route orders-to-azure: transform");
  await has(config, "connection_string: ${STORAGE}");
  await picture("page-config");
  await config.getByRole("button", { name: "Reload…" }).click();
  await page.locator("#ask").getByRole("button", { name: "Reload" }).click();
  await has(config, "the file is what runs");

  // One of them alone.
  const ask = page.locator("#ask");
  await turnTo(page, "Dead letters");
  await view.getByRole("button", { name: "Look" }).click();
  await view.getByRole("link", { name: "order-7", exact: true }).click();
  await has(view.locator("dd"), "invalid");
  await view.getByRole("button", { name: "Redrive…" }).first().click();
  await has(ask, "1 event would be sent again; nothing has happened yet.");
  await has(ask, "Those of event order-7 that the route orders-to-azure has parked.");
  await ask.getByRole("button", { name: "Redrive 1 event" }).click();
  await has(view.getByRole("status"), "1 redriven");

  await turnTo(page, "Dead letters");
  await view.getByRole("button", { name: "Look" }).click();
  await has(view.locator("h2"), "2 events of 2");
  // What is listed is dealt with, not what the form says since.
  await view.locator("[name=route]").selectOption("large-orders");
  await view.getByRole("button", { name: "Redrive…" }).click();
  await has(ask, "2 events would be sent again; nothing has happened yet.");
  await has(ask, "Those in all dead-letter sinks, of any route, of any cause, given up at any time.");
  await picture("page-redrive");
  await ask.getByRole("button", { name: "Redrive 2 events" }).click();
  await has(view.getByRole("status"), "2 redriven");
  await has(view.locator("td"), "Redrive, dry run");
  await view.locator("[name=route]").selectOption("");
  await view.getByRole("button", { name: "Look" }).click();
  await has(view, "nothing is parked");
});

await test("a file that cannot be used says why, and changes nothing", async () => {
  await rig.spoil();
  await turnTo(page, "Config");
  const config = page.locator("#config-view");
  await has(config, "the file cannot be used; what runs goes on");
  await has(config.locator("li"), "did you mean `when`?");
  await rig.mend();
  await config.getByRole("button", { name: "Validate" }).click();
  await has(config, "the file is what runs");
});

// A page whose daemon knows one token. Counts how often the page asks for it.
async function guarded(path) {
  const it = await visit();
  await it.addInitScript(() => {
    window.dialogs = 0;
    const { showModal } = HTMLDialogElement.prototype;
    HTMLDialogElement.prototype.showModal = function () {
      window.dialogs += 1;
      showModal.call(this);
    };
  });
  const detail = "nobody has this token, or nobody has it any more";
  await it.route(url => /status\/live|history|errors|config$/.test(url.pathname), route =>
    route.request().headers().authorization === "Bearer let-me-in" ? route.continue() : route.fulfill({ status: 401, json: { detail } }));
  await it.goto(`${rig.admin}/${path}`);
  await has(it.locator("#ask"), detail);
  return it;
}
const dialogs = of => of.evaluate(() => window.dialogs);

await test("a token is asked for once and sent as bearer", async () => {
  const it = await guarded("#/route/orders-to-azure");
  await it.getByRole("textbox", { name: "Token" }).fill("let-me-in");
  await it.keyboard.press("Enter");
  await it.locator("#legs tr").first().waitFor();
  await it.locator("#detail summary").waitFor();
  assert.equal(await dialogs(it), 1);
  assert.equal(await it.evaluate(() => sessionStorage.getItem("token")), "let-me-in");
  await it.context().close();
});

await test("who does not sign in is not asked again until they want to; what is no token is not kept", async () => {
  const it = await guarded("");
  await it.locator("#ask").getByRole("button", { name: "Cancel" }).click();
  await has(it.locator("#state"), "not signed in: nobody has this token");
  await new Promise(resolve => setTimeout(resolve, 3000));
  assert.equal(await dialogs(it), 1);
  await it.getByRole("button", { name: "Sign in" }).click();
  await it.getByRole("textbox", { name: "Token" }).fill("let\u2013me\u2013in");
  await it.keyboard.press("Enter");
  await has(it.locator("#ask"), "a character that no token has");
  assert.equal(await it.evaluate(() => sessionStorage.getItem("token")), null);
  await it.getByRole("textbox", { name: "Token" }).fill("let-me-in");
  await it.keyboard.press("Enter");
  await it.locator("#legs tr").first().waitFor();
  await has(it.locator("#state"), /^ready$/);
  await it.context().close();
});

await test("what fails says that it failed, and the rest is shown", async () => {
  const it = await visit();
  let fails = true;
  await it.route("**/errors", route => route.fulfill({ status: 503, json: { detail: "the daemon is ending" } }));
  await it.route("**/checkpoints", () => {});
  await it.route("**/openapi.json", route => {
    if (!fails) return route.continue();
    return route.fulfill({ status: 503, json: { detail: "not yet" } });
  });
  await it.goto(`${rig.admin}/#/sink/audit`);
  const detail = it.locator("#detail");
  await has(detail, "not known: the daemon is ending");
  assert.ok(!(await detail.textContent()).includes("none since the start"));
  await has(detail, "what can be done is not known: not yet");
  fails = false;
  await detail.getByRole("button", { name: "Limit…" }).waitFor();
  // An answer that does not come holds up no other.
  await it.goto(`${rig.admin}/#/source/orders`);
  await has(detail.locator("figcaption"), "received");
  await detail.locator("summary").waitFor();
  await it.goto(`${rig.admin}/#/constructor`);
  await it.locator("#flow-view").waitFor();
  // A fault of the page is not laid on the daemon.
  await it.route("**/status/live", route => route.fulfill({ contentType: "text/event-stream", body: "data: {}\n\n" }));
  await it.reload();
  await has(it.locator("#state"), "the page has failed: ");
  await it.context().close();
});

await test("a link chooses a route, also where the page is fresh", async () => {
  const it = await visit();
  for (const [path, view] of [["tap", "#tap-view"], ["dead-letters", "#letters-view"]]) {
    await it.goto("about:blank");
    await it.goto(`${rig.admin}/#/${path}?route=large-orders`);
    await until(async () => await it.locator(`${view} [name=route]`).inputValue() === "large-orders", "it is chosen");
  }
  await it.context().close();
});

await test("what was listed is discarded, and a job is followed where its stream is cut", async () => {
  const it = await visit();
  const nothing = { seen: 4, meant: 2, redriven: 0, duplicates: 0, filtered: 0, discarded: 0, failed: {}, skipped: {}, in_flight: 0, interrupted: false, is_full: false, unread: 0 };
  const group = (route, cause, entries) => ({ route, class: cause, entries, first: null, last: null });
  const groups = [group("large-orders", "invalid", 2), group(null, "unmatched", 1), group(null, null, 1)];
  await it.route("**/dead-letters?**", route => route.fulfill({ json: { groups, entries: [], summary: nothing } }));
  let wanted = null, heard = 0;
  const job = state => ({ id: "9", task: "discard", dry_run: true, state, selection: { sinks: ["parked"], route: wanted.route }, summary: nothing, groups: [], entries: [] });
  await it.route("**/dead-letters/discard", route => {
    wanted = route.request().postDataJSON().dry_run;
    return route.fulfill({ status: 202, json: job("waiting") });
  });
  await it.route("**/jobs/9/live", route => {
    heard += 1;
    return route.fulfill({ contentType: "text/event-stream", body: `data: ${JSON.stringify(job(heard === 1 ? "running" : "done"))}\n\n` });
  });
  await it.goto(`${rig.admin}/#/dead-letters?route=large-orders&sink=parked`);
  const view = it.locator("#letters-view"), ask = it.locator("#ask");
  await until(async () => await view.locator("[name=sink]").inputValue() === "parked", "it is chosen");
  await view.getByRole("button", { name: "Look" }).click();
  await has(view.locator("td"), "not ours");
  assert.deepEqual(await view.locator("td button").allTextContents(), ["invalid"]);
  await view.locator("[name=route]").selectOption("orders-to-azure");
  await view.locator("[name=sink]").selectOption("");
  await view.getByRole("button", { name: "Discard…" }).click();
  await has(ask, "Those in parked, of the route large-orders, of any cause, given up at any time.");
  await ask.getByRole("button", { name: "Cancel" }).click();
  assert.deepEqual([wanted, heard], [{ sinks: ["parked"], route: "large-orders" }, 2]);
  await it.context().close();
});

await test("a sink that an operator holds and limits reads so, and is let go", async () => {
  const it = await visit();
  await it.goto(`${rig.admin}/#/sink/audit`);
  const detail = it.locator("#detail"), ask = it.locator("#ask");
  await has(detail, "without a limit");
  await it.getByRole("button", { name: "Limit…" }).click();
  await it.getByRole("textbox", { name: "Events in a second" }).fill("250");
  await it.keyboard.press("Enter");
  await has(detail, "at most 250 events in a second, as an operator has asked");
  await it.getByRole("button", { name: "Open the breaker" }).click();
  await ask.getByRole("button", { name: "Open the breaker" }).click();
  await has(detail, "left alone by an operator");
  await has(it.locator("[id='sink audit']"), "left alone by an operator");
  await it.getByRole("button", { name: "Close the breaker" }).click();
  await ask.getByRole("button", { name: "Close the breaker" }).click();
  await it.getByRole("button", { name: "Open the breaker" }).waitFor();
  await it.getByRole("button", { name: "Lift the limit" }).click();
  await ask.getByRole("button", { name: "Lift the limit" }).click();
  await has(detail, "without a limit");
  await has(detail, "its breaker is closed");
  await it.context().close();
});

await test("a route that an operator limits reads so, starts its source anew, and is let go", async () => {
  const it = await visit();
  await it.goto(`${rig.admin}/#/route/echoes`);
  const detail = it.locator("#detail"), ask = it.locator("#ask");
  const starts = async () => Number(/pipeline_starts_total\{source="past"\} (\d+)/.exec(await (await fetch(`${rig.admin}/metrics`)).text())[1]);
  const before = await starts();
  await it.getByRole("button", { name: "Limit…" }).click();
  await has(ask, "What reads past starts anew with it");
  await it.getByRole("textbox", { name: "Events in a second" }).fill("5000");
  await it.keyboard.press("Enter");
  await has(detail, "passes on 5,000 events in a second, and the others wait; as an operator has asked");
  await until(async () => await starts() === before + 1, "it starts anew");
  await it.getByRole("button", { name: "Lift the limit" }).click();
  await ask.getByRole("button", { name: "Lift the limit" }).click();
  await until(async () => !(await detail.textContent()).includes("passes on"), "the limit is gone");
  await until(async () => await starts() === before + 2 && (await fetch(`${rig.admin}/readyz`)).ok, "it starts anew again");
  await it.context().close();
});

await test("who has none of the routes that run is told so", async () => {
  const it = await visit(), none = { ...await rig.status(), sources: [], routes: [], sinks: [] };
  await it.route("**/caller", route => route.fulfill({ json: { name: "lost", role: "operator", routes: [] } }));
  await it.route("**/status/live", route => route.fulfill({ contentType: "text/event-stream", body: `data: ${JSON.stringify(none)}\n\n` }));
  for (const [path, button] of [["dead-letters", "Look"], ["tap", "Open"], ["traces", "Trace"]]) {
    await open(it, rig.admin, path);
    const place = it.locator("main > div:not([hidden])");
    await until(async () => await place.locator("select[name=route]").textContent() === "none of yours is here", path);
    assert.ok(await place.getByRole("button", { name: button, exact: true }).isDisabled());
    assert.doesNotMatch(await it.locator("body").innerText(), /the page has failed/);
  }
  await it.context().close();
});

await test("an edge is as wide as its rate, red where sends fail, and grey where a sink is left alone", async () => {
  const it = await visit();
  await it.goto(`${rig.admin}/#/`);
  const flow = it.locator("#flow"), route = it.locator("[id='route orders-to-azure']");
  // In one turn of the page: its edges change every second.
  const widths = () => it.evaluate(() => [...document.querySelectorAll("#flow path.hit")].map(hit => Number(hit.previousElementSibling.getAttribute("stroke-width"))));
  await until(async () => {
    const [all, large] = await widths();
    return all > large && large > 1.5;
  }, "what carries more is wider");
  const colour = state => it.evaluate(state => {
    const path = document.querySelector(`#flow path.${state}`);
    return path && getComputedStyle(path).stroke;
  }, state);
  // For as long as it is refused something, and not so much that it is left alone.
  const red = await until(async () => {
    if (!(await route.textContent()).includes("waits for")) await rig.refuse(2);
    await it.waitForTimeout(500);
    return (await route.textContent()).includes("retrying into order_hub") && await colour("retrying");
  }, "an edge that retries");
  await picture("page-retrying", it);
  const breaker = state => fetch(`${rig.admin}/sinks/order_hub/breaker`, { method: "POST", body: JSON.stringify({ state }) });
  assert.ok((await breaker("open")).ok);
  await flow.locator("path.open").waitFor();
  await has(route, "waits for order_hub");
  const grey = await colour("open");
  assert.ok(grey && grey !== red, `${grey} and ${red}`);
  await picture("page-open", it);
  assert.ok((await breaker("closed")).ok);
  await flow.locator("path.open").waitFor({ state: "detached" });
  await it.context().close();
});

await test("a log goes back after a dry run", async () => {
  const it = await visit();
  await it.goto(`${rig.admin}/#/source/past`);
  const detail = it.locator("#detail"), ask = it.locator("#ask");
  await has(detail.locator("th"), "Newest event");
  assert.ok(!(await detail.textContent()).includes("nobody"));
  await detail.getByRole("button", { name: "Go back…" }).click();
  await ask.locator("[name=to]").selectOption("sequence_number");
  await ask.locator("[name=number]").fill("0");
  await picture("page-rewind", it);
  await ask.getByRole("button", { name: "Cancel" }).click();
  await detail.getByRole("button", { name: "Go back…" }).click();
  await ask.getByRole("button", { name: "Find out" }).click();
  await has(ask.locator("h2"), "of past come again?");
  await has(ask, "Nothing has happened yet.");
  assert.ok(await ask.locator("tbody tr").count() > 0);
  // More than was sent there in the first place.
  const again = async () => {
    const { sources, routes } = await rig.status();
    return sources.find(it => it.name === "past").received - routes[0].to[0].delivered;
  };
  const before = await again();
  await ask.getByRole("button", { name: "Go back" }).click();
  await has(it.locator("#toast"), "of past come again");
  await until(async () => await again() > before + 30, "they come again");
  await it.context().close();
});

await test("a button that another joins while it is pressed is pressed still", async () => {
  const it = await visit(), detail = it.locator("#detail");
  let answer = null;
  const asked = new Promise(resolve => { answer = resolve; });
  await it.route("**/checkpoints", async route => {
    await asked;
    await route.continue();
  });
  await it.goto(`${rig.admin}/#/source/past`);
  await detail.getByRole("button", { name: "Pause" }).hover();
  await it.mouse.down();
  answer();
  await detail.getByRole("button", { name: "Go back…" }).waitFor();
  await it.mouse.up();
  await has(it.locator("#ask"), "Pause source past?");
  await it.context().close();
});

await test("what the daemon can do is offered, and asked for once", async () => {
  const page = await visit();
  const done = [];
  const paths = { "/sources/{source}/pause": { post: {} }, "/routes/{route}/limit": { put: {} }, "/sinks/{sink}/limit": { put: {} } };
  await page.route("**/openapi.json", route => route.fulfill({ json: { paths } }));
  await page.route(/\/(sources|routes|sinks)\//, route => {
    done.push([route.request().method(), new URL(route.request().url()).pathname, route.request().postData()]);
    return route.fulfill({ json: {} });
  });
  await page.goto(`${rig.admin}/#/source/orders`);
  await page.getByRole("button", { name: "Pause" }).click();
  await page.locator("#ask").getByRole("button", { name: "Cancel" }).click();
  assert.deepEqual(done, []);
  await page.getByRole("button", { name: "Pause" }).click();
  await page.locator("#ask").getByRole("button", { name: "Pause" }).click();
  await has(page.locator("#toast"), "Pause: done");
  await page.goto(`${rig.admin}/#/sink/audit`);
  await page.getByRole("button", { name: "Limit…" }).click();
  await page.getByRole("textbox", { name: "Events in a second" }).fill("25");
  await page.locator("#ask").getByRole("button", { name: "Limit…" }).click();
  await page.goto(`${rig.admin}/#/route/orders-to-azure`);
  await has(page.locator("#detail h2"), "route orders-to-azure");
  await page.getByRole("button", { name: "Limit…" }).click();
  await page.getByRole("textbox", { name: "Events in a second" }).fill("50");
  await page.locator("#ask").getByRole("button", { name: "Limit…" }).click();
  await until(() => done.length === 3, "all were asked for");
  assert.deepEqual(done, [
    ["POST", "/sources/orders/pause", null],
    ["PUT", "/sinks/audit/limit", "{\"events_per_second\":25}"],
    ["PUT", "/routes/orders-to-azure/limit", "{\"per_second\":50}"],
  ]);
  await page.context().close();
});

await test("below a path of a proxy it asks below that path", async () => {
  const proxy = createServer(async (request, response) => {
    if (!request.url.startsWith("/below/")) return response.writeHead(404).end();
    const answer = await fetch(rig.admin + request.url.slice("/below".length), { method: request.method });
    response.writeHead(answer.status, { "content-type": answer.headers.get("content-type") ?? "text/plain" });
    return Readable.fromWeb(answer.body).on("error", () => response.destroy()).pipe(response);
  }).listen(0, "127.0.0.1");
  await once(proxy, "listening");
  const it = await visit();
  await it.goto(`http://127.0.0.1:${proxy.address().port}/below/#/source/past`);
  for (const [verb, shown] of [["Pause", "paused"], ["Resume", "in flight"]]) {
    await it.locator("#detail").getByRole("button", { name: verb }).click();
    await it.locator("#ask").getByRole("button", { name: verb }).click();
    await has(it.locator("[id='source past']"), shown);
  }
  await it.context().close();
  proxy.closeAllConnections();
  proxy.close();
});

// No test: a figure for docs/capacity.md, which takes a minute.
if (images) {
  const share = async () => {
    const before = await rig.cpu();
    await page.waitForTimeout(20_000);
    return (await rig.cpu() - before) / 20 * 100;
  };
  await page.goto("about:blank");
  const alone = await share();
  const viewers = await Promise.all(Array.from({ length: 10 }, async () => {
    const viewer = await visit();
    await viewer.goto(`${rig.admin}/#/`);
    return viewer;
  }));
  const watched = await share();
  await Promise.all(viewers.map(viewer => viewer.context().close()));
  console.log(`        ten viewers take ${(watched - alone).toFixed(2)} % of a core (${alone.toFixed(2)} % without, ${watched.toFixed(2)} % with them)`);
}

// A view, and what it shows once all is answered.
const views = {
  "": "#legs tr", "route/orders-to-azure": "#detail summary", "dead-letters": "#letters-view figcaption",
  tap: "#tap-view option", traces: "#traces-view option", config: "#config-view [role=status]",
};
const isFilled = (of, path) => of.locator(views[path]).first().waitFor({ state: "attached" });

await test("by keyboard alone, and for a screen reader", async () => {
  await go("");
  await page.reload();
  await page.locator("#legs tr").first().waitFor();
  await page.keyboard.press("Tab");
  assert.equal(await page.evaluate(() => document.activeElement.textContent), "Skip to the content");
  await page.keyboard.press("Enter");
  await page.keyboard.press("Tab");
  assert.equal(await page.evaluate(() => document.activeElement.id), "source orders");
  await page.keyboard.press("Enter");
  await has(page.locator("#detail h2"), "source orders");
  assert.equal(await page.evaluate(() => document.activeElement.id), "detail-title");
  // Everything that can be used has a name.
  for (const path of Object.keys(views)) {
    await go(path);
    await isFilled(page, path);
    const nameless = await page.evaluate(() => [...document.querySelectorAll("main a, main button, main input, main select, main svg[role=img]")]
      .filter(it => it.checkVisibility() && !(it.textContent.trim() || it.ariaLabel || it.labels?.[0]?.textContent.trim()))
      .map(it => it.outerHTML));
    assert.deepEqual(nameless, []);
  }
});

await test("on a phone and in the dark", async () => {
  for (const [name, options] of [
    ["page-phone", { viewport: { width: 390, height: 844 }, isMobile: true, hasTouch: true }],
    ["page-dark", { colorScheme: "dark" }],
  ]) {
    const other = await visit(options);
    for (const path of Object.keys(views)) {
      await open(other, rig.admin, path);
      await isFilled(other, path);
      await has(other.locator("#state"), /^ready$/);
      const wide = await other.evaluate(() => document.documentElement.scrollWidth - innerWidth);
      assert.ok(wide <= 0, `${name} /${path} is ${wide} pixels too wide`);
      if (path === "") {
        await until(async () => /[1-9]/.test(await other.locator("#legs td:nth-child(2)").first().textContent()), "a rate");
        await picture(name, other);
      }
    }
    const ground = await other.evaluate(() => getComputedStyle(document.body).backgroundColor);
    assert.equal(ground, name === "page-dark" ? "rgb(20, 23, 28)" : "rgb(246, 247, 249)");
    await other.context().close();
  }
});

await test("OpenAPI describes all that the page asks for", async () => {
  const document = await (await fetch(`${rig.admin}/openapi.json`)).json();
  assert.deepEqual(undescribed(rig.admin, document), []);
});

await test("the daemon ends when somebody says so, and says yes", async () => {
  await stopFlow();
  stopFlow = async () => {};
  await go("config");
  const ask = page.locator("#ask"), button = page.getByRole("button", { name: "End the daemon…" });
  await button.click();
  await ask.getByRole("button", { name: "Cancel" }).click();
  assert.equal(rig.daemon.exitCode, null);
  await button.click();
  await ask.getByRole("button", { name: "End it" }).click();
  await until(() => rig.daemon.exitCode !== null, "it ends");
  assert.equal(rig.daemon.exitCode, 0);
  await has(page.locator("#state"), "no answer from the daemon");
  await page.context().close();
  complaints.splice(0, complaints.length, ...complaints.filter(text => !/ERR_CONNECTION|ERR_EMPTY|ERR_INCOMPLETE/.test(text)));
});

await test("its log holds no secret and no body", async () => assert.deepEqual(await rig.leaked(), []));

await finish();

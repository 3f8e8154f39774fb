// Every view of the page in a real browser, as a person would use it. See run.sh.
import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { join } from "node:path";
import { Rig, until } from "./rig.mjs";

const { chromium } = createRequire(join(process.env.PAGE_MODULES, "modules"))("playwright-core");
const images = process.env.PAGE_IMAGES;
const broken = [3, 7, 11];
const began = Date.now();

const rig = await Rig.start();
let stopFlow = async () => {};
let failed = 0;
const end = async () => {
  await stopFlow();
  await rig.stop();
};
process.once("SIGINT", () => end().then(() => process.exit(130)));
console.log(`page: clouds and daemon after ${((Date.now() - began) / 1000).toFixed(1)} s`);

const browser = await chromium.launch({ executablePath: process.env.CHROMIUM, args: ["--no-sandbox"] });
const complaints = [];

async function visit(options = {}) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, reducedMotion: "reduce", ...options });
  const page = await context.newPage();
  page.setDefaultTimeout(30_000);
  page.on("pageerror", error => complaints.push(error.message));
  page.on("console", message => {
    // What is not there yet is asked for, and answers 404.
    if (message.type() === "error" && !message.text().includes("404")) complaints.push(message.text());
  });
  return page;
}

const page = await visit();
const go = path => page.goto(`${rig.admin}/#${path}`);
const picture = async (name, of = page) => {
  if (images) await of.screenshot({ path: join(images, `${name}.png`) });
};
const has = (place, text) => place.filter({ hasText: text }).first().waitFor();

async function test(name, body) {
  const from = Date.now();
  complaints.length = 0;
  try {
    await body();
    assert.deepEqual(complaints.splice(0), []);
    console.log(`ok      ${name} (${Date.now() - from} ms)`);
  } catch (error) {
    failed += 1;
    console.log(`FAILED  ${name}\n${error.stack}`);
    await page.screenshot({ path: join(process.env.PAGE_MODULES, `failed-${failed}.png`) }).catch(() => {});
  }
}

await rig.publish(1, 20, broken);
stopFlow = rig.flow();
await until(async () => {
  const { routes } = await rig.status();
  return routes[0].to[0].delivered > 30 && routes[0].to[0].dead_lettered + routes[0].to[0].delivered > 0;
}, "orders arrive");

await test("the first look is there within a second, and asks nobody else", async () => {
  const asked = [];
  page.on("request", request => asked.push(request.url()));
  const from = Date.now();
  await go("/");
  await page.locator("#legs tr").first().waitFor();
  const took = Date.now() - from;
  console.log(`        first data after ${took} ms`);
  assert.deepEqual(asked.filter(url => !url.startsWith(rig.admin)), []);
});

await test("the flow is live: nodes, edges, rates", async () => {
  await has(page.locator("#state"), "ready");
  for (const name of ["source orders", "route orders-to-azure", "sink order_hub", "sink parked"]) {
    await page.locator(`[id="${name}"]`).waitFor();
  }
  const delivered = () => page.locator("#legs tr").first().locator("td").nth(3).textContent();
  const before = await delivered();
  await until(async () => await delivered() !== before, "the count goes on");
  assert.equal(await page.locator("#flow path.hit").count(), 2);
  await has(page.locator("[id='sink parked']"), "dead letters");
  await has(page.locator("[id='route orders-to-azure']"), "3 parked");
});

await test("drill-down: series, last errors, configuration; and back", async () => {
  await until(async () => (await (await fetch(`${rig.admin}/history`)).json()).at.length >= 2, "two samples");
  await page.locator("[id='route orders-to-azure']").click();
  const detail = page.locator("#detail");
  await has(detail.locator("h2"), "route orders-to-azure");
  await has(detail, "delivery: at least once");
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
  await detail.getByText("close").click();
  await detail.waitFor({ state: "hidden" });
  await picture("page");
});

await test("a click on an edge leads to it", async () => {
  await page.locator("#flow path.hit").first().dispatchEvent("click");
  await has(page.locator("#detail h2"), "orders-to-azure → order_hub");
});

await test("a tap shows what passes, with its steps, and covers what looks sensitive", async () => {
  await page.getByRole("link", { name: "Tap", exact: true }).click();
  const view = page.locator("#tap-view");
  await view.locator("[name=route]").selectOption("large-orders");
  await view.locator("[name=max]").fill("3");
  await view.getByRole("button", { name: "Open" }).click();
  await has(view.getByRole("status"), "3 events; as many as were asked for");
  const first = view.locator("details").first();
  await first.locator("summary").click();
  await has(first, "to audit, a Storage queue");
  await has(first, "redact");
  const text = await view.textContent();
  // Whoever is on the machine is an admin, where nobody is named.
  assert.ok(!text.includes("jane@") && text.includes("acme"), text);
  await picture("page-tap");
});

await test("dead letters are counted, looked at, and sent again after a dry run", async () => {
  await page.locator("nav").getByRole("link", { name: "Dead letters" }).click();
  const view = page.locator("#letters-view");
  await view.getByRole("button", { name: "Look" }).click();
  await has(view.locator("h2"), "3 events of 3");
  await view.getByRole("button", { name: "invalid" }).waitFor();
  await picture("page-dead-letters");
  await view.getByRole("link", { name: "order-7", exact: true }).click();
  await has(view.locator("dd"), "invalid");
  await has(view, "Its body");
  assert.ok(!(await view.textContent()).includes("jane@"));

  await rig.mend();
  await page.getByRole("link", { name: "Config" }).click();
  const config = page.locator("#config-view");
  await has(config, "the file says something else than what runs");
  await has(config.locator("pre"), "~ route orders-to-azure: transform");
  await has(config, "connection_string: ${STORAGE}");
  await picture("page-config");
  await config.getByRole("button", { name: "Reload…" }).click();
  await page.locator("#ask").getByRole("button", { name: "Reload" }).click();
  await has(config, "the file is what runs");

  await page.locator("nav").getByRole("link", { name: "Dead letters" }).click();
  await view.getByRole("button", { name: "Look" }).click();
  await has(view.locator("h2"), "3 events of 3");
  await view.getByRole("button", { name: "Redrive…" }).click();
  const ask = page.locator("#ask");
  await has(ask, "3 events would be sent again; nothing has happened yet.");
  await picture("page-redrive");
  await ask.getByRole("button", { name: "Redrive 3 events" }).click();
  await has(view.getByRole("status"), "3 redriven");
  await has(view.locator("td"), "Redrive, dry run");
  await view.getByRole("button", { name: "Look" }).click();
  await has(view, "nothing is parked");
});

await test("a file that cannot be used says why, and changes nothing", async () => {
  await rig.spoil();
  await page.getByRole("link", { name: "Config" }).click();
  const config = page.locator("#config-view");
  await has(config, "the file cannot be used; what runs goes on");
  await has(config.locator("li"), "did you mean `when`?");
  await rig.mend();
  await config.getByRole("button", { name: "Validate" }).click();
  await has(config, "the file is what runs");
});

await test("a token is asked for once and sent as bearer", async () => {
  const guarded = await visit();
  const borne = [];
  await guarded.route(url => /status\/live|history/.test(url.pathname), route => {
    const given = route.request().headers().authorization;
    borne.push(given);
    return given === "Bearer let-me-in" ? route.continue() : route.fulfill({ status: 401, body: "{}" });
  });
  await guarded.goto(`${rig.admin}/`);
  await guarded.getByRole("textbox", { name: "Token" }).fill("let-me-in");
  await guarded.keyboard.press("Enter");
  await guarded.locator("#legs tr").first().waitFor();
  assert.ok(borne.includes("Bearer let-me-in"));
  assert.equal(await guarded.evaluate(() => sessionStorage.getItem("token")), "let-me-in");
  complaints.splice(0, complaints.length, ...complaints.filter(text => !text.includes("401")));
  await guarded.context().close();
});

await test("what the daemon can do is offered, and asked for once", async () => {
  const page = await visit();
  const done = [];
  const paths = { "/sources/{source}/pause": { post: {} }, "/sinks/{sink}/limit": { put: {} } };
  await page.route("**/openapi.json", route => route.fulfill({ json: { paths } }));
  await page.route(/\/(sources|sinks)\//, route => {
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
  await until(() => done.length === 2, "both were asked for");
  assert.deepEqual(done, [["POST", "/sources/orders/pause", null], ["PUT", "/sinks/audit/limit", "{\"events_per_second\":25}"]]);
  await page.context().close();
});

await test("by keyboard alone, and for a screen reader", async () => {
  await go("/");
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
  for (const path of ["/", "/route/orders-to-azure", "/dead-letters", "/tap", "/config"]) {
    await go(path);
    await page.locator("main > div:not([hidden])").first().waitFor();
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
    for (const path of ["/", "/route/orders-to-azure", "/dead-letters", "/tap", "/config"]) {
      await other.goto(`${rig.admin}/#${path}`);
      await other.locator("main > div:not([hidden])").first().waitFor();
      await has(other.locator("#state"), "ready");
      const wide = await other.evaluate(() => document.documentElement.scrollWidth - innerWidth);
      assert.ok(wide <= 0, `${name} ${path} is ${wide} pixels too wide`);
      if (path === "/") {
        await until(async () => /[1-9]/.test(await other.locator("#legs td:nth-child(2)").first().textContent()), "a rate");
        await picture(name, other);
      }
    }
    const ground = await other.evaluate(() => getComputedStyle(document.body).backgroundColor);
    assert.equal(ground, name === "page-dark" ? "rgb(20, 23, 28)" : "rgb(246, 247, 249)");
    await other.context().close();
  }
});

await browser.close();
await end();
console.log(`page: ${failed ? `${failed} FAILED` : "all is well"}, after ${((Date.now() - began) / 1000).toFixed(0)} s`);
process.exit(failed ? 1 : 0);

// A browser, and how what is seen in it is tested: what the programs beside this one share.
import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { basename, join } from "node:path";
import { until } from "./rig.mjs";

const modules = process.env.PAGE_MODULES;
const { chromium } = createRequire(join(modules, "modules"))("playwright-core");
const program = basename(process.argv[1], ".mjs");
const start = Date.now();
let failed = 0, stop = async () => {};

export const tell = what => console.log(`${program}: ${what} after ${((Date.now() - start) / 1000).toFixed(1)} s`);

const browser = await chromium.launch({ executablePath: process.env.CHROMIUM, args: ["--no-sandbox"] });
// What the browser has found fault with since the test began.
export const complaints = [];
// What the code of all pages has asked for, by method and address.
const asked = new Set();

export async function visit(options = {}) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, reducedMotion: "reduce", ...options });
  const page = await context.newPage();
  page.setDefaultTimeout(30_000);
  page.on("request", request => {
    if (["fetch", "eventsource"].includes(request.resourceType())) asked.add(`${request.method()} ${request.url()}`);
  });
  page.on("pageerror", error => complaints.push(error.message));
  page.on("console", message => {
    // What is not there yet is asked for, and what is refused: the browser says so.
    if (message.type() === "error" && !/ (401|404|503) /.test(message.text())) complaints.push(message.text());
  });
  return page;
}

// What the pages have asked a daemon for that its OpenAPI document does not describe.
export function undescribed(admin, { paths }) {
  const known = Object.entries(paths).flatMap(([path, operations]) => {
    const shape = new RegExp(`^${path.replace(/[.]/g, "\\$&").replace(/\{[^}]+\}/g, "[^/]+")}$`);
    return Object.keys(operations).map(method => [method.toUpperCase(), shape]);
  });
  const requests = [...asked].map(it => it.split(" ")).filter(([, address]) => address.startsWith(admin));
  assert.ok(requests.length > 20, "pages have asked for things");
  return requests.map(([method, address]) => [method, new URL(address).pathname])
    .filter(([method, path]) => !known.some(([other, shape]) => method === other && shape.test(path)));
}

export const has = (place, text) => place.filter({ hasText: text }).first().waitFor();

// A view is there a moment after it is asked for: whoever looks at once finds the fields of the one
// before, which have the same names.
const isThere = link => link.and(link.page().locator("[aria-current=page]")).waitFor();

// Goes to a view as a person does.
export async function turnTo(page, name) {
  const link = page.getByRole("navigation").getByRole("link", { name, exact: true });
  await link.click();
  await isThere(link);
}

// Goes to a view by its address. What is looked at in detail is part of the flow.
export async function open(page, admin, path) {
  await page.goto(`${admin}/#/${path}`);
  const link = page.locator(`nav a[href="#/${path}"]`);
  await isThere(await link.count() ? link : page.locator('nav a[href="#/"]'));
}

// Traces until a delivery is shown from end to end: what a service is slow to settle is told too late.
export const trace = (view, button, status) => until(async () => {
  await view.getByRole("button", { name: "Clear" }).click();
  await view.getByRole("button", { name: button, exact: true }).click();
  await has(view.getByRole("status"), status);
  const first = view.locator("details").first();
  await first.waitFor();
  const spans = await first.locator("td:first-child").allTextContents();
  return ["receive ", "process ", "send ", "settle "].every(of => spans.some(it => it.startsWith(of))) && first;
}, "a whole delivery");

// How what has been begun is ended: when all is tested, or by Ctrl-C.
export function ends(end) {
  stop = end;
  process.once("SIGINT", () => end().then(() => process.exit(130)));
}

// Answers whether it holds.
export async function test(name, body) {
  const from = Date.now();
  complaints.length = 0;
  try {
    await body();
    assert.deepEqual(complaints.splice(0), []);
    console.log(`ok      ${name} (${Date.now() - from} ms)`);
    return true;
  } catch (error) {
    failed += 1;
    console.log(`FAILED  ${name}\n${error.stack}`);
    const open = browser.contexts().flatMap(context => context.pages());
    await open.at(-1)?.screenshot({ path: join(modules, `failed-${program}-${failed}.png`) }).catch(() => {});
    return false;
  }
}

// What fails outside a test ends all the same what has been begun.
process.once("uncaughtException", error => {
  failed += 1;
  console.log(`FAILED  outside a test\n${error.stack}`);
  finish();
});

export async function finish() {
  await browser.close();
  await stop();
  tell(failed ? `${failed} FAILED` : "all is well");
  process.exit(failed ? 1 : 0);
}

// Five minutes with the demo, as README.md has them: its steps are walked by their own words, so
// that they and the page cannot drift apart. See run.sh.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { cp, readFile, writeFile } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import { ends, finish, has, tell, test, trace, turnTo, visit } from "./browser.mjs";
import { binary, clear, root, until, work } from "./rig.mjs";

// In a step, bold is a view, italic a button, and code what the page or a file says.
const readme = await readFile(join(root, "README.md"), "utf8");
const [, walk = ""] = readme.match(/^Five minutes with the demo.*\n\n((?:\d\. .*\n)+)/m) ?? [];
const steps = walk.trim().split("\n").map(text => {
  const all = pattern => [...text.matchAll(pattern)].map(([, word]) => word);
  return { text, views: all(/\*\*(.+?)\*\*/g), buttons: all(/(?<!\*)\*([^*]+)\*(?!\*)/g), code: all(/`(.+?)`/g), files: all(/\]\((.+?)\)/g) };
});

// The demo as `make demo` plays it, with a configuration that may be changed.
await clear();
await cp(join(root, "config"), join(work, "config"), { recursive: true });
const program = resolve(process.env.EVENTFERRY_DEMO ?? join(dirname(binary), "eventferry-demo"));
const demo = spawn(program, ["--config", join(work, "config/demo.yaml")], { stdio: ["ignore", "pipe", "pipe"] });
let told = "";
for (const output of [demo.stdout, demo.stderr]) output.on("data", text => { told += text; });
const over = once(demo, "close");
ends(async () => {
  demo.kill("SIGINT");
  await over;
});

// Without one of them, those after it mean nothing.
const next = async (name, body) => await test(name, body) || await finish();
function step(number, body) {
  const it = steps[number - 1];
  return next(`step ${number}: ${[...it.views, ...it.buttons, ...it.code].join(", ")}`, () => body(it));
}

await next("each step names what is walked here, and no more", () => {
  const named = steps.map(({ views, buttons, code, files }) => [views, buttons, code, files].map(all => all.length));
  assert.deepEqual(named, [[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [0, 0, 2, 1], [1, 1, 0, 0]], walk);
});

let address = null;
await next("the demo says where its page is", async () => {
  await until(() => {
    assert.equal(demo.exitCode, null, told);
    return /^ *eventferry +ready/m.test(told);
  }, `the demo is ready: ${told}`, 180_000);
  [, address] = told.match(/(http:\S+) +to watch it in a browser/) ?? [];
  assert.ok(address, told);
});

const page = await visit();
const detail = page.locator("#detail"), ask = page.locator("#ask");
const letters = page.locator("#letters-view"), listed = letters.getByRole("region", { name: "Dead letters" }).locator("tbody tr");
let order = null;

// A dead letter that the demo looks at itself is hidden for a moment: whoever misses it looks again.
const look = (button, holds, what) => until(async () => {
  await letters.getByRole("button", { name: button, exact: true }).click();
  await letters.getByText("looking …").waitFor({ state: "hidden" });
  return holds();
}, what);

tell("the page is opened");
const opened = Date.now();
await page.goto(address);

await step(1, async ({ views: [flow] }) => {
  await turnTo(page, flow);
  for (const name of ["source orders", "route orders-to-azure", "sink order_hub"]) await page.locator(`[id="${name}"]`).waitFor();
  await has(page.locator("#legs td:nth-child(2)"), /[1-9]/);
  const click = {
    line: () => page.locator("#flow path.hit").first().dispatchEvent("click"),
    route: () => page.locator("[id='route orders-to-azure']").click(),
    sink: () => page.locator("[id='sink audit']").click(),
  };
  for (const [kind, clicked] of Object.entries(click)) {
    await clicked();
    await has(detail.locator("h2"), { line: "→", route: "route orders-to-azure", sink: "sink audit" }[kind]);
    await detail.locator("figure").first().waitFor();
    await has(detail.locator("h3"), "Last errors");
    await has(detail.locator("summary"), "Configuration");
  }
});

await step(2, async ({ text, views: [traces], buttons: [button] }) => {
  assert.match(text, /the next five deliveries/);
  await turnTo(page, traces);
  const whole = await trace(page.locator("#traces-view"), button, /^5 deliveries\b.*; as many as were asked for$/);
  await whole.locator("summary").click();
  const spans = whole.locator("tbody tr td:first-child");
  for (const of of [/^receive /, /^process /, /^send /, /^settle /]) await has(spans, of);
});

await step(3, async ({ views: [deadLetters], buttons: [button], code: [invalid] }) => {
  await turnTo(page, deadLetters);
  await look(button, async () => await listed.count() === 2, "an order and an alert are parked");
  await has(listed, "too_large");
  const refused = listed.filter({ has: page.getByRole("cell", { name: invalid, exact: true }) });
  order = await refused.getByRole("link").textContent();
  await refused.getByRole("link").click();
  await has(letters.locator("dd"), invalid);
  await has(letters.locator("pre"), `"currency": "CHF"`);
});

await step(4, async ({ code: [before, after], files: [file] }) => {
  const generation = async () => (await page.locator("#about").textContent()).match(/configuration (\S+)/)[1];
  const former = await generation(), mended = join(work, file);
  const schema = await readFile(mended, "utf8");
  assert.ok(schema.includes(before), `${file} has no ${before}`);
  await writeFile(mended, schema.replace(before, after));
  await until(async () => await generation() !== former, "the daemon takes it up");
  await has(page.locator("#state"), /^ready$/);
});

await step(5, async ({ views: [deadLetters], buttons: [button] }) => {
  await turnTo(page, deadLetters);
  await letters.getByRole("link", { name: order, exact: true }).click();
  // Until it is found, there is but the button of the whole list.
  await has(letters.locator("dd"), steps[2].code[0]);
  await letters.getByRole("button", { name: button, exact: true }).first().click();
  await has(ask, "1 event would be sent again; nothing has happened yet.");
  await has(ask, `Those of event ${order} that the route orders-to-azure has parked.`);
  await ask.getByRole("button", { name: "Redrive 1 event" }).click();
  await has(letters.getByRole("status"), /^done: .* · 1 redriven$/);
  await look(steps[2].buttons[0], async () => await listed.count() === 1, "the alert alone is parked");
  assert.ok(!(await listed.textContent()).includes(order));
});

await next("that was well under five minutes", () => {
  const took = (Date.now() - opened) / 1000;
  console.log(`        from the page that opens to the order that arrives: ${took.toFixed(1)} s`);
  assert.ok(took < 150);
});

await next("by the demo's own books nothing is lost, comes twice or has its card number", async () => {
  await page.context().close();
  demo.kill("SIGINT");
  const [code] = await over;
  assert.match(told, /^demo: \d+ events, 0 lost, 0 duplicated, 0 leaked$/m);
  assert.equal(code, 0, told);
});

await finish();

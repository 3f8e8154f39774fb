// The page as a viewer, as an operator, and as an operator of one route: each signs in with a token,
// is offered what their role allows, and asks for nothing that it does not. See run.sh.
import assert from "node:assert/strict";
import { complaints, ends, finish, has, tell, test, turnTo, visit } from "./browser.mjs";
import { Rig, until } from "./rig.mjs";

const rig = await Rig.start([
  { name: "audience", role: "viewer" },
  { name: "on-call", role: "operator" },
  { name: "large-team", role: "operator", routes: ["large-orders"] },
  { name: "shop-team", role: "operator", routes: ["large-orders", "orders-to-azure"] },
]);
const token = name => rig.callers.find(it => it.name === name).token;
let stopFlow = async () => {};
ends(async () => {
  await stopFlow();
  await rig.stop();
});
tell("clouds and daemon are ready");
await rig.publish(1, 20, [3, 7, 11]);
stopFlow = rig.flow();

// A page on which somebody has signed in, and what of its requests was refused since.
async function signedIn(name) {
  const page = await visit(), refused = [];
  await page.goto(`${rig.admin}/`);
  await page.getByRole("textbox", { name: "Token" }).fill(token(name));
  await page.keyboard.press("Enter");
  await has(page.locator("#state"), /^ready$/);
  page.on("response", answer => {
    // Before they had signed in, all was refused.
    const isRefused = answer.status() === 403 || answer.status() === 401 && answer.request().headers().authorization;
    if (isRefused) refused.push(`${answer.status()} ${answer.request().method()} ${new URL(answer.url()).pathname}`);
  });
  return { page, refused };
}

const offers = place => place.getByRole("button").allTextContents();

// What is offered for a thing, once all that is asked about it is answered.
async function offered(page, path) {
  await page.goto(`${rig.admin}/#/${path}`);
  const detail = page.locator("#detail");
  await has(detail.locator("h2"), path.replace("/", " "));
  await has(detail.locator("h3"), "Last errors");
  await until(async () => await detail.getByText("asking …").count() === 0, "all is answered");
  // A route has links in any case, which come with the buttons.
  if (path.startsWith("route/")) await has(detail.locator(".buttons a"), "Tap it");
  return offers(detail.locator(".buttons"));
}

// Opens what passes, and answers all that is shown of it.
async function passing(page, name, button, route = "") {
  await turnTo(page, name);
  const place = page.locator("main > div:not([hidden])");
  await place.locator("[name=max]").fill("3");
  await place.locator("[name=route]").selectOption(route);
  await place.getByRole("button", { name: button, exact: true }).click();
  await has(place.getByRole("status"), "as many as were asked for");
  return place.textContent();
}

const payload = /acme|example\.com|ask j/;
const trouble = /needs the role|is limited to|not known:|the page has failed/;

// Whoever may see all routes looks at every view, with what they are offered there.
async function tour({ page }) {
  const seen = {};
  await turnTo(page, "Flow");
  await page.locator("#legs tr").nth(2).waitFor();
  for (const path of ["route/orders-to-azure", "source/orders", "source/past", "sink/audit"]) {
    seen[path] = await offered(page, path);
    assert.doesNotMatch(await page.locator("#detail").textContent(), trouble);
  }
  const letters = page.locator("#letters-view");
  await turnTo(page, "Dead letters");
  await until(async () => {
    await letters.getByRole("button", { name: "Look" }).click();
    await letters.getByText("looking …").waitFor({ state: "hidden" });
    return await letters.getByText("3 events of 3").count();
  }, "those that are broken are parked");
  seen.letters = await offers(letters.locator(".head .buttons"));
  await letters.getByRole("link", { name: "order-7", exact: true }).click();
  await has(letters, "Its body and the values of its attributes are for administrators.");
  assert.doesNotMatch(await letters.textContent(), payload);
  for (const [name, button] of [["Tap", "Open"], ["Traces", "Trace"]]) {
    const shown = await passing(page, name, button);
    assert.match(shown, /order-\d/);
    assert.doesNotMatch(shown, payload);
  }
  const config = page.locator("#config-view");
  await turnTo(page, "Config");
  await has(config.getByRole("status"), "the file is what runs");
  seen.config = await offers(config.locator(".head"));
  assert.doesNotMatch(await page.locator("body").innerText(), trouble);
  return seen;
}

const viewer = await signedIn("audience"), operator = await signedIn("on-call");

await test("a viewer sees every view and no body, and is offered nothing that changes anything", async () => {
  assert.deepEqual(await tour(viewer), {
    "route/orders-to-azure": [], "source/orders": [], "source/past": [], "sink/audit": [], letters: [], config: ["Validate"],
  });
  assert.deepEqual(viewer.refused, []);
});

await test("an operator is also offered what keeps the flow going, and nothing that is an admin's", async () => {
  assert.deepEqual(await tour(operator), {
    "route/orders-to-azure": ["Pause", "Limit…"], "source/orders": ["Pause"], "source/past": ["Pause"], "sink/audit": ["Open the breaker", "Limit…"],
    letters: ["Redrive…"], config: ["Validate", "Reload…"],
  });
  assert.deepEqual(operator.refused, []);
});

await test("an operator pauses a source and resumes it, which a viewer sees and cannot do", async () => {
  await viewer.page.goto(`${rig.admin}/#/source/orders`);
  await operator.page.goto(`${rig.admin}/#/source/orders`);
  for (const [verb, shown] of [["Pause", "paused"], ["Resume", "in flight"]]) {
    await operator.page.locator("#detail").getByRole("button", { name: verb }).click();
    await operator.page.locator("#ask").getByRole("button", { name: verb }).click();
    await has(operator.page.locator("#toast"), `${verb}: done`);
    for (const { page } of [operator, viewer]) await has(page.locator("[id='source orders']"), shown);
    assert.deepEqual(await offers(viewer.page.locator("#detail .buttons")), []);
  }
  assert.deepEqual([...viewer.refused, ...operator.refused], []);
  // The page is not what keeps them from it.
  const answer = await fetch(`${rig.admin}/sources/orders/pause`, { method: "POST", headers: { authorization: `Bearer ${token("audience")}` } });
  assert.equal(answer.status, 403);
});

const limited = await signedIn("large-team");

await test("whoever has one route sees it, what it reads and sends to, and nothing else", async () => {
  const { page } = limited;
  await page.locator("#legs tr").first().waitFor();
  const names = list => page.locator(`#${list} strong`).allTextContents();
  assert.deepEqual([await names("sources"), await names("routes"), await names("sinks")], [["orders"], ["large-orders"], ["audit", "parked"]]);
  for (const [name, button] of [["Tap", "Open"], ["Traces", "Trace"]]) await passing(page, name, button, "large-orders");
  assert.doesNotMatch(await page.locator("body").innerText(), /orders-to-azure|order_hub|echoes/);
  assert.deepEqual(limited.refused, []);
});

await test("they limit a sink that is theirs alone, and lift that", async () => {
  const { page } = limited;
  await page.goto(`${rig.admin}/#/sink/audit`);
  await page.getByRole("button", { name: "Limit…" }).click();
  await page.getByRole("textbox", { name: "Events in a second" }).fill("250");
  await page.keyboard.press("Enter");
  await has(page.locator("#detail"), "at most 250 events in a second, as an operator has asked");
  await page.getByRole("button", { name: "Lift the limit" }).click();
  await page.locator("#ask").getByRole("button", { name: "Lift the limit" }).click();
  await has(page.locator("#detail"), "without a limit");
});

await test("they are offered nothing that is refused", async () => {
  const seen = {};
  for (const path of ["route/large-orders", "source/orders", "sink/audit", "sink/parked"]) seen[path] = await offered(limited.page, path);
  assert.deepEqual(seen, { "route/large-orders": [], "source/orders": [], "sink/audit": ["Open the breaker", "Limit…"], "sink/parked": [] });
});

await test("their dead letters, events and deliveries are shown without more ado", async () => {
  const { page } = limited, letters = page.locator("#letters-view"), asked = [];
  const parked = async () => {
    const answer = await fetch(`${rig.admin}/status`, { headers: { authorization: `Bearer ${token("large-team")}` } });
    return (await answer.json()).routes[0].dead_lettered;
  };
  await rig.publishTooLarge(5_000_000);
  await until(async () => await parked() === 1, "one of theirs is parked");
  page.on("request", request => request.url().includes("/dead-letters/order-") && asked.push(new URL(request.url()).search));
  const isShown = async () => {
    await has(letters.locator("h2"), "Event order-5000000");
    await has(letters.locator("dd"), "large-orders");
    await has(letters.locator("dd"), "too_large");
  };
  await turnTo(page, "Dead letters");
  await letters.getByRole("button", { name: "Look" }).click();
  await letters.getByRole("link", { name: "order-5000000", exact: true }).click();
  await isShown();
  // Without a form that says whose it is.
  await page.goto("about:blank");
  await page.goto(`${rig.admin}/#/dead-letters/order-5000000`);
  await isShown();
  assert.deepEqual(asked, ["?route=large-orders", "?route=large-orders"]);
  // Of others, who have parked it, nothing is told.
  await page.goto(`${rig.admin}/#/dead-letters/order-7`);
  await has(letters, "no dead letter is of this event");
  assert.doesNotMatch(await letters.textContent(), trouble);
  for (const [name, button] of [["Tap", "Open"], ["Traces", "Trace"]]) {
    await turnTo(page, name);
    const place = page.locator("main > div:not([hidden])");
    await place.getByRole("button", { name: button, exact: true }).click();
    await has(place.getByRole("status"), /; |open/);
    assert.doesNotMatch(await place.textContent(), trouble);
  }
});

await test("who has all routes of a source pauses them together", async () => {
  const { page, refused } = await signedIn("shop-team");
  await page.goto(`${rig.admin}/#/route/large-orders`);
  for (const [verb, shown] of [["Pause", "paused"], ["Resume", "in flight"]]) {
    await page.locator("#detail").getByRole("button", { name: verb }).click();
    await has(page.locator("#ask"), "With it: orders-to-azure");
    await page.locator("#ask").getByRole("button", { name: verb }).click();
    await has(page.locator("#toast"), `${verb}: done`);
    await has(page.locator("[id='source orders']"), shown);
  }
  assert.deepEqual(refused, []);
});

await test("no view asks for what is refused", async () => {
  const { page } = limited;
  for (const name of await page.getByRole("navigation").getByRole("link").allTextContents()) {
    await turnTo(page, name);
  }
  await has(page.locator("#config-view"), "for those who may see all routes");
  assert.deepEqual([...new Set(limited.refused)], []);
});

await test("the log holds no token and no body", async () => assert.deepEqual(await rig.leaked(), []));

await finish();

// A daemon between three local clouds, with orders that flow through it: what the page shows.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { createHash, randomBytes } from "node:crypto";
import { once } from "node:events";
import { mkdir, open, readFile, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { join, resolve } from "node:path";

export const root = new URL("../..", import.meta.url).pathname;
export const work = join(root, ".local/page/work");
// The account that every Azurite knows. Its key is public, and good for nothing else.
const account = "devstoreaccount1";
const key = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

async function freePort() {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address();
  server.close();
  return port;
}

// Waits until `holds` answers something, for as long as the caller has patience.
export async function until(holds, what, patience = 60_000) {
  const end = Date.now() + patience;
  while (Date.now() < end) {
    const it = await holds();
    if (it) return it;
    await new Promise(resolve => setTimeout(resolve, 50));
  }
  throw new Error(`in vain: ${what}`);
}

async function run(script, command, env) {
  const child = spawn(join(root, script), [command], { env: { ...process.env, ...env }, stdio: ["ignore", "ignore", "pipe"] });
  let told = "";
  child.stderr.on("data", text => { told += text; });
  // The cloud goes on with the same end of the pipe.
  const [code] = await once(child, "exit");
  child.stderr.destroy();
  if (code !== 0) throw new Error(`${script} ${command}: ${told}`);
}

// What is wrong with an order that has no amount, until the file is mended.
const strict = `
    transform:
      - validate: { schemas: { order.placed: { "1": order.json } } }
      - redact: { detect: [email] }`;
const lenient = `
    transform: [{ redact: { detect: [email] } }]`;

// A directory of its own for whatever is begun, with nothing in it.
export async function clear() {
  await rm(work, { recursive: true, force: true });
  await mkdir(work, { recursive: true });
}

export const binary = resolve(process.env.EVENTFERRY_BINARY ?? join(process.env.CARGO_TARGET_DIR ?? join(root, "target"), "debug/eventferry"));

// An order as SQS takes it.
function order(number, more) {
  const text = StringValue => ({ DataType: "String", StringValue });
  return {
    Id: String(number),
    MessageBody: JSON.stringify({ order: number, ...more, note: "ask jane@example.com" }),
    MessageAttributes: { ce_specversion: text("1.0"), ce_type: text("order.placed"), ce_id: text(`order-${number}`), ce_source: text("/shop"), tenant: text("acme") },
  };
}

export class Rig {
  // With `callers`, as the file has them but for their tokens, nobody else may ask.
  static async start(callers = []) {
    await clear();
    const [sqs, blob, queue, hubs, control, admin] = await Promise.all(Array.from({ length: 6 }, freePort));
    const rig = new Rig();
    rig.callers = callers.map(it => ({ ...it, token: `eventferry_${randomBytes(24).toString("base64url")}` }));
    await writeFile(join(work, "sqs.json"), JSON.stringify({ queues: ["orders", "parked"] }));
    await writeFile(join(work, "storage.json"), JSON.stringify({ queues: ["audit"], containers: [] }));
    rig.clouds = [
      ["localstack/localstack.sh", { LOCALSTACK_PORT: sqs, LOCALSTACK_STATE: join(work, "localstack"), LOCALSTACK_SEED: join(work, "sqs.json") }],
      ["azurite/azurite.sh", { AZURITE_BLOB_PORT: blob, AZURITE_QUEUE_PORT: queue, AZURITE_STATE: join(work, "azurite"), AZURITE_SEED: join(work, "storage.json") }],
      ["eventhubs/emulator.sh", { EVENTHUBS_PORT: hubs, EVENTHUBS_CONTROL_PORT: control, EVENTHUBS_STATE: join(work, "eventhubs") }],
    ];
    Object.assign(rig, { sqs: `http://127.0.0.1:${sqs}`, control: `http://127.0.0.1:${control}`, admin: `http://127.0.0.1:${admin}`, port: admin, file: join(work, "eventferry.yaml") });
    rig.env = {
      AWS_ACCESS_KEY_ID: "test", AWS_SECRET_ACCESS_KEY: "test", AWS_REGION: "us-east-1",
      STORAGE: `DefaultEndpointsProtocol=http;AccountName=${account};AccountKey=${key};QueueEndpoint=http://127.0.0.1:${queue}/${account};`,
      HUBS: `Endpoint=sb://127.0.0.1:${hubs};SharedAccessKeyName=page;SharedAccessKey=page;UseDevelopmentEmulator=true;`,
    };
    await writeFile(join(work, "order.json"), JSON.stringify({ type: "object", required: ["amount"], properties: { amount: { type: "number" } } }));
    await rig.write(strict);
    try {
      await Promise.all(rig.clouds.map(([script, env]) => run(script, "start", env)));
      await rig.begin();
    } catch (error) {
      await rig.stop();
      throw error;
    }
    return rig;
  }

  write(transform) {
    const tokens = this.callers.map(({ token, ...it }) => ({ ...it, sha256: createHash("sha256").update(token).digest("hex") }));
    const admin = { listen: `127.0.0.1:${this.port}`, ...(tokens.length && { tokens }) };
    return writeFile(this.file, `
state: { embedded: { path: data } }
admin: ${JSON.stringify(admin)}
reload: on_request
aws: { region: us-east-1, endpoint: "${this.sqs}" }
azure: { storage: { connection_string: "\${STORAGE}" } }
sources:
  orders: { sqs: { queue: orders } }
  past: { event_hubs: { connection_string: "\${HUBS}", hub: orders, start: earliest } }
sinks:
  audit: { storage_queue: { queue: audit } }
  order_hub: { event_hubs: { connection_string: "\${HUBS}", hub: orders } }
  copies: { storage_queue: { queue: audit } }
  parked: { sqs: { queue: parked } }
routes:
  - name: orders-to-azure
    from: orders
    when: { type: [order.placed] }${transform}
    to: { all: [order_hub] }
  - name: large-orders
    from: orders
    when: { type: [order.placed], data: { amount: [{ numeric: [">=", 400] }] } }
    to: { all: [audit] }
  - name: echoes
    from: past
    to: { all: [copies] }
dead_letter: parked
`);
  }

  // What was wrong with the orders is forgiven.
  mend() { return this.write(lenient); }

  // Somebody has made a mistake in the file.
  spoil() { return this.write(`${lenient}\n    wen: {}`); }

  async begin() {
    const log = await open(join(work, "eventferry.log"), "w");
    this.daemon = spawn(binary, ["run", "--config", "eventferry.yaml"], { cwd: work, env: { ...process.env, ...this.env }, stdio: ["ignore", log.fd, log.fd] });
    await log.close();
    await until(async () => (await fetch(`${this.admin}/readyz`).catch(() => null))?.ok, "the daemon is ready");
  }

  async ask(action, body) {
    const headers = {
      "content-type": "application/x-amz-json-1.0", "x-amz-target": `AmazonSQS.${action}`,
      authorization: "AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/sqs/aws4_request, SignedHeaders=host, Signature=0",
    };
    const answer = await fetch(this.sqs, { method: "POST", headers, body: JSON.stringify(body) });
    if (!answer.ok) throw new Error(`${action}: ${await answer.text()}`);
    return answer.json();
  }

  // Orders from this number on; those in `broken` lack their amount.
  async publish(from, count, broken = []) {
    const { QueueUrl } = await this.ask("GetQueueUrl", { QueueName: "orders" });
    for (let at = from; at < from + count; at += 10) {
      const numbers = Array.from({ length: Math.min(10, from + count - at) }, (_, n) => at + n);
      const Entries = numbers.map(n => order(n, broken.includes(n) ? {} : { amount: 10 + n * 37 % 500 }));
      await this.ask("SendMessageBatch", { QueueUrl, Entries });
    }
  }

  // An order that `large-orders` takes and that no Storage Queue does.
  async publishTooLarge(number) {
    const { QueueUrl } = await this.ask("GetQueueUrl", { QueueName: "orders" });
    await this.ask("SendMessageBatch", { QueueUrl, Entries: [order(number, { amount: 450, pad: "x".repeat(100_000) })] });
  }

  // Keeps orders coming until it is stopped.
  flow() {
    let number = 1_000, going = true;
    const turn = (async () => {
      while (going) {
        await this.publish(number, 10);
        number += 10;
        await new Promise(resolve => setTimeout(resolve, 250));
      }
    })();
    return async () => {
      going = false;
      await turn;
    };
  }

  // The hub takes nothing of the next requests, and says so.
  async refuse(count) {
    const scope = { hub: "orders", link: "send" };
    const answer = await fetch(`${this.control}/fault`, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify({ kind: "released", scope, count }) });
    if (!answer.ok) throw new Error(`fault: ${await answer.text()}`);
  }

  // Seconds of CPU that the daemon has taken, on Linux.
  async cpu() {
    const stat = await readFile(`/proc/${this.daemon.pid}/stat`, "utf8");
    const [user, system] = stat.slice(stat.lastIndexOf(")") + 2).split(" ").slice(11, 13);
    return (Number(user) + Number(system)) / 100;
  }

  // Lines of its log that hold what nobody may read there.
  async leaked() {
    const secrets = ["SharedAccessKey=", "AccountKey=", key, "jane@example.com", ...this.callers.map(it => it.token)];
    const log = await readFile(join(work, "eventferry.log"), "utf8");
    assert.match(log, /"target":"eventferry/);
    return log.split("\n").filter(line => secrets.some(secret => line.includes(secret)));
  }

  async status() { return (await fetch(`${this.admin}/status`)).json(); }

  async stop() {
    if (this.daemon && this.daemon.exitCode === null) {
      this.daemon.kill("SIGTERM");
      await once(this.daemon, "exit");
    }
    await Promise.all(this.clouds.map(([script, env]) => run(script, "stop", env).catch(error => console.error(error.message))));
  }
}

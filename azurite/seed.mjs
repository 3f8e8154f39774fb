// Makes the queues and containers of a seed file in Azurite; those that are there stay as they are.
//   node azurite/seed.mjs QUEUE_PORT BLOB_PORT SEED
import { createHmac } from "node:crypto";
import { readFileSync } from "node:fs";

// Every emulator of Azure Storage has this account and this key; both are published.
const account = "devstoreaccount1";
const key = Buffer.from(
  "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==",
  "base64",
);

const [queuePort, blobPort, seedFile] = process.argv.slice(2);
const { queues = [], containers = [] } = JSON.parse(readFileSync(seedFile, "utf8"));
for (const name of queues) await create(queuePort, name, {});
for (const name of containers) await create(blobPort, name, { restype: "container" });
console.log(`azurite: ${queues.length} queues and ${containers.length} containers are there`);

async function create(port, name, query) {
  const path = `/${account}/${name}`;
  const headers = { "x-ms-date": new Date().toUTCString(), "x-ms-version": "2021-12-02" };
  // https://learn.microsoft.com/rest/api/storageservices/authorize-with-shared-key
  const signed = [
    "PUT",
    ...Array(11).fill(""),
    ...Object.entries(headers).map(([header, value]) => `${header}:${value}`),
    `/${account}${path}`,
    ...Object.entries(query).map(([parameter, value]) => `${parameter}:${value}`),
  ].join("\n");
  const signature = createHmac("sha256", key).update(signed).digest("base64");
  const response = await fetch(`http://127.0.0.1:${port}${path}?${new URLSearchParams(query)}`, {
    method: "PUT",
    headers: { ...headers, authorization: `SharedKey ${account}:${signature}` },
    signal: AbortSignal.timeout(10_000),
  });
  if (![201, 204, 409].includes(response.status)) {
    console.error(`azurite: cannot make ${name}: ${response.status} ${await response.text()}`);
    process.exit(1);
  }
}

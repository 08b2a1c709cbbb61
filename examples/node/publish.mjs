// node publish.mjs TYPE KEY DATA: publishes one CloudEvent in binary mode and prints its id.
import { randomUUID } from "node:crypto";
import { createPartitioner, kafka, topic } from "./kafka.mjs";

const [type, key, data] = process.argv.slice(2);
if (data === undefined) {
  console.error(`usage: node publish.mjs lifelong.fact plans '{"subject": "…", "relation": "…", "object": "…"}'`);
  process.exit(2);
}

const id = randomUUID();
const producer = kafka.producer({ createPartitioner });
await producer.connect();
try {
  await producer.send({
    topic: topic("lifelong.events.v1"),
    acks: -1,
    messages: [
      {
        key,
        value: JSON.stringify(JSON.parse(data)),
        headers: {
          ce_specversion: "1.0",
          ce_id: id,
          ce_source: "/examples/node",
          ce_type: type,
          ce_time: new Date().toISOString(),
          "content-type": "application/json",
        },
      },
    ],
  });
  console.log(id);
} finally {
  await producer.disconnect();
}

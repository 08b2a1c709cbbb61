// node outputs.mjs [--all] [--count N]: prints every answer as it is given, one JSON a line.
import { randomUUID } from "node:crypto";
import { parseArgs } from "node:util";
import { kafka, topic } from "./kafka.mjs";

const { values } = parseArgs({ options: { all: { type: "boolean", default: false }, count: { type: "string" } } });
let left = values.count === undefined ? Infinity : Number(values.count);

// A group of its own: everybody who runs this sees every answer.
const consumer = kafka.consumer({ groupId: `lifelong-example-${randomUUID()}` });
let finish;
const finished = new Promise((resolve) => (finish = resolve));
for (const signal of ["SIGINT", "SIGTERM"]) process.once(signal, finish);

await consumer.connect();
try {
  await consumer.subscribe({ topic: topic("lifelong.outputs.v1"), fromBeginning: values.all });
  await consumer.run({
    eachMessage: async ({ message }) => {
      if (left <= 0) return;
      console.log(message.value.toString());
      left -= 1;
      if (left === 0) finish();
    },
  });
  await finished;
} finally {
  await consumer.disconnect();
}

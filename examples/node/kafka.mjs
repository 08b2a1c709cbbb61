// One connection for all examples. KAFKA=host:port names another broker than 127.0.0.1:9092.
import kafkajs from "kafkajs";
import lz4 from "lz4js";

// What we read was written with LZ4, which kafkajs leaves to others.
kafkajs.CompressionCodecs[kafkajs.CompressionTypes.LZ4] = () => ({
  compress: async (encoder) => Buffer.from(lz4.compress(encoder.buffer)),
  decompress: async (buffer) => Buffer.from(lz4.decompress(buffer)),
});

export const kafka = new kafkajs.Kafka({
  clientId: "lifelong-example",
  brokers: (process.env.KAFKA ?? "127.0.0.1:9092").split(","),
  logLevel: kafkajs.logLevel.ERROR,
});

export const topic = (name) => (process.env.TOPIC_PREFIX ?? "") + name;

// As all other clients do, so that events of one key stay in order whoever publishes them.
export const createPartitioner = kafkajs.Partitioners.DefaultPartitioner;

"""The stream on Kafka."""

from lifelong.stream.kafka_sink import KafkaSink
from lifelong.stream.kafka_source import KafkaGroupSource, KafkaSource

__all__ = ["KafkaGroupSource", "KafkaSink", "KafkaSource"]

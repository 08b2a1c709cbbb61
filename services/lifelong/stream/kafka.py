"""The stream on Kafka."""

from lifelong.stream.kafka_group import KafkaGroupSource
from lifelong.stream.kafka_sink import KafkaSink
from lifelong.stream.kafka_source import KafkaSource

__all__ = ["KafkaGroupSource", "KafkaSink", "KafkaSource"]

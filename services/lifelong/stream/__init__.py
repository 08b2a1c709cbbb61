"""Reading from and writing to topics: Kafka, and the same in memory.

An *offset* is the position of a record in its partition. A *position* is the offset of the next record to read. What
is committed is a position.
"""

from lifelong.stream.base import GroupSource, Partition, Record, Sink, Source

__all__ = ["GroupSource", "Partition", "Record", "Sink", "Source"]

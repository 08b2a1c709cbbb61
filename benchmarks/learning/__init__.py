"""Which way of learning from a stream is any good: strategies on streams made of public data."""

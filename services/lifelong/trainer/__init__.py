"""The online learner: samples in, versions out.

``intake`` keeps the books of what came, ``schooling`` is one micro-batch from parent to candidate, ``state`` is what a
version consists of besides its adapter, ``handler`` joins them, ``app`` connects them to Kafka, Redis and the store.
"""

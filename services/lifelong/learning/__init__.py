"""Learning methods, one a file, each reading like its paper. Knows no Kafka, no Redis and no files.

What is learnt is a :class:`~lifelong.contracts.samples.Sample`; what learns is anything that is a
:class:`~lifelong.learning.base.Learner`. All losses are in nats per target token unless a name says otherwise.
Shapes: S samples, N target tokens of all samples one after the other, V vocabulary.
"""

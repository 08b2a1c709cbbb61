"""The language model: loading, adapters, tokenising, generation. Knows no Kafka and no Redis.

``base`` loads the frozen base, ``adapter`` the small part that learns, ``tokenise`` makes training examples,
``engine`` answers from several versions at once, ``student`` makes a smaller model, ``embedder`` makes vectors.
"""

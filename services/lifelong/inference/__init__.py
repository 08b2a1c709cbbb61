"""The process that answers: OpenAI-compatible HTTP and the requests topic, always from the live version.

``versions`` keeps what may answer, ``recall`` finds memories, ``handler`` makes one answer of them, ``outputs`` sees to
it that no answer goes unrecorded. ``http`` and ``topics`` are the two ways in.
"""

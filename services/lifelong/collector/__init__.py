"""Events in, samples out: cleans, refuses, masks, drops what was seen before, and accounts for every event.

Keeps nothing of its own: positions are the broker's, and what it must know of the past is in Redis.
"""

"""Every Redis key: its type, its owner and how long it lives.

``lifelong:<area>:{<line>}:<thing>[:<id>]``. The braces are a hash tag: all keys of one line live on one node of a
Redis Cluster, so that scripts may touch several of them.

| key | type | owner | lives |
|---|---|---|---|
| ``lifelong:registry:{line}:pointers`` | hash: live, candidate, epoch, held | trainer / distiller, CLI | for ever |
| ``lifelong:registry:{line}:lease`` | string: writer id | trainer / distiller | seconds, renewed |
| ``lifelong:memory:{line}:entry:<id>`` | hash | collector | until forgotten |
| ``lifelong:memory:{line}:index`` | sorted set: entry id by event time | collector | for ever |
| ``lifelong:memory:{line}:log`` | stream of changes, for the indexes of the servers | collector | capped |
| ``lifelong:memory:{line}:expiry`` | sorted set: entry id by the time it expires | collector | until swept |
| ``lifelong:memory:{line}:forgotten`` | set of event ids that were forgotten | collector | for ever |
| ``lifelong:memory:{line}:user:<user>`` | set of entry ids | collector | until forgotten |
| ``lifelong:memory:{line}:event:<event id>`` | set of entry ids | collector | until forgotten |
| ``lifelong:collector:{line}:seen:<event or content hash>`` | list: position first seen, time | collector | window |
| ``lifelong:collector:{line}:seen:<band hash>`` | sorted set: position of a new document by time | collector | window |
| ``lifelong:collector:{line}:signature:<position>`` | hash: verdict, MinHash values | collector | window |
| ``lifelong:collector:{line}:label:<task>:<observation id>`` | hash: half of it by offset | collector | window |
| ``lifelong:collector:{line}:known`` | string: stands for all of the collectors' | collector | for ever |
| ``lifelong:collector:{line}:telling`` | string: who makes all of it again | collector | a minute, renewed |
| ``lifelong:outputs:{line}:output:<id>`` | string: JSON of the output | inference | days |
"""

from __future__ import annotations


def pointers(line: str) -> str:
    return f"lifelong:registry:{{{line}}}:pointers"


def lease(line: str) -> str:
    return f"lifelong:registry:{{{line}}}:lease"


def memory_entry(line: str, entry_id: str) -> str:
    return f"lifelong:memory:{{{line}}}:entry:{entry_id}"


def memory_index(line: str) -> str:
    return f"lifelong:memory:{{{line}}}:index"


def memory_log(line: str) -> str:
    return f"lifelong:memory:{{{line}}}:log"


def memory_expiry(line: str) -> str:
    return f"lifelong:memory:{{{line}}}:expiry"


def memory_forgotten(line: str) -> str:
    return f"lifelong:memory:{{{line}}}:forgotten"


def memory_of_user(line: str, user: str) -> str:
    return f"lifelong:memory:{{{line}}}:user:{user}"


def memory_of_event(line: str, event_id: str) -> str:
    return f"lifelong:memory:{{{line}}}:event:{event_id}"


def seen(line: str, digest: str) -> str:
    return f"lifelong:collector:{{{line}}}:seen:{digest}"


def signature(line: str, position: str) -> str:
    return f"lifelong:collector:{{{line}}}:signature:{position}"


def open_observation(line: str, task: str, observation_id: str) -> str:
    return f"lifelong:collector:{{{line}}}:label:{task}:{observation_id}"


def known(line: str) -> str:
    return f"lifelong:collector:{{{line}}}:known"


def telling(line: str) -> str:
    return f"lifelong:collector:{{{line}}}:telling"


def output(line: str, output_id: str) -> str:
    return f"lifelong:outputs:{{{line}}}:output:{output_id}"

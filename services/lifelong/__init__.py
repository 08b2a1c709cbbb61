"""A large language model that keeps learning from your event stream while it serves.

from lifelong import Client

with Client() as client:
    answer = client.ask("Which version of Firefox was the first to support the CSS at-rule @container?")
    client.feedback(answer, correction="Firefox 110.")
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lifelong.client import Answer, Client

__all__ = ["Answer", "Client"]


def __getattr__(name: str) -> Any:
    # Lazy, so that a process that needs no client does not pay for importing it.
    if name in __all__:
        from lifelong import client

        return getattr(client, name)
    raise AttributeError(f"module 'lifelong' has no attribute {name!r}")

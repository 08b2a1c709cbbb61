"""Every error that lifelong raises on purpose.

::

    LifelongError
    ├── ConfigError          a setting is unknown, missing or out of range; names the field
    ├── DecodeError          bytes from outside are not what the contract says; keeps the data and the cause
    ├── MissingPartError     a program, package, model or server is not there; names the mend
    ├── RegistryError
    │   ├── FencedError      a newer writer has taken over; this one must stop
    │   ├── CorruptVersionError   bytes in the artifact store do not match their manifest
    │   └── UnknownVersionError   no such version
    ├── StreamError          a topic cannot be read or written, and trying again will not help; says why
    │   ├── StreamGapError   records needed to go on have been deleted by retention; names the gap
    │   └── TooManyDeadLettersError  so many refusals mean a mistake of ours, not of the records
    ├── UnreachableError     a server does not answer now, or refuses to write; names it
    ├── RequestError         a server refused a request of the client; has the HTTP status
    └── OverloadedError      try again later (HTTP 429)

``retriable`` says whether the same call may succeed later without anybody mending anything.
"""


class LifelongError(Exception):
    retriable = False


class ConfigError(LifelongError):
    """``field`` is the dotted name as in the TOML file, for example ``trainer.batch_size``."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}")
        self.field = field


class DecodeError(LifelongError):
    """``reason`` is a short, stable word for metrics and dead letters, ``detail`` is for people."""

    def __init__(self, reason: str, detail: str, data: bytes | None = None) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail
        self.data = data


class MissingPartError(LifelongError):
    """The message ends with what to do about it."""


class RegistryError(LifelongError):
    pass


class FencedError(RegistryError):
    pass


class CorruptVersionError(RegistryError):
    pass


class UnknownVersionError(RegistryError):
    pass


class StreamError(LifelongError):
    pass


class StreamGapError(StreamError):
    """Records from offset ``wanted`` on are needed; the partition has those from ``first`` up to before ``end``."""

    def __init__(self, topic: str, partition: int, wanted: int, first: int, end: int) -> None:
        reason = (
            "records were deleted before they were read: retention is too short, or the reader was away too long"
            if wanted < first
            else "the topic was made anew, or its broker has lost records"
        )
        super().__init__(
            f"{topic}, partition {partition}: offset {wanted} is wanted, the topic has [{first}, {end}); {reason}"
        )
        self.topic = topic
        self.partition = partition
        self.wanted = wanted
        self.first = first
        self.end = end


class TooManyDeadLettersError(StreamError):
    pass


class UnreachableError(LifelongError):
    retriable = True


class OverloadedError(LifelongError):
    retriable = True


class RequestError(LifelongError):
    """``status`` is the HTTP status, the message is the server's."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"HTTP {status}: {message}")
        self.status = status
        self.retriable = status in (502, 503, 504)

"""What OpenAI's clients send, checked and turned into what we ask of the model.

Fields that we do not know are ignored, as those clients send many; a known field of a wrong type is refused, and so is
one that would change the meaning of the answer in a way we cannot follow (several choices, forced JSON, log
probabilities).

Source: https://platform.openai.com/docs/api-reference/chat/create
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from lifelong.contracts.events import Message
from lifelong.contracts.requests import Request

_ROLES: dict[str, Literal["system", "user", "assistant"]] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
}
MAX_STOPS = 4


class BadFieldError(ValueError):
    """A request that cannot be followed; ``param`` is the field, as the caller wrote it."""

    def __init__(self, param: str, problem: str, code: str = "invalid_value") -> None:
        super().__init__(problem)
        self.param = param
        self.code = code


def _encodable(text: str) -> str:
    """JSON can write half a surrogate pair, which is no character: no tokenizer and no topic can take it."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError("half of a surrogate pair is no character") from error
    return text


_Text = Annotated[str, AfterValidator(_encodable)]


class Ask(msgspec.Struct, frozen=True):
    """One question. ``prompt`` is raw text to go on from; ``None``: the messages in the model's chat format."""

    request: Request
    prompt: str | None = None


class _Body(BaseModel):
    # Strict: "12" is no number, true is no number.
    model_config = ConfigDict(extra="ignore", strict=True)


class TextPart(_Body):
    type: Literal["text"]
    text: _Text


class ChatMessage(_Body):
    role: Literal["system", "developer", "user", "assistant"]
    content: _Text | list[TextPart] | None = None

    def text(self) -> str:
        if isinstance(self.content, list):
            return "".join(part.text for part in self.content)
        return self.content or ""


class StreamOptions(_Body):
    include_usage: bool = False


class ResponseFormat(_Body):
    type: str


class _Sampling(_Body):
    """What the chat route and the completions route share."""

    model: _Text | None = None
    """A line, ``line@number``; without it the live version of this server's line."""
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    stop: _Text | list[_Text] | None = None
    seed: int | None = None
    user: _Text | None = None
    n: int | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None

    @property
    def include_usage(self) -> bool:
        return self.stream_options is not None and self.stream_options.include_usage

    def _fields(self, request_id: str) -> dict[str, Any]:
        if self.n not in (None, 1):
            raise BadFieldError("n", "only one choice can be given: n must be 1", "unsupported_value")
        if self.stream_options is not None and not self.stream:
            raise BadFieldError("stream_options", "stream_options is only allowed with stream")
        stops = [self.stop] if isinstance(self.stop, str) else self.stop or []
        if len(stops) > MAX_STOPS or "" in stops:
            raise BadFieldError("stop", f"stop must be at most {MAX_STOPS} strings that are not empty")
        return {
            "id": request_id,
            "model": self.model or None,
            "max_tokens": self.max_tokens,
            "temperature": 0.0 if self.temperature is None else float(self.temperature),
            "top_p": 1.0 if self.top_p is None else float(self.top_p),
            "stop": tuple(stops),
            "seed": self.seed,
            "user": self.user or None,
        }


class ChatBody(_Sampling):
    messages: Annotated[list[ChatMessage], Field(min_length=1)]
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    response_format: ResponseFormat | None = None
    logprobs: bool | None = None
    memory: bool | None = None
    """Ours: whether memory may be looked up for this answer. Without it: yes."""

    def ask(self, request_id: str) -> Ask:
        """Raises BadFieldError."""
        if self.response_format is not None and self.response_format.type != "text":
            raise BadFieldError("response_format", "only the format 'text' can be given", "unsupported_value")
        if self.logprobs:
            raise BadFieldError("logprobs", "log probabilities are not given", "unsupported_value")
        fields = self._fields(request_id)
        fields["max_tokens"] = self.max_completion_tokens or self.max_tokens
        fields["messages"] = tuple(Message(_ROLES[message.role], message.text()) for message in self.messages)
        fields["memory"] = self.memory is not False
        return Ask(Request(**fields))


class CompletionBody(_Sampling):
    prompt: _Text | list[_Text]
    echo: bool | None = None
    best_of: int | None = None
    suffix: str | None = None
    logprobs: int | None = None

    def ask(self, request_id: str) -> Ask:
        """Raises BadFieldError."""
        prompts = [self.prompt] if isinstance(self.prompt, str) else self.prompt
        if len(prompts) != 1 or not prompts[0]:
            raise BadFieldError("prompt", "exactly one prompt that is not empty can be given")
        for name, neutral in (
            ("echo", (None, False)),
            ("best_of", (None, 1)),
            ("suffix", (None, "")),
            ("logprobs", (None, 0)),
        ):
            if getattr(self, name) not in neutral:
                raise BadFieldError(name, f"{name} is not supported", "unsupported_value")
        fields = self._fields(request_id)
        fields["messages"] = (Message("user", prompts[0]),)
        # What is remembered is put before the model as turns of a conversation, and this is none.
        fields["memory"] = False
        return Ask(Request(**fields), prompt=prompts[0])


class FeedbackBody(_Body):
    output_id: Annotated[_Text, Field(min_length=1)]
    rating: Annotated[float, Field(ge=-1, le=1)] | None = None
    correction: Annotated[_Text, Field(min_length=1)] | None = None
    user: _Text | None = None

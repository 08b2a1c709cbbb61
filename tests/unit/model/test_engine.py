from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator

import peft
import pytest
import torch
from transformers.generation.continuous_batching.requests import RequestState

from lifelong.contracts.events import Message
from lifelong.errors import OverloadedError, UnknownVersionError
from lifelong.model.adapter import AdapterState, adapter_state, add_adapter, load_adapter_state
from lifelong.model.answer import Piece, RunningAnswer
from lifelong.model.base import BaseModel, view_of
from lifelong.model.batching_engine import BatchingEngine
from lifelong.model.engine import Generation
from lifelong.model.hashing import weights_sha256
from lifelong.model.ring import GenerationRing
from lifelong.model.sampling import SamplingParams
from lifelong.model.settings import AdapterSettings, EngineSettings
from lifelong.model.tokenise import encode_prompt

ADAPTER = AdapterSettings(rank=4, alpha=8)
SETTINGS = EngineSettings(max_requests=8, max_batch_requests=4, max_batch_tokens=64, cache_tokens=512, page_tokens=16)
PROMPTS = ["hi", "Where is the key?", "你好", "The second question is longer than the first one, by far."]


def _threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.is_alive()}


@pytest.fixture
def engine(tiny: BaseModel) -> Iterator[BatchingEngine]:
    before = _threads()
    engine = BatchingEngine(tiny, ADAPTER, SETTINGS)
    yield engine
    engine.close()
    assert sorted(thread.name for thread in _threads() - before) == []


class Reference:
    """The same weights in another object, answering by ``generate``."""

    def __init__(self, base: BaseModel) -> None:
        self._tokenizer = base.tokenizer
        self._bare = view_of(base).model
        self._model: peft.PeftModel = add_adapter(view_of(base), ADAPTER, seed=0)

    def state(self, seed: int) -> AdapterState:
        generator = torch.Generator().manual_seed(seed)
        return {
            name: 0.3 * torch.randn(tensor.shape, generator=generator)
            for name, tensor in adapter_state(self._model).items()
        }

    def prompt(self, text: str) -> list[int]:
        return encode_prompt(self._tokenizer, [Message("user", text)])

    def answer(self, state: AdapterState | None, text: str, num: int) -> list[int]:
        model = self._bare
        if state is not None:
            load_adapter_state(self._model, state)
            model = self._model
        prompt = torch.tensor([self.prompt(text)])
        whole = model.generate(
            input_ids=prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=num, do_sample=False
        )
        tokens: list[int] = whole[0, prompt.shape[1] :].tolist()
        return tokens


@pytest.fixture
def reference(tiny: BaseModel) -> Reference:
    return Reference(tiny)


def _ask(
    engine: BatchingEngine, generation: Generation, reference: Reference, text: str, num: int = 30
) -> RunningAnswer:
    return engine.submit(generation, reference.prompt(text), SamplingParams(max_tokens=num))


def _wait(condition: Callable[[], bool]) -> None:
    deadline = threading.Event()
    for _ in range(1000):
        if condition():
            return
        deadline.wait(0.01)
    raise AssertionError("waited for ten seconds in vain")


def test_generations_side_by_side_answer_each_as_generate_does(
    engine: BatchingEngine, reference: Reference, tiny: BaseModel
) -> None:
    base_before = weights_sha256(tiny.model.state_dict())
    states = [None, reference.state(1), reference.state(2)]
    generations = [engine.load(f"lifelong@{n}", state) for n, state in enumerate(states)]
    running = {
        (n, text): _ask(engine, generation, reference, text)
        for text in PROMPTS[:2]
        for n, generation in enumerate(generations)
    }
    answers = {place: answer.result(60) for place, answer in running.items()}
    for (n, text), answer in answers.items():
        assert list(answer.tokens) == reference.answer(states[n], text, 30), (n, text)
        assert answer.num_prompt_tokens == len(reference.prompt(text))
    assert len({answer.tokens for answer in answers.values()}) == len(answers)
    assert weights_sha256(tiny.model.state_dict()) == base_before


def test_a_batch_answers_as_each_alone(engine: BatchingEngine, reference: Reference) -> None:
    state = reference.state(1)
    generation = engine.load("lifelong@1", state)
    running = [_ask(engine, generation, reference, text) for text in PROMPTS]
    for text, answer in zip(PROMPTS, running, strict=True):
        assert list(answer.result(60).tokens) == reference.answer(state, text, 30)


def test_a_swap_does_not_touch_an_answer_under_way(engine: BatchingEngine, reference: Reference) -> None:
    states = [reference.state(1), reference.state(2)]
    ring = GenerationRing(engine, keep=1)
    ring.flip("lifelong", engine.load("lifelong@1", states[0]))
    prompt, params = reference.prompt(PROMPTS[1]), SamplingParams(max_tokens=120)
    old = ring.submit("lifelong", prompt, params)
    next(iter(old))
    ring.flip("lifelong", engine.load("lifelong@2", states[1]))
    assert not old.done
    new = ring.submit("lifelong", prompt, params)
    assert (old.version, new.version) == ("lifelong@1", "lifelong@2")
    assert list(old.result(60).tokens) == reference.answer(states[0], PROMPTS[1], 120)
    assert list(new.result(60).tokens) == reference.answer(states[1], PROMPTS[1], 120)
    _wait(lambda: [generation.key for generation in engine.generations()] == ["lifelong@2"])


def test_the_ring_keeps_earlier_generations_hot_and_flips_back(engine: BatchingEngine, reference: Reference) -> None:
    ring = GenerationRing(engine, keep=2)
    for number in (1, 2, 3):
        ring.flip("lifelong", engine.load(f"lifelong@{number}", reference.state(number)))
    _wait(lambda: [generation.key for generation in engine.generations()] == ["lifelong@2", "lifelong@3"])
    prompt, params = reference.prompt("hi"), SamplingParams(max_tokens=2)
    assert ring.submit("lifelong@2", prompt, params).version == "lifelong@2"
    with pytest.raises(UnknownVersionError):
        ring.submit("lifelong@1", prompt, params)
    with pytest.raises(UnknownVersionError):
        ring.submit("other", prompt, params)
    earlier = ring.find("lifelong@2")
    assert earlier is not None
    ring.flip("lifelong", earlier)
    assert ring.current("lifelong") == "lifelong@2"
    assert ring.submit("lifelong", prompt, params).version == "lifelong@2"
    assert [generation.key for generation in engine.generations()] == ["lifelong@2", "lifelong@3"]


def test_text_comes_in_pieces_to_threads_and_to_a_loop(engine: BatchingEngine, reference: Reference) -> None:
    generation = engine.load("lifelong@1", reference.state(1))
    answer = _ask(engine, generation, reference, "hi")
    pieces = list(answer)
    whole = answer.result(0)
    assert len(pieces) > 20
    assert "".join(piece.text for piece in pieces) == whole.text
    assert tuple(token for piece in pieces for token in piece.tokens) == whole.tokens
    assert whole.text == engine._base.tokenizer.decode(whole.tokens, skip_special_tokens=True)

    async def collect() -> list[Piece]:
        return [piece async for piece in _ask(engine, generation, reference, "hi")]

    assert "".join(piece.text for piece in asyncio.run(collect())) == whole.text


def test_logprobs_are_those_of_the_model(engine: BatchingEngine, reference: Reference) -> None:
    state = reference.state(1)
    answer = _ask(engine, engine.load("lifelong@1", state), reference, "hi").result(60)
    load_adapter_state(reference._model, state)
    prompt = reference.prompt("hi")
    with torch.no_grad():
        logits = reference._model(torch.tensor([[*prompt, *answer.tokens]])).logits[0]
    rows = torch.log_softmax(logits[len(prompt) - 1 : -1], -1)
    expected = rows.gather(1, torch.tensor(answer.tokens)[:, None])[:, 0]
    torch.testing.assert_close(torch.tensor(answer.logprobs), expected, atol=1e-3, rtol=1e-3)


def test_a_stop_string_ends_the_answer_before_it(engine: BatchingEngine, reference: Reference) -> None:
    generation = engine.load("lifelong@1", reference.state(1))
    whole = _ask(engine, generation, reference, "hi", 60).result(60)
    assert whole.finish_reason == "length"
    stop = whole.text[10:13]
    answer = engine.submit(generation, reference.prompt("hi"), SamplingParams(max_tokens=60, stop=(stop,))).result(60)
    assert answer.text == whole.text[: whole.text.index(stop)]
    assert answer.finish_reason == "stop"
    assert len(answer.tokens) < len(whole.tokens)


def test_the_end_token_ends_the_answer(engine: BatchingEngine, reference: Reference, tiny: BaseModel) -> None:
    generation = engine.load("lifelong@1", reference.state(1))
    tokens = _ask(engine, generation, reference, "hi").result(60).tokens
    generation._end_tokens = frozenset({tokens[7]})
    answer = _ask(engine, generation, reference, "hi").result(60)
    assert answer.finish_reason == "stop"
    assert answer.tokens == tokens[: tokens.index(tokens[7]) + 1]


def test_a_seed_gives_the_same_answer_whatever_else_is_in_the_batch(
    engine: BatchingEngine, reference: Reference
) -> None:
    generation = engine.load("lifelong@1", reference.state(1))
    prompt = reference.prompt("hi")
    params = SamplingParams(max_tokens=30, temperature=0.8, top_p=0.95, seed=5)
    alone = engine.submit(generation, prompt, params).result(60)
    beside = [_ask(engine, generation, reference, text) for text in PROMPTS[:3]]
    together = engine.submit(generation, prompt, params).result(60)
    assert together.tokens == alone.tokens
    assert [answer.result(60).finish_reason for answer in beside] == ["length"] * 3
    other = engine.submit(generation, prompt, SamplingParams(max_tokens=30, temperature=0.8, seed=6)).result(60)
    assert other.tokens != alone.tokens


def test_cancelled_answers_end_at_once_and_make_room(engine: BatchingEngine, reference: Reference) -> None:
    generation = engine.load("lifelong@1", reference.state(1))
    running = [_ask(engine, generation, reference, "hi", 300) for _ in range(SETTINGS.max_requests)]
    with pytest.raises(OverloadedError):
        _ask(engine, generation, reference, "hi")
    for answer in running:
        answer.cancel()
        assert answer.result(0).finish_reason == "cancelled"
    assert engine.num_requests == 0
    assert _ask(engine, generation, reference, "hi", 5).result(60).finish_reason == "length"


def test_more_than_the_cache_holds_is_answered_all_the_same(
    engine: BatchingEngine, reference: Reference, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four answers of 250 tokens do not fit in 512: some are put back, and what was said of them must not change."""
    put_back = []
    equivalent = RequestState.create_equivalent_initial_request

    def note(state: RequestState) -> RequestState:
        put_back.append(state.request_id)
        return equivalent(state)

    monkeypatch.setattr(RequestState, "create_equivalent_initial_request", note)
    state = reference.state(1)
    generation = engine.load("lifelong@1", state)
    texts = PROMPTS[:4]
    running = [_ask(engine, generation, reference, text, 250) for text in texts]
    for text, answer in zip(texts, running, strict=True):
        assert list(answer.result(120).tokens) == reference.answer(state, text, 250), text
        assert len(answer.result(0).logprobs) == len(answer.result(0).tokens)
    assert put_back


def test_requests_that_cannot_fit_are_refused(engine: BatchingEngine, reference: Reference) -> None:
    generation = engine.load("lifelong@1", None)
    with pytest.raises(ValueError, match="at most 511"):
        engine.submit(generation, [5] * 512, SamplingParams())
    with pytest.raises(ValueError, match="empty"):
        engine.submit(generation, [], SamplingParams())
    answer = engine.submit(generation, [5] * 509, SamplingParams(max_tokens=100)).result(60)
    assert len(answer.tokens) == 3
    assert answer.finish_reason == "length"


def test_a_thread_that_dies_leaves_nobody_waiting(
    engine: BatchingEngine, reference: Reference, monkeypatch: pytest.MonkeyPatch
) -> None:
    generation = engine.load("lifelong@1", reference.state(1))
    good = engine.load("lifelong@2", reference.state(2))
    answer = _ask(engine, generation, reference, "hi", 400)
    next(iter(answer))

    def fail(*_: object, **__: object) -> None:
        raise MemoryError("no room")

    monkeypatch.setattr(generation._batcher, "_generation_step", fail)
    result = answer.result(60)
    assert result.finish_reason == "error"
    assert result.error is not None
    assert "no room" in result.error
    _wait(lambda: generation.failure is not None)
    with pytest.raises(OverloadedError, match="no room"):
        _ask(engine, generation, reference, "hi")
    assert engine.num_requests == 0
    assert _ask(engine, good, reference, "hi", 5).result(60).finish_reason == "length"


def test_a_generation_is_taken_down_at_its_last_release(engine: BatchingEngine, reference: Reference) -> None:
    generation = engine.load("lifelong@1", reference.state(1))
    answer = _ask(engine, generation, reference, "hi", 60)
    generation.release()
    assert answer.result(60).finish_reason == "length"
    _wait(lambda: not engine.generations())
    assert not generation.hold()
    with pytest.raises(OverloadedError):
        _ask(engine, generation, reference, "hi")


def test_an_adapter_that_does_not_fit_is_refused(engine: BatchingEngine, reference: Reference) -> None:
    with pytest.raises(ValueError, match="only one of adapter and state"):
        engine.load("lifelong@1", {"x": torch.zeros(1)})
    assert not engine.generations()


def test_close_calls_off_what_runs(tiny: BaseModel, reference: Reference) -> None:
    before = _threads()
    engine = BatchingEngine(tiny, ADAPTER, SETTINGS)
    generation = engine.load("lifelong@1", reference.state(1))
    answer = _ask(engine, generation, reference, "hi", 400)
    engine.close()
    assert answer.result(0).finish_reason in ("cancelled", "error")
    assert sorted(thread.name for thread in _threads() - before) == []

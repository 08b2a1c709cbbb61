"""What the processes of a run touch: the real things in memory, each call a point at which something may go wrong."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from tests.simulation.faults import FATES, error_of
from tests.simulation.schedule import Schedule

from lifelong.contracts.requests import Output
from lifelong.model.answer import Answer, Piece
from lifelong.model.base import BaseModel
from lifelong.model.hashing import combined_sha256, tensor_hashes
from lifelong.model.sampling import SamplingParams
from lifelong.model.settings import AdapterSettings
from lifelong.runtime.metrics import Metrics
from lifelong.stream.base import Partition, Record
from lifelong.stream.memory import Fate, MemoryBroker, MemoryGroupSource, MemorySink, MemorySource


class Hooked:
    """Any store: each call of it is a point, ``part.name``, that may fail before or after it is done."""

    def __init__(self, inner: Any, part: str, schedule: Schedule) -> None:
        self._inner = inner
        self._part = part
        self._schedule = schedule

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        point, schedule = f"{self._part}.{name}", self._schedule

        def call(*args: Any, **kwargs: Any) -> Any:
            fault = schedule.point(point)
            result = found(*args, **kwargs)
            if fault == "fail after":
                raise error_of(point)
            return result

        setattr(self, name, call)
        return call


class Broker(MemoryBroker):
    num_appended = 0

    def append(self, *args: Any) -> None:
        super().append(*args)
        self.num_appended += 1


class Sink:
    def __init__(self, broker: Broker, schedule: Schedule) -> None:
        self._schedule = schedule
        self._fate: Fate = "written"
        self.inner: MemorySink = broker.sink(fate=lambda: self._fate)

    def send(self, topic: str, value: bytes | None, **kwargs: Any) -> None:
        fault = self._schedule.point("stream.send")
        self._fate = next((fate for fate in FATES if fate == fault), "written")
        self.inner.send(topic, value, **kwargs)

    def flush(self) -> None:
        fault = self._schedule.point("stream.flush")
        self.inner.flush()
        if fault == "fail after":
            raise error_of("stream.flush")

    def close(self) -> None:
        self._schedule.point("stream.close")
        self.inner.close()


class Source:
    """Both kinds of source; a poll waits, by the simulated clock, until something comes."""

    def __init__(self, inner: MemorySource | MemoryGroupSource, broker: Broker, schedule: Schedule) -> None:
        self.inner: Any = inner
        self._broker = broker
        self._schedule = schedule

    def poll(self, timeout_seconds: float, max_records: int = 500) -> list[Record]:
        self._schedule.point("stream.poll")
        records: list[Record] = self.inner.poll(0, max_records)
        if not records and timeout_seconds > 0:
            known = self._broker.num_appended
            if self._schedule.wait_until(lambda: self._broker.num_appended != known, timeout_seconds):
                records = self.inner.poll(0, max_records)
        return records

    def commit(self, positions: Mapping[Partition, int]) -> None:
        fault = self._schedule.point("stream.commit")
        self.inner.commit(positions)
        if fault == "fail after":
            raise error_of("stream.commit")

    def close(self) -> None:
        self._schedule.point("stream.close")
        self.inner.close()

    @property
    def generation(self) -> int:
        return int(self.inner.generation)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


class NoMetrics(Metrics):
    """Takes everything and keeps nothing: making the real ones takes longer than a run."""

    def __init__(self) -> None:
        """Without the registry of the real ones."""

    def count(self, *args: Any, **kwargs: Any) -> None:
        pass

    set = observe = remove = count


class OutputStore:
    def __init__(self) -> None:
        self._outputs: dict[str, Output] = {}

    def put(self, outputs: Sequence[Output]) -> None:
        self._outputs.update((output.id, output) for output in outputs)

    def get(self, output_id: str) -> Output | None:
        return self._outputs.get(output_id)


class Generation:
    failure = None

    def __init__(self, key: str, weights_sha256: str) -> None:
        self.key = key
        self.weights_sha256 = weights_sha256
        self.num_holds = 1

    def hold(self) -> bool:
        if not self.num_holds:
            return False
        self.num_holds += 1
        return True

    def release(self) -> None:
        assert self.num_holds > 0, f"{self.key} was released too often"
        self.num_holds -= 1


class Running:
    """An answer that is there at once."""

    def __init__(self, generation: Generation, num_prompt_tokens: int) -> None:
        self.version = generation.key
        self._answer = Answer(generation.weights_sha256, (1,), (0.0,), "stop", num_prompt_tokens)

    def listen(self, listener: Callable[[Piece | Answer], None]) -> None:
        listener(self._answer)


class Engine:
    """Takes the place of a batching engine: what it answers is the hash of the weights that it was given."""

    max_tokens = 512
    num_requests = 0

    def __init__(self, schedule: Schedule) -> None:
        self._schedule = schedule
        self._generations: list[Generation] = []

    def generations(self) -> list[Generation]:
        self._generations = [generation for generation in self._generations if generation.num_holds]
        return self._generations

    def load(
        self,
        key: str,
        state: Mapping[str, torch.Tensor] | None,
        *,
        base: BaseModel | None = None,
        adapter: AdapterSettings | None = None,
    ) -> Generation:
        del base, adapter
        self._schedule.point("engine.load")
        generation = Generation(key, "base" if state is None else combined_sha256(tensor_hashes(state)))
        self._generations.append(generation)
        return generation

    def submit(self, generation: Generation, prompt_ids: Sequence[int], params: SamplingParams) -> Running:
        del params
        self._schedule.point("engine.submit")
        assert generation.num_holds, f"{generation.key} is gone"
        return Running(generation, len(prompt_ids))

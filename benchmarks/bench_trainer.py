"""What the trainer costs beside a plain loop that learns the same tokens.

    python benchmarks/bench_trainer.py [--batches 24] [--rounds 3] [--json FILE]

The same micro-batches of 8 browser facts, one AdamW step each, on the default model with the default adapter, in turn
and each in a process of its own:

* ``plain``: peft, torch's AdamW, padded batches, a loop; nothing is kept and nobody is told.
* ``transformers``: the same through ``transformers.Trainer``.
* ``bare``: lifelong's own forward pass and optimizer in a loop.
* ``trainer``: the trainer process: samples from a real Kafka, decoded, scored before they are learnt, every micro-batch
  a version with its files and manifest on disk, its pointer in Valkey, announced on Kafka. Nothing is replayed; the
  gate accepts everything, and looks at as much as the default one.
* ``default``: the trainer process as it is without any configuration, but for facts being examples, of which each gets
  one step with three others.

Measured are the seconds on the clock and of the processor from the end of the first micro-batch to the end of the last.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import torch

from lifelong.config.shared import (
    ArtifactSettings,
    KafkaSettings,
    LineSettings,
    MetricsSettings,
    RedisSettings,
)
from lifelong.contracts import topics
from lifelong.contracts.events import Message
from lifelong.contracts.samples import Sample, SampleRecord
from lifelong.demo.facts import choose
from lifelong.learning.gate import GateSettings
from lifelong.learning.losses import sample_losses
from lifelong.learning.optimizers import AdamW
from lifelong.learning.recipe_settings import PLAIN
from lifelong.learning.settings import LearningSettings
from lifelong.local.child import Child, stop_all
from lifelong.local.kafka import KafkaBroker
from lifelong.local.ports import free_port
from lifelong.local.valkey import ValkeyServer
from lifelong.model.adapter import adapter_config
from lifelong.model.base import load_base
from lifelong.model.learner import AdapterLearner
from lifelong.model.settings import AdapterSettings, ModelSettings
from lifelong.model.tokenise import collate, encode_chat, pad_id
from lifelong.registry.directory import DirectoryStore
from lifelong.stream.admin import apply_topics
from lifelong.stream.kafka import KafkaSink
from lifelong.trainer.app import build
from lifelong.trainer.config import Curriculum, Settings, TrainerSettings
from lifelong.trainer.precision import with_dtype

BATCH_SIZE = 8
ARMS = ("plain", "transformers", "bare", "trainer", "default")
LEARNING = LearningSettings(step_samples=0, replay_samples=0, anchor_samples=0, kl_samples=0, skip_known=False)
OPEN = GateSettings(
    new_tolerance_nats=1e9, held_out_tolerance_nats=1e9, general_tolerance_nats=1e9, general_drift_nats=1e9
)


class Cost(msgspec.Struct):
    """From the end of the first micro-batch to the end of the last."""

    wall_seconds: float
    cpu_seconds: float


class Stopwatch:
    def __init__(self, num_batches: int) -> None:
        self._left = num_batches
        self._begun: tuple[float, float] | None = None
        self.cost: Cost | None = None

    def lap(self) -> None:
        """A micro-batch is done."""
        now, cpu = time.perf_counter(), time.process_time()
        self._left -= 1
        if self._begun is None:
            self._begun = now, cpu
        elif not self._left:
            self.cost = Cost(now - self._begun[0], cpu - self._begun[1])


def samples(num_batches: int) -> list[Sample]:
    facts = choose(num_batches * BATCH_SIZE)
    assert len(facts) == num_batches * BATCH_SIZE, f"there are only {len(facts)} facts"
    return [
        Sample(
            id=f"0-{number}-0",
            event_id=str(number),
            event_time=time.time(),
            task="browser",
            messages=(Message("user", fact.question), Message("assistant", fact.answer)),
        )
        for number, fact in enumerate(facts)
    ]


def batches(num_batches: int) -> list[list[Sample]]:
    every = samples(num_batches)
    return [every[at : at + BATCH_SIZE] for at in range(0, len(every), BATCH_SIZE)]


def plain(num_batches: int, model: ModelSettings, kafka: str, redis: str) -> Cost:
    import peft

    base = load_base(model)
    learner = peft.get_peft_model(base.model, adapter_config(base, AdapterSettings()))
    learning = [p for p in learner.parameters() if p.requires_grad]
    for parameter in learning:
        parameter.data = parameter.data.float()
    optimizer = torch.optim.AdamW(learning, lr=LEARNING.learning_rate, weight_decay=0.0)
    encoded = [[encode_chat(base.tokenizer, s.messages, 512) for s in batch] for batch in batches(num_batches)]
    watch = Stopwatch(num_batches)
    for batch in encoded:
        inputs = collate(batch, pad_id(base.tokenizer))
        torch.autograd.backward(learner(**inputs).loss)
        torch.nn.utils.clip_grad_norm_(learning, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        watch.lap()
    assert watch.cost is not None
    return watch.cost


def through_transformers(num_batches: int, model: ModelSettings, kafka: str, redis: str) -> Cost:
    import peft
    import transformers

    base = load_base(model)
    learner = peft.get_peft_model(base.model, adapter_config(base, AdapterSettings()))
    for parameter in learner.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    encoded = [encode_chat(base.tokenizer, s.messages, 512) for s in samples(num_batches)]
    watch = Stopwatch(num_batches)

    class Laps(transformers.TrainerCallback):
        def on_step_end(self, *args: object, **kwargs: object) -> None:
            watch.lap()

    with tempfile.TemporaryDirectory() as folder:
        arguments = transformers.TrainingArguments(
            folder,
            per_device_train_batch_size=BATCH_SIZE,
            num_train_epochs=1,
            learning_rate=LEARNING.learning_rate,
            lr_scheduler_type="constant",
            max_grad_norm=1.0,
            report_to=[],
            save_strategy="no",
            logging_strategy="no",
            use_cpu=True,
            disable_tqdm=True,
            remove_unused_columns=False,
            dataloader_pin_memory=False,
        )
        transformers.Trainer(
            model=learner,
            args=arguments,
            train_dataset=encoded,
            data_collator=lambda batch: collate(batch, pad_id(base.tokenizer)),
            callbacks=[Laps()],
        ).train()
    assert watch.cost is not None
    return watch.cost


def bare(num_batches: int, model: ModelSettings, kafka: str, redis: str) -> Cost:
    learner = AdapterLearner(load_base(model), AdapterSettings(), seed=0, max_tokens=512)
    optimizer = AdamW(learner.parameters, LEARNING)
    watch = Stopwatch(num_batches)
    for batch in batches(num_batches):
        torch.autograd.backward(sample_losses(learner.logits(batch), len(batch)).mean())
        optimizer.step(sum(map(learner.num_tokens, batch)))
        watch.lap()
    assert watch.cost is not None
    return watch.cost


def the_trainer(curriculum: Curriculum) -> Callable[[int, ModelSettings, str, str], Cost]:
    def run(num_batches: int, model: ModelSettings, kafka: str, redis: str) -> Cost:
        line = f"bench-{random.SystemRandom().randrange(10**9)}"
        kafka_settings = KafkaSettings(bootstrap_servers=kafka, topic_prefix=f"{line}.", partitions=1)
        apply_topics(kafka_settings)
        publish(kafka_settings, samples(num_batches))
        with tempfile.TemporaryDirectory() as folder:
            settings = Settings(
                line=LineSettings(name=line),
                kafka=kafka_settings,
                redis=RedisSettings(url=redis),
                artifacts=ArtifactSettings(url=folder),
                metrics=MetricsSettings(port=free_port()),
                model=model,
                learning=curriculum.learning,
                recipe=curriculum.recipe,
                gate=curriculum.gate,
                trainer=TrainerSettings(batch_size=BATCH_SIZE, linger_seconds=60, idle_seconds=60),
            )
            app, stop = build(settings), threading.Event()
            thread = threading.Thread(target=app.run, args=(stop,))
            store, watch, seen = DirectoryStore(Path(folder)), Stopwatch(num_batches), 0
            thread.start()
            while watch.cost is None and thread.is_alive():
                numbers = store.numbers(line)
                for _ in numbers[seen:]:
                    watch.lap()
                seen = len(numbers)
                time.sleep(0.02)  # seldom enough not to be what is measured
            stop.set()
            thread.join()
            app.close()
        assert watch.cost is not None, "the trainer has ended by itself"
        return watch.cost

    return run


def publish(kafka: KafkaSettings, every: Sequence[Sample]) -> None:
    sink = KafkaSink(kafka)
    for number, sample in enumerate(every):
        record = SampleRecord(topics.EVENTS.name, 0, number, number + 1, "sample", (sample,))
        sink.send(topics.SAMPLES.name, msgspec.json.encode(record), partition=0)
    sink.flush()
    sink.close()


RUN: dict[str, Callable[[int, ModelSettings, str, str], Cost]] = {
    "plain": plain,
    "transformers": through_transformers,
    "bare": bare,
    "trainer": the_trainer(Curriculum(LEARNING, PLAIN, OPEN)),
    "default": the_trainer(Curriculum()),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dtype", choices=["auto", "bfloat16", "float32"], default="auto")
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=ARMS)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--one", nargs=3, metavar=("ARM", "KAFKA", "REDIS"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        arm, kafka, redis = options.one
        print(msgspec.json.encode(RUN[arm](options.batches, ModelSettings(dtype=options.dtype), kafka, redis)).decode())
        return
    # Decided once, as the trainer does for a line: without instructions for it bfloat16 is many times slower.
    options.dtype = with_dtype(ModelSettings(dtype=options.dtype), AdapterSettings()).dtype
    costs: dict[str, list[Cost]] = {arm: [] for arm in options.arms}
    with tempfile.TemporaryDirectory() as folder:
        home, children = Path(folder), list[Child]()
        broker = KafkaBroker(home / "kafka", home / "kafka.log", free_port(), free_port())
        valkey = ValkeyServer(home / "valkey", home / "valkey.log", free_port())
        try:
            children += [broker.start(), valkey.start()]
            for number in range(options.rounds):
                for arm in options.arms:
                    costs[arm].append(one(arm, options, broker.address, valkey.url))
                    print(f"round {number + 1} {arm}: {costs[arm][-1].wall_seconds:.2f} s", file=sys.stderr)
        finally:
            stop_all(children)
    print(f"load {os.getloadavg()[0]:.1f}, {options.batches - 1} micro-batches of {BATCH_SIZE}, {options.dtype}")
    reference = statistics.median(cost.wall_seconds for cost in costs[options.arms[0]])
    for arm, found in costs.items():
        wall = statistics.median(cost.wall_seconds for cost in found)
        cpu = statistics.median(cost.cpu_seconds for cost in found)
        print(f"{arm:13} {wall:7.2f} s  {wall / reference:5.2f} of {options.arms[0]}  {cpu:7.2f} s of processor")
    if options.json:
        options.json.write_text(json.dumps(msgspec.to_builtins(costs), indent=1))


def one(arm: str, options: argparse.Namespace, kafka: str, redis: str) -> Cost:
    command = [sys.executable, __file__, "--batches", str(options.batches), "--dtype", options.dtype]
    done = subprocess.run([*command, "--one", arm, kafka, redis], stdout=subprocess.PIPE, check=True)
    return msgspec.json.decode(done.stdout.splitlines()[-1], type=Cost)


if __name__ == "__main__":
    main()

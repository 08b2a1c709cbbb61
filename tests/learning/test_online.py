"""The micro-batch step against what it should be by hand."""

from __future__ import annotations

import msgspec
import pytest
import torch

from lifelong.learning.losses import evaluate, sample_losses
from lifelong.learning.methods import OPTIMIZERS
from lifelong.learning.online import learn
from lifelong.learning.settings import LearningSettings


def nothing(step):
    return []


def optimizer_of(learner, settings):
    return OPTIMIZERS[settings.optimizer](learner.parameters, settings)


def copy_of(learner):
    return {name: parameter.detach().clone() for name, parameter in learner.parameters.items()}


def test_one_step_without_replay_is_one_step_of_sgd(new_learner, new_sample):
    settings = LearningSettings(optimizer="sgd", learning_rate=0.1, max_steps=1, max_grad_norm=0)
    samples = [new_sample(number, until_known=True, answer="so " * (number + 1)) for number in range(3)]
    learner, by_hand = new_learner(), new_learner()
    lesson = learn(learner, optimizer_of(learner, settings), samples, nothing, settings)
    assert lesson.num_steps == 1

    sample_losses(by_hand.logits(samples), 3).mean().backward()
    for name, parameter in by_hand.parameters.items():
        torch.testing.assert_close(learner.parameters[name], parameter - 0.1 * parameter.grad, rtol=0, atol=1e-7)


def test_many_small_passes_make_the_step_of_a_large_one(new_learner, new_sample):
    samples = [new_sample(number, weight=1 + number % 2) for number in range(4)]
    mixed_in = [new_sample(number, task="anchor") for number in range(10, 13)]
    ends = []
    for tokens_per_pass in (8, 10_000):
        learner = new_learner()
        settings = LearningSettings(
            optimizer="sgd", learning_rate=0.1, min_steps=2, tokens_per_pass=tokens_per_pass, max_grad_norm=0
        )
        learn(learner, optimizer_of(learner, settings), samples, lambda step: mixed_in, settings)
        ends.append(copy_of(learner))
    for name, tensor in ends[0].items():
        torch.testing.assert_close(tensor, ends[1][name], rtol=1e-4, atol=1e-6)


def test_a_heavier_sample_pulls_more(new_learner, new_sample):
    """Weights (2, 1) are the same as that sample twice."""
    settings = LearningSettings(optimizer="sgd", learning_rate=0.1, max_grad_norm=0)
    heavy, twice = new_learner(), new_learner()
    learn(heavy, optimizer_of(heavy, settings), [new_sample(1, weight=2.0), new_sample(2)], nothing, settings)
    again = new_sample(1)
    learn(twice, optimizer_of(twice, settings), [new_sample(1), again, new_sample(2)], nothing, settings)
    for name, parameter in heavy.parameters.items():
        torch.testing.assert_close(parameter, twice.parameters[name], rtol=1e-4, atol=1e-6)


def test_a_fact_is_learnt_until_it_is_known(learner, new_sample):
    settings = LearningSettings(learning_rate=1e-2, max_steps=40)
    fact = new_sample(5, until_known=True)
    lesson = learn(learner, optimizer_of(learner, settings), [fact], nothing, settings)
    assert 1 < lesson.num_steps < 40
    assert lesson.after[fact.id] < settings.target_loss_nats < lesson.before[fact.id]
    assert lesson.after[fact.id] == pytest.approx(evaluate(learner, [fact], 1000)[fact.id], rel=1e-5)
    assert lesson.num_tokens == lesson.num_steps * learner.num_tokens(fact)


def test_examples_of_a_task_get_the_least_number_of_steps(learner, new_sample):
    settings = LearningSettings(learning_rate=1e-2, min_steps=2)
    examples = [new_sample(number, task="sort") for number in range(3)]
    lesson = learn(learner, optimizer_of(learner, settings), examples, nothing, settings)
    assert lesson.num_steps == 2
    assert lesson.after == pytest.approx(evaluate(learner, examples, 1000), rel=1e-5)


def test_in_a_mixed_batch_only_facts_go_on(learner, new_sample):
    settings = LearningSettings(learning_rate=1e-2, max_steps=40)
    fact, example = new_sample(5, until_known=True), new_sample(6, task="sort")
    lesson = learn(learner, optimizer_of(learner, settings), [fact, example], nothing, settings)
    both, one = learner.num_tokens(fact) + learner.num_tokens(example), learner.num_tokens(fact)
    assert lesson.num_tokens == both + (lesson.num_steps - 1) * one
    assert set(lesson.before) == set(lesson.after) == {fact.id, example.id}


def test_what_is_never_known_ends_at_max_steps(learner, new_sample):
    settings = LearningSettings(learning_rate=1e-6, max_steps=3)
    fact = new_sample(5, until_known=True)
    steps = []
    lesson = learn(learner, optimizer_of(learner, settings), [fact], nothing, settings, steps.append)
    assert (lesson.num_steps, steps) == (3, [0, 1, 2])
    assert lesson.after[fact.id] == pytest.approx(evaluate(learner, [fact], 1000)[fact.id], rel=1e-5)


def test_the_first_losses_are_from_before_the_first_step(learner, new_sample):
    """Prequential: what a sample costs before anything was learnt from it."""
    settings = LearningSettings(learning_rate=1e-2)
    samples = [new_sample(1, until_known=True), new_sample(2, task="sort")]
    before = evaluate(learner, samples, 1000)
    lesson = learn(learner, optimizer_of(learner, settings), samples, lambda step: [new_sample(9)], settings)
    assert lesson.before == pytest.approx(before, rel=1e-5)


def test_no_gradient_is_left_behind(learner, new_sample):
    settings = LearningSettings(learning_rate=1e-2, tokens_per_pass=8, max_steps=40)
    samples = [new_sample(number, until_known=True) for number in range(2)]
    learn(learner, optimizer_of(learner, settings), samples, lambda step: [new_sample(9)], settings)
    assert all(parameter.grad is None for parameter in learner.parameters.values())


def test_each_step_may_have_other_old_samples(learner, new_sample):
    settings = LearningSettings(learning_rate=1e-6, max_steps=3)
    fact = new_sample(5, until_known=True)
    old = [new_sample(number, answer="a" * (number + 1)) for number in range(3)]
    lesson = learn(learner, optimizer_of(learner, settings), [fact], lambda step: [old[step]], settings)
    assert lesson.num_tokens == 3 * learner.num_tokens(fact) + sum(map(learner.num_tokens, old))


def test_steps_on_a_part_each_are_micro_batches_one_after_the_other(new_learner, new_sample):
    settings = LearningSettings(learning_rate=1e-2, step_samples=2)
    samples = [new_sample(number, task="sort") for number in range(5)]
    together, alone = new_learner(), new_learner()
    steps = []
    lesson = learn(together, optimizer_of(together, settings), samples, nothing, settings, steps.append)
    assert steps == [0, 1, 2]

    optimizer, before = optimizer_of(alone, settings), {}
    for part in (samples[:1], samples[1:3], samples[3:]):
        before |= evaluate(alone, part, 1000)
        learn(alone, optimizer, part, nothing, settings)
    for name, parameter in alone.parameters.items():
        assert torch.equal(together.parameters[name], parameter)
    assert lesson.before == pytest.approx(before, rel=1e-5)
    assert lesson.after == pytest.approx(evaluate(together, samples, 1000), rel=1e-5)
    assert lesson.num_tokens == sum(map(together.num_tokens, samples))
    assert lesson.right.keys() == lesson.before.keys()


def test_after_a_step_on_each_part_all_that_should_be_known_goes_on_together(learner, new_sample):
    settings = LearningSettings(learning_rate=1e-2, step_samples=1, max_steps=60)
    samples = [new_sample(1, until_known=True), new_sample(2, task="sort"), new_sample(3, until_known=True)]
    lesson = learn(learner, optimizer_of(learner, settings), samples, nothing, settings)
    facts = learner.num_tokens(samples[0]) + learner.num_tokens(samples[2])
    assert lesson.num_tokens == sum(map(learner.num_tokens, samples)) + (lesson.num_steps - 3) * facts
    assert all(lesson.after[sample.id] < settings.target_loss_nats for sample in samples if sample.until_known)


def test_a_step_on_each_part_costs_what_should_be_known_no_steps(learner, new_sample):
    settings = LearningSettings(learning_rate=1e-6, step_samples=1, max_steps=3)
    facts = [new_sample(number, until_known=True) for number in range(5)]
    lesson = learn(learner, optimizer_of(learner, settings), facts, nothing, settings)
    assert lesson.num_steps == 5 + 2


def known(learner, samples):
    """Learnt until they are below the target loss."""
    settings = LearningSettings(learning_rate=1e-2, max_steps=200)
    facts = [msgspec.structs.replace(sample, until_known=True) for sample in samples]
    learn(learner, optimizer_of(learner, settings), facts, nothing, settings)
    assert max(evaluate(learner, samples, 1000).values()) < settings.target_loss_nats


@pytest.mark.parametrize("until_known", [False, True])
@pytest.mark.parametrize("tokens_per_pass", [8, 1000])
def test_no_step_is_taken_on_what_is_known(learner, new_sample, until_known, tokens_per_pass):
    settings = LearningSettings(step_samples=2, min_steps=2, tokens_per_pass=tokens_per_pass)
    samples = [new_sample(number, until_known=until_known) for number in range(4)]
    known(learner, samples)
    before, losses = copy_of(learner), evaluate(learner, samples, 1000)
    lesson = learn(learner, optimizer_of(learner, settings), samples, lambda step: [new_sample(9)], settings)
    assert (lesson.num_steps, lesson.num_tokens, lesson.mixed_in) == (0, 0, {})
    assert lesson.before == pytest.approx(losses, rel=1e-4)
    assert lesson.after == pytest.approx(losses, rel=1e-4)
    assert lesson.right == {sample.id: True for sample in samples}
    assert all(torch.equal(before[name], parameter) for name, parameter in learner.parameters.items())
    assert all(parameter.grad is None for parameter in learner.parameters.values())


def test_a_step_with_a_single_unknown_sample_is_taken(learner, new_sample):
    settings = LearningSettings(step_samples=2)
    samples = [new_sample(number, task="sort") for number in range(6)]
    known(learner, samples[:3])
    lesson = learn(learner, optimizer_of(learner, settings), samples[:4], nothing, settings)
    assert lesson.num_steps == 1
    assert lesson.num_tokens == sum(map(learner.num_tokens, samples[2:4]))


def test_what_was_rated_or_compared_is_learnt_however_likely_it_is(learner, new_sample):
    settings = LearningSettings()
    samples = [new_sample(number) for number in range(2)]
    known(learner, samples)
    for judged in ({"rating": -1.0}, {"rejected": "no"}):
        new = [msgspec.structs.replace(samples[0], **judged), samples[1]]
        assert learn(learner, optimizer_of(learner, settings), new, nothing, settings).num_steps == 1


def test_what_is_known_is_learnt_all_the_same_if_wanted(learner, new_sample):
    settings = LearningSettings(skip_known=False)
    samples = [new_sample(number) for number in range(2)]
    known(learner, samples)
    before = copy_of(learner)
    assert learn(learner, optimizer_of(learner, settings), samples, nothing, settings).num_steps == 1
    assert not all(torch.equal(before[name], parameter) for name, parameter in learner.parameters.items())

"""The base's own answers, and how far the model is from them."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from lifelong.learning import anchor
from lifelong.learning.distill import kl_divergence
from lifelong.learning.meter import base_kl


def make(prompts=anchor.PROMPTS):
    return anchor.make_anchors(
        lambda asked: [f"Answer to {prompt}" for prompt in asked],
        lambda beginnings: [f"{beginning} and so on" for beginning in beginnings],
        prompts,
    )


def test_learnt_and_judged_share_nothing_and_are_all():
    anchors = make()
    learnt, judged = anchor.learnt(anchors), anchor.judged(anchors)
    assert len(learnt) + len(judged) == len(anchors) == len(anchor.PROMPTS) + len(anchor.BEGINNINGS)
    for some in (learnt, judged):
        assert sum(sample.text is None for sample in some) >= 5
        assert sum(sample.text is not None for sample in some) >= 5
    assert not {a.id for a in learnt} & {a.id for a in judged}


def test_a_dozen_of_each_kind_are_judged_however_many_prompts_there_are():
    for prompts in (anchor.PROMPTS, anchor.PROMPTS[:36]):
        judged = anchor.judged(make(prompts))
        num_answers = sum(sample.text is None for sample in judged)
        assert (num_answers, len(judged) - num_answers) == (12, 12)


def test_answers_and_texts_are_drawn_in_turn():
    anchors, firsts = make(), []
    for version in range(20):
        kinds = [sample.text is None for sample in anchor.draw(anchors, 6, seed=1, version=version)]
        assert all(one != other for one, other in pairwise(kinds))
        firsts.append(kinds[0])
    assert len(set(firsts)) == 2


def test_a_prompt_without_an_answer_makes_no_anchor():
    anchors = anchor.make_anchors(lambda _: ["yes", " ", "no"], lambda _: ["", "So it is."], ["a", "b", "c"])
    assert [a.messages[1].content for a in anchors if a.messages] == ["yes", "no"]
    assert [a.text for a in anchors if not a.messages] == ["So it is."]


def test_draws_are_a_function_of_seed_and_version():
    anchors = make()
    drawn = anchor.draw(anchors, 3, seed=1, version=5)
    assert drawn == anchor.draw(anchors, 3, seed=1, version=5)
    assert len({a.id for a in drawn}) == 3
    assert any(anchor.draw(anchors, 3, seed=1, version=number) != drawn for number in range(5))
    assert not {a.id for a in drawn} & {a.id for a in anchor.judged(anchors)}


def test_the_base_answers_whatever_was_learnt_and_whoever_else_is_asked(new_learner):
    learner, other = new_learner(), new_learner()
    with torch.no_grad():
        for parameter in other.parameters.values():
            parameter.mul_(-3.0)
    together = learner.base_answers(anchor.PROMPTS)
    assert any(together)
    assert other.base_answers(anchor.PROMPTS) == together
    assert [learner.base_answers([prompt])[0] for prompt in anchor.PROMPTS[:4]] == together[:4]


def test_the_base_writes_the_same_whatever_was_learnt_and_draws_from_nothing_else(new_learner):
    learner, other = new_learner(), new_learner()
    with torch.no_grad():
        for parameter in other.parameters.values():
            parameter.mul_(-3.0)
    before = torch.get_rng_state()
    texts = learner.base_texts(anchor.BEGINNINGS)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(text.startswith(start) for text, start in zip(texts, anchor.BEGINNINGS, strict=True))
    assert other.base_texts(anchor.BEGINNINGS) == texts
    assert learner.base_texts(anchor.BEGINNINGS, seed=1) != texts


def test_kl_from_the_base_is_zero_only_without_learning(learner, new_sample):
    samples = [new_sample(1), new_sample(2)]
    by_hand = kl_divergence(
        torch.cat([learner.logits([sample], base=True).logits_NV for sample in samples]),
        torch.cat([learner.logits([sample]).logits_NV for sample in samples]),
    )
    found = base_kl(learner, samples)
    assert found == pytest.approx(by_hand.item(), rel=1e-3)
    assert found > 0.001
    with torch.no_grad():
        for name, parameter in learner.parameters.items():
            if ".lora_B." in name:
                parameter.zero_()
    assert base_kl(learner, samples) == pytest.approx(0.0, abs=1e-6)

"""How the methods against forgetting go together.

A *method* is a small object with a hook at each place of a micro-batch where a paper does something, and with a state
that is a flat dictionary of tensors. It overrides the hooks its paper has; the others do nothing. A *recipe* is some
methods under their names, and is asked by ``lifelong.learning.online.learn`` in this order::

    begin(learner, new, version)             before the first step: what the model says *now* can still be asked
    for each step:
        loss(learner, samples, predicted, loss_S)   for each pass, of new and of old samples; one hook's result is the
                                                    next one's input; starts as the cross-entropy of each sample
        penalty(learner)                            once: a scalar on the weights, added to the mean of the losses
        before_update(learner)                      the gradients are complete, in ``parameter.grad``
        (the optimizer moves the parameters)
        after_update(learner, num_tokens)           the parameters have moved
    end(learner, new, version)               after the last step, before the gate
    keep(sample_ids)                         these old samples still exist, no others: what belongs to others must go

Whatever hook of whatever method: equal states and equal arguments give equal results to the bit, so that a version is
a function of the log. What is random is a function of (seed, version, step), see ``replay.randbelow``. If the gate
rejects, the caller loads the state it took before. A method of strength 0 is as good as absent, to the bit.

How new and old gradients become one is not a hook, for there can be only one way: ``Recipe.combine``; without it they
are parts of one mean. Which old samples there are is the business of ``lifelong.learning.replay``.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

from torch import Tensor

from lifelong.contracts.samples import Sample
from lifelong.learning.base import Learner, Logits

State = dict[str, Tensor]
Gradients = dict[str, Tensor]
"""By the name of the parameter."""
Combine = Callable[[Gradients, Gradients], Gradients]
"""(gradients on new samples, on old samples) → those to step along. Neither is empty."""


class Method:
    """One way not to forget. All hooks do nothing here."""

    def begin(self, learner: Learner, new: Sequence[Sample], version: int) -> None:
        """The micro-batch that leads to ``version`` begins. No gradient may be left behind."""

    def loss(self, learner: Learner, samples: Sequence[Sample], predicted: Logits, loss_S: Tensor) -> Tensor:
        """loss_S: of each of ``samples``, which ``predicted`` belongs to, in nats. May run passes of its own."""
        return loss_S

    def penalty(self, learner: Learner) -> Tensor | None:
        """A scalar with a graph, or ``None`` for none."""
        return None

    def before_update(self, learner: Learner) -> None:
        """May change ``parameter.grad`` or take it away; a parameter without one does not move."""

    def after_update(self, learner: Learner, num_tokens: int) -> None:
        """``num_tokens``: that the step was computed from."""

    def end(self, learner: Learner, new: Sequence[Sample], version: int) -> None:
        """No gradient may be left behind."""

    def keep(self, sample_ids: Collection[str]) -> None: ...

    def state(self) -> State:
        """A copy: what the next micro-batch depends on. Empty for a method that remembers nothing between them."""
        return {}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Raises ValueError: not a state of this method and these parameters; nothing was changed then."""
        if state:
            raise ValueError(f"{type(self).__name__} keeps no state, got {sorted(state)[:3]} …")


class Recipe(Method):
    """Methods by name, each asked in this order, and the way in which new and old gradients are combined."""

    def __init__(self, methods: Mapping[str, Method] | None = None, combine: Combine | None = None) -> None:
        self.methods = dict(methods or {})
        self.combine = combine

    def begin(self, learner: Learner, new: Sequence[Sample], version: int) -> None:
        for method in self.methods.values():
            method.begin(learner, new, version)

    def loss(self, learner: Learner, samples: Sequence[Sample], predicted: Logits, loss_S: Tensor) -> Tensor:
        for method in self.methods.values():
            loss_S = method.loss(learner, samples, predicted, loss_S)
        return loss_S

    def penalty(self, learner: Learner) -> Tensor | None:
        found = [p for method in self.methods.values() if (p := method.penalty(learner)) is not None]
        total: Tensor | None = None
        for penalty in found:
            total = penalty if total is None else total + penalty
        return total

    def before_update(self, learner: Learner) -> None:
        for method in self.methods.values():
            method.before_update(learner)

    def after_update(self, learner: Learner, num_tokens: int) -> None:
        for method in self.methods.values():
            method.after_update(learner, num_tokens)

    def end(self, learner: Learner, new: Sequence[Sample], version: int) -> None:
        for method in self.methods.values():
            method.end(learner, new, version)

    def keep(self, sample_ids: Collection[str]) -> None:
        for method in self.methods.values():
            method.keep(sample_ids)

    def state(self) -> State:
        """Of all methods, each tensor's name after that of its method."""
        return {f"{name}/{key}": t for name, method in self.methods.items() for key, t in method.state().items()}

    def load(self, state: Mapping[str, Tensor]) -> None:
        if strange := sorted({key.partition("/")[0] for key in state} - self.methods.keys()):
            raise ValueError(f"the state is of methods that are not in this recipe: {', '.join(strange)}")
        for name, method in self.methods.items():
            method.load({key.partition("/")[2]: t for key, t in state.items() if key.partition("/")[0] == name})


def take_gradients(learner: Learner) -> Gradients:
    """The gradients of the parameters that have one, which lose it."""
    taken = {name: p.grad for name, p in learner.parameters.items() if p.grad is not None}
    for parameter in learner.parameters.values():
        parameter.grad = None
    return taken


def check_names(state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """Raises ValueError: other names or other shapes than expected."""
    if odd := sorted(state.keys() ^ expected.keys()):
        raise ValueError(f"not the state of this method and these parameters: {odd[:3]} … on one side only")
    for name, tensor in expected.items():
        if state[name].shape != tensor.shape:
            raise ValueError(f"{name}: {tuple(state[name].shape)} in the state, {tuple(tensor.shape)} here")

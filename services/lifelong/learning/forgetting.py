"""What an accuracy matrix says: how much was learnt, kept, and carried over.

R[i][j] is the score on task j after the first i + 1 tasks were learnt, higher being better; T tasks.

* average accuracy, backward and forward transfer: Lopez-Paz and Ranzato, "Gradient episodic memory",
  https://arxiv.org/abs/1706.08840, eqs. 2 to 4
* forgetting: Chaudhry et al., "Riemannian walk", https://arxiv.org/abs/1801.10112, eq. 3
* learning accuracy, here plasticity: Riemer et al., https://arxiv.org/abs/1810.11910
* anytime average: the mean over time of the average accuracy on what was seen up to then (Caccia et al.,
  https://arxiv.org/abs/2104.05025)
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

Matrix = Sequence[Sequence[float]]


class Summary(msgspec.Struct, frozen=True):
    average_accuracy: float
    """Over all tasks, in the end."""
    forgetting: float | None
    """From the best that each earlier task ever had to the end; 0.1 is ten points lost. ``None`` with one task."""
    backward_transfer: float | None
    """From right after each earlier task was learnt to the end; negative where it was forgotten."""
    forward_transfer: float | None
    """Of the tasks before on each later one, above ``untrained``."""
    plasticity: float
    """On each task right after it was learnt."""
    anytime_average: float


def summarise(scores: Matrix, untrained: Sequence[float] | None = None) -> Summary:
    """
    Args:
        scores: R, T × T.
        untrained: the score on each task before anything was learnt, for forward transfer.

    Raises:
        ValueError: not square, or of no task.
    """
    num_tasks = len(scores)
    if not num_tasks or any(len(row) != num_tasks for row in scores):
        raise ValueError(f"an accuracy matrix has as many columns as rows, not {num_tasks} × {[*map(len, scores)]}")
    if untrained is not None and len(untrained) != num_tasks:
        raise ValueError(f"{len(untrained)} untrained scores for {num_tasks} tasks")
    last, earlier, later = scores[-1], range(num_tasks - 1), range(1, num_tasks)
    return Summary(
        average_accuracy=_mean(last),
        forgetting=_mean([max(scores[i][j] for i in earlier) - last[j] for j in earlier]) if earlier else None,
        backward_transfer=_mean([last[j] - scores[j][j] for j in earlier]) if earlier else None,
        forward_transfer=_mean([scores[j - 1][j] - untrained[j] for j in later]) if untrained and later else None,
        plasticity=_mean([scores[j][j] for j in range(num_tasks)]),
        anytime_average=_mean([_mean(row[: i + 1]) for i, row in enumerate(scores)]),
    )


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)

"""One model is made, loaded or saved through transformers at a time, and without progress bars in the logs."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from transformers.utils import logging

# from_pretrained replaces PreTrainedModel.tie_weights and torch's default dtype while it runs, for the whole process.
# Of two at once one puts back what the other had put there, and no model that is loaded later has its tied weights.
_one_at_a_time = threading.Lock()


@contextmanager
def loading() -> Iterator[None]:
    """Not to be entered twice by the same thread."""
    with _one_at_a_time:
        shown = logging.is_progress_bar_enabled()
        logging.disable_progress_bar()
        try:
            yield
        finally:
            if shown:
                logging.enable_progress_bar()

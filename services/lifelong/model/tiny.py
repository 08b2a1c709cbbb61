"""A tiny model made on the spot, with the architecture and the chat format of the real one: no download, any machine.

It knows nothing, but it learns, generates and is saved and loaded like any other: tests and dry runs use it.
"""

from __future__ import annotations

from pathlib import Path

import torch
import transformers
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from lifelong.model.base import BaseModel, load_base
from lifelong.model.loading import loading
from lifelong.model.settings import ModelSettings

CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] "
    "+ '<|im_end|>' + '\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
_PAD, _START, _END = "<|pad|>", "<|im_start|>", "<|im_end|>"


def tiny_random_model(seed: int, folder: Path, *, num_layers: int = 4, hidden_size: int = 64) -> BaseModel:
    """Write a random Llama of about 0.2M parameters to ``folder`` and load it from there, in float32 on the CPU.

    ``ModelSettings(name=str(folder))`` loads the same one. The random state of the caller is left alone.
    """
    tokenizer = byte_tokenizer()
    config = transformers.LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden_size,
        intermediate_size=2 * hidden_size,
        num_hidden_layers=num_layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=2048,
        # Large enough, and untied, so that greedy answers differ from prompt to prompt and do not echo the last token.
        initializer_range=0.2,
        tie_word_embeddings=False,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
    )
    with loading():
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = transformers.LlamaForCausalLM(config)
        model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return load_base(ModelSettings(name=str(folder), dtype="float32", device="cpu"))


def byte_tokenizer() -> transformers.PreTrainedTokenizerFast:
    """One token per byte, and three special ones: every text in every language round-trips."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate([_PAD, _START, _END, *alphabet])}
    inner = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    inner.add_special_tokens([AddedToken(token, special=True) for token in (_PAD, _START, _END)])
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=inner,
        pad_token=_PAD,
        eos_token=_END,
        additional_special_tokens=[_START],
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
    )

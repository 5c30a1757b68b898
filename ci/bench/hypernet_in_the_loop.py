"""Whether the language-modelling phase of `zett_hypernet` helps: a toy model, and a tokenizer that it has never seen.

    taskset -c 0 python ci/bench/hypernet_in_the_loop.py [BASE_STEPS LOOP_STEPS]

A small Llama learns the Python documentation over 2048 BPE tokens. Then it gets the 4096 tokens of a unigram model by
each way of making rows, without training after it. Prints bits per byte of test text, and their paired difference to
the parts' mean with the 95 % interval over documents.
"""

from __future__ import annotations

import math
import random
import sys
from collections.abc import Sequence
from dataclasses import replace

import torch

from harness.kinds.tokenizer.base import TokenizerMethod
from harness.kinds.tokenizer.in_the_loop import language_loss
from harness.kinds.tokenizer.initialise import INITIALISERS, Initialiser
from harness.kinds.tokenizer.transplant import joined_rows, transplant
from harness.stats.rates import difference_of_rates
from harness.subjects.load import wrap_model
from harness.subjects.requests import ScoreRequest
from harness.subjects.subject import Subject
from harness.subjects.tiny import ByteIds, random_llama
from harness.toolkit.corpora import documents
from harness.toolkit.trainer import adamw, optimizer_step
from methods.tokenizer.bpe import Bpe
from methods.tokenizer.unigram import Unigram
from methods.tokenizer.zett_hypernet import ZettHypernet

WINDOW, BATCH = 128, 16
SHAPE = {"hidden_size": 128, "intermediate_size": 384, "num_hidden_layers": 4, "initializer_range": 0.02}


def made(method: TokenizerMethod, texts: Sequence[str]):  # type: ignore[no-untyped-def]
    """The method's tokenizer for a model over bytes."""
    return method.make(ByteIds(), method.train(texts, 0))


def base_model(texts: Sequence[str], steps: int) -> Subject:
    """A small Llama over BPE, trained on the texts."""
    tokenizer = made(Bpe(vocab_size=2048), texts)
    model, _, length = random_llama(
        vocab_size=tokenizer.vocab_size, bos_token_id=tokenizer.prefix_id, tie_word_embeddings=True, **SHAPE
    )
    ids = [[tokenizer.prefix_id, *tokenizer.encode(text)][:WINDOW] for text in texts]
    optimizer, rng = adamw(model, 2e-3), random.Random(0)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = 2e-3 * min(1.0, (step + 1) / 50) * (0.5 + 0.5 * math.cos(math.pi * step / steps))
        loss = language_loss(model, own_rows(model), rng.choices(ids, k=BATCH))
        optimizer_step(optimizer, loss)
    print(f"base model: {sum(p.numel() for p in model.parameters()):,} parameters, loss {loss.item():.2f} nats a token")
    return wrap_model(model.eval(), tokenizer, "toy", length)


def own_rows(model) -> torch.Tensor:  # type: ignore[no-untyped-def]
    """The tied rows themselves."""
    rows: torch.Tensor = model.get_input_embeddings().weight
    return rows


def bits(subject: Subject, texts: Sequence[str]) -> list[float]:
    """Bits of each text."""
    tokenizer = subject.text_tokenizer()
    asked = [ScoreRequest(context=(tokenizer.prefix_id,), continuation=tuple(tokenizer.encode(t))) for t in texts]
    return [-score.logprob / math.log(2) for score in subject.score(asked)]


def main() -> None:
    """Train, transplant in each way, print."""
    base_steps, loop_steps = (int(a) for a in sys.argv[1:]) if len(sys.argv) == 3 else (600, 400)
    torch.set_num_threads(1)
    texts = documents("python_docs", "train")
    test = [text for text in documents("python_docs", "test") if len(text) < 400][:150]
    sizes = [len(text.encode()) for text in test]
    base = base_model(texts, base_steps)
    rows = joined_rows(base.model, base.text_tokenizer().vocab_size)
    print(f"own tokenizer: {sum(bits(base, test)) / sum(sizes):.3f} bits per byte, {rows.shape[0]} tokens")
    target = made(Unigram(vocab_size=4096), texts)
    plain = ZettHypernet(learning_rate=2e-3, identity_steps=100, steps=400, loop_vocab=2048)
    ways: dict[str, Initialiser] = {name: INITIALISERS[name] for name in ("fvt", "mean", "random")}
    for name, method in {"identity phase": plain, "in the loop": replace(plain, loop_steps=loop_steps)}.items():
        artifact = method.learn(base, texts, 0)
        ways[name] = method.initialiser(artifact)
        print(name, [(m.metric, m.phase, round(m.value, 3)) for m in method.training_measurements(artifact)])
    found = {}
    for name, way in ways.items():
        model, report = transplant(base.model, base.text_tokenizer(), target, way)
        found[name] = bits(replace(base, model=model, tokenizer=target), test)
        d = difference_of_rates(found[name], found["fvt"], sizes)
        rate = sum(found[name]) / sum(sizes)
        print(f"| {name} | {rate:.3f} | {d.value:+.3f} [{d.low:+.3f}, {d.high:+.3f}] | {report.composed} rows made |")


if __name__ == "__main__":
    main()

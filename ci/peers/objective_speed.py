"""TRL's GRPO beside ours: seconds an update of the same work, in turns, in one process.

In the environment of ``objective_parity.py``:

    taskset -c 0 python ci/peers/objective_speed.py > table.md

Both train copies of ``tiny-chain-sum`` in float32 on one thread: 16 problems with 8 responses an update, the task's own
rewards, two optimizer steps, no reference model, no checkpoint, no log. A block is some updates of one side, and each
side goes on from where it was; a round is TRL, ours, ours, TRL. The clock is the process's CPU time, which on one
thread is what a free core would take and does not see other programs; wall time stands in the last row. TRL keeps its
defaults (its fused AdamW among them) but for bfloat16 and gradient checkpointing, which are more work here;
``--checkpointing`` leaves the second on.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch

from harness.catalog import MethodSpec
from harness.kinds.objective.copies import training_copy
from harness.kinds.objective.loop import Learner, describe
from harness.kinds.objective.samplers import with_old_policy
from harness.stats.intervals import Estimate, mean_interval, ratio_interval
from harness.subjects.chain_sum_text import ALPHABET
from harness.subjects.load import load_subject

SEED, MODEL, METHOD = 0, "tiny-chain-sum", "grpo"
PHASES = ("sample", "old", "train")


@dataclass
class Block:
    """CPU seconds of one side's updates by phase, wall time, tokens generated in them, and the sum of the rewards."""

    updates: int
    wall: float = 0.0
    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    tokens: int = 0
    reward: float = 0.0

    @property
    def total(self) -> float:
        """Seconds of all phases."""
        return sum(self.seconds.values())


@contextmanager
def clocked(block: Block, phase: str) -> Iterator[None]:
    """Add the CPU time inside to a phase of the block."""
    start = time.process_time()
    yield
    block.seconds[phase] += time.process_time() - start


def our_blocks(length: int) -> Iterator[Block]:
    """Blocks of our own training, each when it is asked for."""
    method: Any = MethodSpec.parse(METHOD).build()
    subject = training_copy(load_subject(MODEL, dtype="float32"))
    learner, sampler = Learner.of(method, subject, SEED), method.sampler(subject, SEED)
    step, previous = 0, None
    while True:
        block = Block(length)
        for _ in range(length):
            began = time.perf_counter()
            with clocked(block, "sample"):
                batch, generated = sampler.sample(step, previous)
            with clocked(block, "old"):
                batch = with_old_policy(batch, subject.model, method, learner.critic)
            with clocked(block, "train"):
                learner.update(batch, 0.0)
                block.reward += describe(batch)["reward"]
            block.wall += time.perf_counter() - began
            block.tokens += generated
            step, previous = step + 1, batch
        yield block


def ours_after(number: int) -> int:
    """How many of our blocks follow TRL's block of this number: one after the warm-up's, then 2 0 2 0 ...

    So the blocks after the warm-up go TRL, ours, ours, TRL, and again.
    """
    return 1 if number == 0 else 2 * (number % 2)


def text_tokenizer() -> Any:
    """The model's characters as a transformers tokenizer with the same ids."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {name: i for i, name in enumerate([*ALPHABET, "<begin>", "<end>"])}
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token="<end>"))
    inner.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    inner.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, bos_token="<begin>", eos_token="<end>", pad_token="<end>", padding_side="left"
    )


def trl_trainer(length: int, blocks: int, checkpointing: bool, on_block: Callable[[Block], None], folder: str) -> Any:
    """A trainer that hands every block over when it is done; its clock rests meanwhile."""
    from datasets import Dataset
    from transformers import TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    method: Any = MethodSpec.parse(METHOD).build()
    subject, task, rng = training_copy(load_subject(MODEL, dtype="float32")), method.task(), random.Random(SEED)
    subject.model.set_attn_implementation("sdpa")  # the library's own, not the zoo's
    tokenizer = text_tokenizer()
    asked = method.prompts_per_update
    problems = [task.draw(rng) for _ in range(asked * length * blocks)]
    prompts = [task.prompt(problem) for problem in problems]
    assert tokenizer(prompts)["input_ids"] == [subject.text_tokenizer().encode(prompt) for prompt in prompts]

    class Clocked(GRPOTrainer):
        block, began, wall_began = Block(length), 0.0, 0.0

        def start(self) -> None:
            self.block, self.began, self.wall_began = Block(length), time.process_time(), time.perf_counter()

        def _generate_and_score_completions(self, inputs: Any) -> Any:
            with clocked(self.block, "sample"):
                return super()._generate_and_score_completions(inputs)

        def _get_per_token_logps_and_entropies(self, *args: Any, **kwargs: Any) -> Any:
            if torch.is_grad_enabled():
                return super()._get_per_token_logps_and_entropies(*args, **kwargs)
            with clocked(self.block, "old"):
                return super()._get_per_token_logps_and_entropies(*args, **kwargs)

    def reward(
        completions: list[str], completion_ids: list[list[int]], problem: list[Any], **_other: Any
    ) -> list[float]:
        grades = [task.reward(asked, text) for asked, text in zip(problem, completions, strict=True)]
        trainer.block.tokens += sum(map(len, completion_ids))
        trainer.block.reward += sum(grades) / len(grades)
        return grades

    class Boundary(TrainerCallback):
        def on_train_begin(self, *_args: Any, **_kwargs: Any) -> None:
            trainer.start()

        def on_step_end(self, args: Any, state: Any, *_args: Any, **_kwargs: Any) -> None:
            if state.global_step % (length * method.minibatches):
                return
            block, spent = trainer.block, time.process_time() - trainer.began
            block.wall = time.perf_counter() - trainer.wall_began
            block.seconds["sample"] -= block.seconds["old"]
            block.seconds["train"] = spent - block.seconds["sample"] - block.seconds["old"]
            on_block(block)
            trainer.start()

    responses = asked * method.group_size
    trainer = Clocked(
        model=subject.model,
        reward_funcs=reward,
        args=GRPOConfig(
            output_dir=folder,
            max_steps=length * blocks * method.minibatches,
            per_device_train_batch_size=responses // method.minibatches,
            steps_per_generation=method.minibatches,
            num_generations=method.group_size,
            max_completion_length=method.max_new_tokens,
            temperature=method.temperature,
            learning_rate=method.learning_rate,
            lr_scheduler_type="constant",
            adam_beta2=0.99,
            weight_decay=0.0,
            max_grad_norm=1.0,
            epsilon=method.clip_low,
            loss_type="grpo",
            beta=0.0,
            bf16=False,
            gradient_checkpointing=checkpointing,
            use_cpu=True,
            dataloader_pin_memory=False,
            logging_strategy="no",
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            seed=SEED,
        ),
        train_dataset=Dataset.from_dict({"prompt": prompts, "problem": [list(problem) for problem in problems]}),
        processing_class=tokenizer,
        callbacks=[Boundary()],
    )
    return trainer


def measured(rounds: int, length: int, checkpointing: bool) -> dict[str, list[Block]]:
    """Blocks of both sides, two a round; the warm-up is left out."""
    from transformers import PrinterCallback

    found: dict[str, list[Block]] = {"trl": [], "ours": []}
    ours = our_blocks(length)

    def on_block(block: Block) -> None:
        found["ours"] += [next(ours) for _ in range(ours_after(len(found["trl"])))]
        found["trl"].append(block)

    with tempfile.TemporaryDirectory() as folder:
        trainer = trl_trainer(length, 2 * rounds + 1, checkpointing, on_block, folder)
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    return {side: blocks[1:] for side, blocks in found.items()}


def shown(found: Estimate, digits: int = 2) -> str:
    """``1.23 [1.20, 1.26]``."""
    interval = "" if found.low is None else f" [{found.low:.{digits}f}, {found.high:.{digits}f}]"
    return f"{found.value:.{digits}f}{interval}"


def table(found: dict[str, list[Block]]) -> str:
    """A row a figure; ratios are TRL's over ours, from the blocks in pairs."""
    trl, ours = found["trl"], found["ours"]

    def row(name: str, figure: Callable[[Block], float], digits: int) -> str:
        theirs, mine = [figure(block) for block in trl], [figure(block) for block in ours]
        cells = [shown(mean_interval(mine), digits), shown(mean_interval(theirs), digits)]
        return f"| {name} | {cells[0]} | {cells[1]} | {shown(ratio_interval(theirs, mine))} |"

    def phase(name: str) -> Callable[[Block], float]:
        return lambda block: block.seconds[name] / block.updates

    lines = [
        "| | ours | TRL | TRL / ours |",
        "|---|---|---|---|",
        row("seconds an update", lambda b: b.total / b.updates, 4),
    ]
    lines += [row(f"seconds of phase {name}", phase(name), 4) for name in PHASES]
    for name in PHASES:
        shares = [[block.seconds[name] / block.total for block in side] for side in (ours, trl)]
        lines.append(f"| share of phase {name} | {' | '.join(shown(mean_interval(s)) for s in shares)} | |")
    lines += [
        row("generated tokens an update", lambda b: b.tokens / b.updates, 1),
        row("microseconds a generated token", lambda b: 1e6 * b.total / b.tokens, 1),
        row("mean reward", lambda b: b.reward / b.updates, 3),
        row("wall seconds an update", lambda b: b.wall / b.updates, 4),
    ]
    return "\n".join(lines)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3, help="rounds of four blocks after the warm-up")
    parser.add_argument("--updates", type=int, default=5, help="updates of a block")
    parser.add_argument("--checkpointing", action="store_true", help="TRL's default: recompute activations")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    print(table(measured(asked.rounds, asked.updates, asked.checkpointing)))


if __name__ == "__main__":
    main()

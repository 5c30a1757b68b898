"""A subject as an lm-eval model, so that every method runs on every task.

Contexts are prefilled and then continued, as in generation, so that what a method drops from the cache is really
gone when the continuation is scored. lm-eval's own semantics are kept: the split of context and continuation, the
prefix token of an empty context, left truncation, stop strings.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from lm_eval.api.model import TemplateLM
from lm_eval.models.utils import handle_stop_sequences, normalize_gen_kwargs
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from harness.catalog.spec import parse_stack
from harness.errors import UsageError
from harness.kinds.artifacts import ArtifactStore
from harness.kinds.stack import applied
from harness.subjects.catalog import DEFAULT_MODEL
from harness.subjects.load import load_subject
from harness.subjects.requests import GenerateRequest, Generation, ScoreRequest
from harness.subjects.subject import Subject

TokenPair = tuple[tuple[str, str], list[int], list[int]]


class ZooLM(TemplateLM):  # type: ignore[misc]
    """lm-eval's ``zoo`` model: ``pretrained=smollm2-135m-q4,method=token_recycling``."""

    def __init__(
        self,
        pretrained: str = DEFAULT_MODEL,
        method: str = "",
        device: str | None = None,
        dtype: str | None = None,
        batch_size: int | str | None = 8,
        max_length: int | None = None,
        max_gen_toks: int = 256,
        seed: int = 0,
        trust_remote_code: bool = False,
        subject: Subject | None = None,
        **ignored: Any,
    ) -> None:
        super().__init__()
        unknown = {k: v for k, v in ignored.items() if v is not None and k != "max_batch_size"}
        if unknown:
            raise UsageError(
                f"unknown model argument(s) {', '.join(unknown)}; known: pretrained, method, device, dtype"
            )
        self._contexts = ExitStack()
        if subject is None:
            subject = load_subject(pretrained, device or "auto", dtype, trust_remote_code)
        if method:
            store = ArtifactStore(seed)
            subject = self._contexts.enter_context(applied(parse_stack(method).build(), subject, store.obtain))
        self.subject = subject
        self.text = subject.text_tokenizer()
        self.batch_size = int(str(batch_size)) if str(batch_size).isdigit() else 8
        self.max_length = min(max_length or subject.max_length, subject.max_length)
        self.max_gen_toks = max_gen_toks
        self.seed = seed
        self.generations: list[Generation] = []

    def close(self) -> None:
        """Leave the methods' contexts; the model is as before."""
        self._contexts.close()

    @property
    def tokenizer_name(self) -> str:
        """Name under which lm-eval caches rendered requests."""
        return f"{self.subject.name}:{self.text.name}".replace("/", "__")

    @property
    def tokenizer(self) -> Any:
        """The transformers tokenizer where there is one: lm-eval reads its chat template from it."""
        return getattr(self.text, "inner", None)

    @property
    def eot_token_id(self) -> int:
        """End of text."""
        return self.text.eos_ids[0] if self.text.eos_ids else self.text.prefix_id

    @property
    def prefix_token_id(self) -> int:
        """What stands before a text without context."""
        return self.text.prefix_id

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **kwargs: Any) -> list[int]:
        """Ids of a string, without special tokens."""
        return self.text.encode(string)

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """The model's own chat format; refused in one line where it has none."""
        if not getattr(self.text, "chat_template", None):
            raise UsageError(f"{self.subject.name} has no chat template; leave --apply_chat_template out")
        return self.text.apply_chat_template(  # type: ignore[attr-defined,no-any-return]
            chat_history, add_generation_prompt=add_generation_prompt, continue_final_message=not add_generation_prompt
        )

    def _score_request(self, context: Sequence[int], continuation: Sequence[int]) -> ScoreRequest:
        """Truncated on the left as lm-eval's own model does: at most ``max_length`` input tokens."""
        room = self.max_length + 1
        if len(continuation) >= room:
            raise UsageError(f"a continuation of {len(continuation)} tokens exceeds the context of {self.max_length}")
        kept = list(context)[-(room - len(continuation)) :]
        return ScoreRequest(context=tuple(kept), continuation=tuple(continuation))

    def _loglikelihood_tokens(
        self, requests: list[TokenPair], disable_tqdm: bool = False, **kwargs: Any
    ) -> list[tuple[float, bool]]:
        scores = self.subject.score([self._score_request(c, t) for _, c, t in requests], self.batch_size)
        answers = [(score.logprob, score.is_greedy) for score in scores]
        for (pair, _, _), answer in zip(requests, answers, strict=True):
            if pair is not None:
                self.cache_hook.add_partial("loglikelihood", pair, answer)
        return answers

    def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[float]:
        """Log-likelihood of whole texts, in windows of the model's length."""
        windows: list[TokenPair] = []
        owner: list[int] = []
        for index, request in enumerate(requests):
            pieces = get_rolling_token_windows(
                token_list=self.tok_encode(request.args[0]),
                prefix_token=self.prefix_token_id,
                max_seq_len=self.max_length,
                context_len=1,
            )
            for context, continuation in map(make_disjoint_window, pieces):
                windows.append((None, context, continuation))  # type: ignore[arg-type]
                owner.append(index)
        totals = [0.0] * len(requests)
        for index, (logprob, _) in zip(owner, self._loglikelihood_tokens(windows), strict=True):
            totals[index] += logprob
        return totals

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        """Continuations, cut before the first stop string. Batches hold prompts of like length and equal options."""
        texts = [""] * len(requests)
        for options, indices in self._by_options(requests):
            order = sorted(indices, key=lambda i: len(requests[i].args[0]), reverse=True)
            for start in range(0, len(order), self.batch_size):
                part = order[start : start + self.batch_size]
                request = self._generate_request([requests[i].args[0] for i in part], options, part)
                for index, row in zip(part, self.subject.generate(request), strict=True):
                    texts[index] = row.text
                    self.generations.append(row)
                    self.cache_hook.add_partial("generate_until", requests[index].args, row.text)
        return texts

    @staticmethod
    def _by_options(requests: Sequence[Any]) -> Iterable[tuple[dict[str, Any], list[int]]]:
        groups: dict[str, tuple[dict[str, Any], list[int]]] = {}
        for index, request in enumerate(requests):
            options = request.args[1]
            groups.setdefault(repr(options), (options, []))[1].append(index)
        return groups.values()

    def _generate_request(
        self, contexts: Sequence[str], options: dict[str, Any], row_ids: Sequence[int]
    ) -> GenerateRequest:
        settings: dict[str, Any] = dict(normalize_gen_kwargs(options, self.max_gen_toks))
        room = self.max_length - settings["max_gen_toks"]
        if room < 1:
            raise UsageError(f"max_gen_toks={settings['max_gen_toks']} leaves no room in {self.max_length} tokens")
        prompts = [self.tok_encode(text)[-room:] or [self.prefix_token_id] for text in contexts]
        sampled = settings.get("do_sample", False)
        return GenerateRequest(
            prompts=prompts,
            max_new_tokens=settings["max_gen_toks"],
            temperature=float(settings.get("temperature", 1.0)) if sampled else 0.0,
            top_k=int(settings.get("top_k", 0)) if sampled else 0,
            top_p=float(settings.get("top_p", 1.0)) if sampled else 1.0,
            repetition_penalty=float(settings.get("repetition_penalty", 1.0)),
            stop_strings=tuple(s for s in handle_stop_sequences(settings.get("until"), eos=None) if s),
            seed=self.seed,
            row_ids=row_ids,
        )

    def get_model_info(self) -> dict[str, Any]:
        """What lm-eval writes beside its results."""
        parameters = sum(p.numel() for p in self.subject.model.parameters())
        return {
            "model_num_parameters": parameters,
            "model_dtype": str(self.subject.dtype),
            "model_stack": "+".join(self.subject.stack),
            "torch": torch.__version__,
        }

"""The byte model of ``hnet`` with its own scorer and decoder: it has no key/value cache and no transformers class."""

import time
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.subjects.decode import StopRule, synchronize
from harness.subjects.requests import GenerateRequest, Generation, Score, ScoreRequest
from harness.subjects.sampling import Sampler
from harness.subjects.subject import Subject
from harness.subjects.tiny import ByteIds


class HNet(nn.Module):
    """Encoder, router, main network, decoder; the state between calls makes step by step equal to all at once."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(ByteIds.vocab_size, width)
        self.encoder, self.main, self.decoder = (nn.GRU(width, width, batch_first=True) for _ in range(3))
        self.query, self.key = (nn.Linear(width, width, bias=False) for _ in range(2))
        self.residual, self.head = nn.Linear(width, width), nn.Linear(width, ByteIds.vocab_size)
        for router in (self.query, self.key):
            nn.init.eye_(router.weight)
        nn.init.zeros_(self.residual.weight)

    device = property(lambda self: self.head.weight.device)
    dtype = property(lambda self: self.head.weight.dtype)

    def forward(self, ids_BT: Tensor, state: tuple[Tensor, ...] | None = None):  # type: ignore[no-untyped-def]
        """Logits ``[B, T, V]``, boundary probability and boundary ``[B, T]``, and the state after the last byte."""
        first = state is None
        zero = self.head.weight.new_zeros(1, len(ids_BT), self.head.in_features)
        encoded, last, main, smooth, decoded = state or (zero, zero, zero, zero, zero)
        h_BTD, encoded = self.encoder(self.embed(ids_BT), encoded)
        before_BTD = torch.cat([last.transpose(0, 1), h_BTD[:, :-1]], 1)
        p_BT = ((1 - F.cosine_similarity(self.query(before_BTD), self.key(h_BTD), -1)) / 2).clamp(0, 1)
        if first:
            p_BT = torch.cat([torch.ones_like(p_BT[:, :1]), p_BT[:, 1:]], 1)
        b_BT = p_BT > 0.5
        # Chunk 0 is the one carried over from the state; a row's kept bytes come first, in order.
        chunk_BT = b_BT.cumsum(1)
        kept = (~b_BT).to(torch.int8).argsort(dim=1, stable=True)[:, : int(chunk_BT[:, -1].max())]
        mains, smooths = [main.transpose(0, 1)], [smooth.transpose(0, 1)]
        if kept.shape[1]:
            z_BMD, _ = self.main(h_BTD.gather(1, kept[..., None].expand(-1, -1, h_BTD.shape[2])), main.contiguous())
            sure_BM = p_BT.gather(1, kept).clamp(1e-4, 1 - 1e-4)[..., None]
            mains.append(z_BMD)
            for k in range(kept.shape[1]):
                now = slice(k, k + 1)
                smooths.append(sure_BM[:, now] * z_BMD[:, now] + (1 - sure_BM[:, now]) * smooths[-1])
        index = chunk_BT[..., None].expand_as(h_BTD)
        up_BTD = torch.cat(smooths, 1).gather(1, index)
        chosen_BT = torch.where(b_BT, p_BT, 1 - p_BT)
        straight_BT = 1 + (chosen_BT - chosen_BT.detach())
        y_BTD, decoded = self.decoder(up_BTD * straight_BT[..., None] + self.residual(h_BTD), decoded)
        main_now = torch.cat(mains, 1).gather(1, index[:, -1:]).transpose(0, 1)
        carried = (encoded, h_BTD[:, -1:].transpose(0, 1), main_now, up_BTD[:, -1:].transpose(0, 1), decoded)
        return self.head(y_BTD), p_BT, b_BT, carried


class HNetScorer:
    """One forward of context and continuation, padded on the right, where a causal model does not look."""

    def score(self, subject: Subject, requests: Sequence[ScoreRequest], batch_size: int) -> list[Score]:
        """Scores in order."""
        scores = []
        for start in range(0, len(requests), batch_size):
            part = requests[start : start + batch_size]
            rows = [torch.tensor((*r.context, *r.continuation), device=subject.device) for r in part]
            logp_BTV = subject.model(nn.utils.rnn.pad_sequence(rows, batch_first=True))[0].log_softmax(-1)
            for request, logp_TV in zip(part, logp_BTV, strict=True):
                begin, wanted = len(request.context), torch.tensor(request.continuation, dtype=torch.long)
                own_TV = logp_TV[begin - 1 : begin - 1 + len(wanted)].cpu()
                total = float(own_TV.gather(1, wanted[:, None]).sum())
                scores.append(Score(total, bool((own_TV.argmax(-1) == wanted).all())))
        return scores


class HNetDecoder:
    """Byte by byte from the carried state; the main network runs at boundaries only."""

    def snapshot(self) -> None:
        """Nothing outlives a request."""

    def restore(self, state: object) -> None:
        """Nothing to go back to."""

    def generate(self, subject: Subject, request: GenerateRequest) -> list[Generation]:
        """Rows one after the other."""
        sampler, rule = Sampler(request, subject.device), StopRule(request, subject.tokenizer)
        return [self._one(subject, list(p), sampler, rule, i) for i, p in enumerate(request.prompts)]

    def _one(self, subject, history, sampler, rule, index):  # type: ignore[no-untyped-def]
        row, state, start = Generation(prompt_tokens=len(history)), None, time.perf_counter()
        fresh, chunks, forwards, tokens = history, 0, 0, 0
        while True:
            logits_1TV, _, b_1T, state = subject.model(torch.tensor([fresh], device=subject.device), state)
            chunks, forwards, tokens = chunks + int(b_1T.sum()), forwards + 1, tokens + len(fresh)
            fresh = [sampler.pick(logits_1TV[0, -1], history, index)]
            synchronize(subject.device)
            history = history + fresh
            if rule.extend(row, fresh, time.perf_counter() - start):
                row.counts |= {"forwards": forwards, "tokens_forwarded": tokens, "main_forwards": chunks}
                return row


def ratio_loss(p_BT: Tensor, b_BT: Tensor, target: float) -> Tensor:
    """1 where the share of boundaries and the mean probability are both 1/target."""
    share, mean = b_BT.float().mean(), p_BT.mean()
    return target / (target - 1) * ((target - 1) * share * mean + (1 - share) * (1 - mean))

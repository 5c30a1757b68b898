"""FlowTracer: one unit of flow runs through attention from question to answer; tokens it passes weigh more.

Nodes are the tokens of prompt and response, W_ik (i < k) the attention from query k to key i, the mean over heads and
middle layers. h = 1 on the answer, h(i) = sum_k W_ik h(k) elsewhere: how much of i reaches the answer. With
W'_ik = W_ik h(k) / h(i) every node passes on all it gets; the question's tokens start with equal parts of the unit,
f(k) += f(i) W'_ik, answers keep what arrives. Throughput in + out is 2 f off the answer, so f ranks. The ``share`` of
a response's tokens with the most flow has the weight ``gamma``, the others 1.
"""

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from harness.catalog import method
from harness.kinds.objective import ObjectiveMethod, aggregate
from harness.kinds.objective.answer_masking import AnswerMasking, predictors
from harness.kinds.objective.tokens import every_row, select_topk, shuffled


def attention_flow(edges_BNN: Tensor, sources_BN: Tensor, sinks_BN: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Potential ``h``, flow ``f`` and conditioned edges ``W'``: ``[B, N]``, ``[B, N]``, ``[B, N, N]``, all float64.

    ``edges_BNN[b, i, k]`` is the weight from node i to a later node k; what stands elsewhere is not read. Sources that
    do not reach a sink start with nothing; if none does, all flow is 0.
    """
    size = edges_BNN.shape[-1]
    onward_BNN = edges_BNN.double().triu(1) * ~sinks_BN[..., None]
    unit_NN = torch.eye(size, dtype=torch.float64, device=edges_BNN.device)
    ends_BN1 = sinks_BN.double()[..., None]
    h_BN = torch.linalg.solve_triangular(unit_NN - onward_BNN, ends_BN1, upper=True, unitriangular=True)[..., 0]
    h_BN = h_BN.clamp(min=0)
    live_BN = h_BN > 0
    passed_BNN = onward_BNN * h_BN[:, None] / torch.where(live_BN, h_BN, torch.ones_like(h_BN))[..., None]
    passed_BNN = passed_BNN * live_BN[..., None]
    start_BN = (sources_BN & live_BN).double()
    start_BN = start_BN / start_BN.sum(-1, keepdim=True).clamp(min=1)
    f_BN = torch.linalg.solve_triangular(
        unit_NN - passed_BNN.transpose(1, 2), start_BN[..., None], upper=False, unitriangular=True
    )[..., 0]
    return h_BN, f_BN, passed_BNN


def answer_mask(mask_BT: Tensor, finished_B: Tensor, tokens: int) -> Tensor:
    """The last ``tokens`` tokens before the end-of-text token, ``[B, T]``; none in a response that was cut."""
    left_BT = mask_BT.flip(1).cumsum(1).flip(1)
    return mask_BT & (left_BT >= 2) & (left_BT <= tokens + 1) & finished_B[:, None]


@method(
    id="flowtracer",
    kind="objective",
    title="FlowTracer: answer-conditioned attention flow",
    paper="arXiv:2606.10646",
    guarantee="approximate",
    baseline="grpo",
    needs="reinforcement learning",
    identity={"gamma": 1.0},
    claims=[
        {
            "metric": "average accuracy, 1K context",
            "value": 39.4,
            "against": "37.1 GRPO",
            "on": "Qwen3-4B (reported second-hand)",
        },
        {
            "metric": "average accuracy, 8K context",
            "value": 52.5,
            "against": "50.3 GRPO",
            "on": "Qwen3-8B (reported second-hand)",
        },
        {
            "metric": "answer_change_share",
            "value": 0.459,
            "against": "0.295 random and 0.149 least flow, 20 % of the tokens hidden",
            "on": "model not named (reported second-hand)",
        },
    ],
    details={
        "formulas": "public digests; the paper was not read in full and has no released code",
        "share, gamma, layers": "public digests: 0.4, 1.5, the middle third of the layers",
        "h on the answer": "reconstruction: 1 on every answer token, which absorbs",
        "question": "reconstruction: the whole prompt, the unit shared by the tokens that reach the answer",
        "answer": "ours: the last answer_tokens tokens before the end-of-text token; cut responses have none",
        "sink": "ours: the tokens that predict the answer's. answer is the digests' wording, but it reads others "
        "only once it is written, and the probe answer_masking finds that its flow misses what it needs",
        "ranking": "reconstruction: answer tokens compete by 2 f like all others; rounded up, ties to the earlier",
        "no answer": "all weights 1, also where nothing of the response predicts it",
        "first token": "attention sinks take part; drop_sink removes what the first token passes on",
        "causal probe": "ours: hidden are 20 % of the tokens before the answer, but never the one that predicts it",
        "everything else": "as grpo",
    },
)
class FlowTracer(ObjectiveMethod):
    """With gamma=1 it is GRPO."""

    requires = frozenset({"attention"})

    share: float = Field(0.4, gt=0, le=1, description="part of each response that weighs more")
    gamma: float = Field(1.5, gt=0, description="weight of that part")
    answer_tokens: int = Field(1, ge=1, description="length of the answer, counted back from the end-of-text token")
    sink: Literal["answer", "predictor"] = Field(
        "predictor", description="where flow ends: what predicts the answer, or the answer itself"
    )
    drop_sink: bool = Field(False, description="cut the edges that leave the first token")
    aggregation: Literal["seq", "token"] = Field("seq", description="mean over responses, or over all tokens")
    shuffle: bool = Field(False, description="control: the same weights in random places of each response")

    def attention_layers(self, layers):  # type: ignore[no-untyped-def]
        """The middle third."""
        return range(layers // 3, max(2 * layers // 3, layers // 3 + 1))

    def answer(self, batch):  # type: ignore[no-untyped-def]
        """The answer's tokens, ``[B, T]``."""
        return answer_mask(batch.response_mask_BT, batch.finished_B, self.answer_tokens)

    def flow(self, batch):  # type: ignore[no-untyped-def]
        """The flow through each response token, ``[B, T]``."""
        prompt_BP, mask_BT = batch.prompt_mask_BP, batch.response_mask_BT
        valid_BN = torch.cat([prompt_BP, mask_BT], 1)
        edges_BNN = batch.attention_BNN.transpose(1, 2)
        real_BNN = valid_BN[:, :, None] & valid_BN[:, None]
        if self.drop_sink:
            real_BNN = real_BNN & (valid_BN.cumsum(1) > 1)[:, :, None]
        edges_BNN = torch.where(real_BNN, edges_BNN, torch.zeros_like(edges_BNN))
        answer_BT = self.answer(batch)
        sinks_BT = answer_BT if self.sink == "answer" else predictors(answer_BT)
        before, after = torch.zeros_like(prompt_BP), torch.zeros_like(mask_BT)
        _, f_BN, _ = attention_flow(edges_BNN, torch.cat([prompt_BP, after], 1), torch.cat([before, sinks_BT], 1))
        return f_BN[:, prompt_BP.shape[1] :]

    def token_weight(self, batch, adv_BT, progress):  # type: ignore[no-untyped-def]
        """``gamma`` where the flow is strongest, else 1, ``[B, T]``."""
        f_BT, mask_BT = self.flow(batch), batch.response_mask_BT
        strong_BT = select_topk(f_BT, mask_BT, self.share, every_row(mask_BT)) & (f_BT > 0).any(1, keepdim=True)
        weight_BT = torch.ones_like(batch.old_logps_BT).masked_fill(strong_BT, self.gamma)
        return shuffled(weight_BT, batch) if self.shuffle else weight_BT

    def aggregate(self, loss_BT, batch, adv_BT):  # type: ignore[no-untyped-def]
        """As in GRPO."""
        return aggregate(loss_BT, batch.response_mask_BT, self.aggregation)

    def probes(self):  # type: ignore[no-untyped-def]
        """Those of the kind, and whether the answer hangs on the tokens with the most flow."""
        return (*super().probes(), AnswerMasking(self, self.flow, self.answer))

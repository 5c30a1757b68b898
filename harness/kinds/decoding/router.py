"""A small classifier that says from a small model's state whether its next token matters, and how it is trained."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.errors import Refused
from harness.kinds.decoding.divergence import Features, Labelled

GRID = torch.linspace(0.01, 0.99, 100, dtype=torch.float64)
FALLBACK_THRESHOLD = 0.5
WIDENING = 4


class Block(nn.Module):
    """A residual block: norm, a layer four times as wide with GELU, back again; dropout after each."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.inner = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, WIDENING * width),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(WIDENING * width, width),
            nn.Dropout(dropout),
        )

    def forward(self, x: Tensor) -> Tensor:
        """``[N, H] -> [N, H]``."""
        return x + self.inner(x)  # type: ignore[no-any-return]


class Router(nn.Module):
    """State, embedding of the best token and largest logits (taken to the state's width) to one logit."""

    def __init__(self, width: int, top: int, hidden: int, blocks: int, dropout: float = 0.1) -> None:
        super().__init__()
        self.top = nn.Linear(top, width)
        self.enter = nn.Sequential(nn.Linear(3 * width, hidden), nn.Linear(hidden, hidden))
        self.blocks = nn.Sequential(*(Block(hidden, dropout) for _ in range(blocks)))
        self.leave = nn.Sequential(nn.LayerNorm(hidden), nn.Linear(hidden, 1))

    def forward(self, seen: Features) -> Tensor:
        """``[N]``, the logit of a token being critical."""
        joined = torch.cat([seen.hidden_ND, seen.embed_ND, self.top(seen.top_NK)], -1)
        return self.leave(self.blocks(self.enter(joined)))[:, 0]  # type: ignore[no-any-return]


def pick_threshold(score_N: Tensor, label_N: Tensor, recall: float) -> float:
    """Of 100 thresholds those that find at least ``recall`` of the critical tokens; of these the one with the fewest
    false alarms, the lowest among equals. 0.5 where none does or there is no critical token."""
    routed = score_N.double().cpu()[None] >= GRID[:, None]
    critical = label_N.bool().cpu()[None]
    found = (routed & critical).sum(1) / critical.sum()
    alarms = (routed & ~critical).sum(1)
    passing = found >= recall - 1e-12
    if not bool(passing.any()):
        return FALLBACK_THRESHOLD
    return float(GRID[torch.where(passing, alarms, alarms.max() + 1).argmin()])


@dataclass(frozen=True)
class RouterTraining:
    """How a router is trained; ``recall`` is what its threshold must reach on held-out tokens."""

    learning_rate: float
    epochs: int
    recall: float
    seed: int
    batch: int = 256
    weight_decay: float = 5e-4
    patience: int = 10


def train_router(router: Router, train: Labelled, held_out: Labelled, how: RouterTraining) -> list[float]:
    """Train in place; the epoch with the lowest held-out loss stays. Returns the held-out losses.

    Binary cross-entropy in which critical tokens weigh as much together as the others. Refuses labels all alike.
    """
    label_N = train.critical_N.float()
    ones = int(label_N.sum())
    if ones in (0, len(label_N)):
        raise Refused(f"{ones} of {len(label_N)} tokens are critical, so there is nothing to tell apart; raise texts")
    loss_of = partial(
        F.binary_cross_entropy_with_logits, pos_weight=(len(label_N) - ones) / ones * label_N.new_ones(())
    )
    optimizer = torch.optim.AdamW(router.parameters(), how.learning_rate, weight_decay=how.weight_decay)
    order = torch.Generator().manual_seed(how.seed)
    losses: list[float] = []
    best: dict[str, Any] = {}
    for _ in range(how.epochs):
        router.train()
        for index in torch.randperm(len(label_N), generator=order).to(label_N.device).split(how.batch):
            optimizer.zero_grad(set_to_none=True)
            loss_of(router(train.features.rows(index)), label_N[index]).backward()
            optimizer.step()
        router.eval()
        with torch.no_grad():
            losses.append(float(loss_of(router(held_out.features), held_out.critical_N.float())))
        if losses[-1] == min(losses):
            best = copy.deepcopy(router.state_dict())
        elif len(losses) - losses.index(min(losses)) > how.patience:
            break
    router.load_state_dict(best)
    return losses


def fit_router(hidden: int, blocks: int, train: Labelled, held_out: Labelled, how: RouterTraining) -> dict[str, Any]:
    """Make and train a router; returns it for :func:`opened_router`, with figures on held-out tokens by metric."""
    shape = (train.features.hidden_ND.shape[1], train.features.top_NK.shape[1], hidden, blocks)
    with torch.inference_mode(False), torch.enable_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(how.seed)
        router = Router(*shape).to(train.critical_N.device)
        train_router(router, train, held_out, how)
    with torch.no_grad():
        score_N = router(held_out.features).sigmoid()
    threshold = pick_threshold(score_N, held_out.critical_N, how.recall)
    routed_N, critical_N = score_N >= threshold, held_out.critical_N.bool()
    figures = {
        "differing_token_share": float(held_out.differs_N.float().mean()),
        "critical_token_share": float(critical_N.float().mean()),
        "router_recall": _share(routed_N, critical_N),
        "router_false_alarm_share": _share(routed_N, ~critical_N),
    }
    weights = {name: value.detach() for name, value in router.state_dict().items()}
    return {"shape": shape, "weights": weights, "threshold": threshold, "tokens": len(score_N), "figures": figures}


def _share(routed_N: Tensor, part_N: Tensor) -> float:
    """Share of a part's tokens that are routed; 0 of none."""
    return float((routed_N & part_N).sum()) / max(1, int(part_N.sum()))


def opened_router(fitted: dict[str, Any], device: torch.device) -> Router:
    """The router that :func:`fit_router` made, in float32."""
    with torch.random.fork_rng(devices=[]):
        router = Router(*fitted["shape"])
    router.load_state_dict(fitted["weights"])
    return router.to(device).eval()

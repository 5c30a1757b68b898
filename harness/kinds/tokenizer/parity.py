"""What the same text costs in different languages."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from harness.errors import EnvironmentFailed
from harness.kinds.method import Measurement
from harness.kinds.tokenizer.intrinsics import Floats
from harness.stats.rates import draw_weights
from harness.subjects.subject import Subject
from harness.subjects.tokenizer import Tokenizer
from harness.toolkit.parallel import PIVOT, aligned


def gini(costs_RX: Floats) -> Floats:
    """Gini coefficient of costs along the last axis: 0 where all are equal."""
    gaps = np.abs(costs_RX[..., :, None] - costs_RX[..., None, :]).sum((-1, -2))
    return np.asarray(gaps / (2 * costs_RX.shape[-1] ** 2 * costs_RX.mean(-1)))


def parity(tokenizer: Tokenizer, lines: Mapping[str, Sequence[str]], pivot: str = PIVOT) -> list[Measurement]:
    """Premiums over the pivot and the Gini coefficient, with intervals over resampled lines."""
    languages = [pivot, *(language for language in lines if language != pivot)]
    tokens_XL = np.array([[len(tokenizer.encode(text)) for text in lines[x]] for x in languages], float)
    weights_RL = draw_weights(tokens_XL.shape[1])
    cost_RX, cost_X = weights_RL @ tokens_XL.T, tokens_XL.sum(1)

    def found(metric: str, value: Floats, resampled_R: Floats, phase: str = "") -> Measurement:
        low, high = np.quantile(resampled_R, [0.025, 0.975])
        return Measurement(metric, float(value), float(low), float(high), tokens_XL.shape[1], phase)

    premium_RX, premium_X = cost_RX[:, 1:] / cost_RX[:, :1], cost_X[1:] / cost_X[0]
    return [
        found("parity_premium", premium_X.mean(), premium_RX.mean(1)),
        found("parity_premium_max", premium_X.max(), premium_RX.max(1)),
        found("parity_gini", gini(cost_X), gini(cost_RX)),
        *(found("parity_premium", premium_X[i], premium_RX[:, i], x) for i, x in enumerate(languages[1:])),
    ]


@dataclass
class Parity:
    """The probe ``parity``: what the same messages cost in other languages. Empty, with a warning, without the text.

    For aligned lines l with T_x(l) tokens in language x: premium_x = sum T_x / sum T_en; Gini = sum_ij |c_i - c_j| /
    (2 n^2 mean c) over c_x = sum T_x. All lines are used, so a tokenizer trained on ``parallel`` has seen most of them.
    """

    name: str = "parity"

    def measure(self, subject: Subject) -> Sequence[Measurement]:
        """Premiums by language, their mean and maximum, and the Gini coefficient."""
        try:
            return parity(subject.text_tokenizer(), aligned())
        except EnvironmentFailed as error:
            warnings.warn(f"parity is not measured: {error}", stacklevel=2)
            return ()

"""A Llama that reads segments and writes segments: a compositional embedder before it, a micro decoder behind it."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import LlamaForCausalLM
from transformers.models.llama.modeling_llama import LlamaDecoderLayer, LlamaRotaryEmbedding

from harness.kinds.architecture.segments import Layout, entropies, lay_out, segment_lengths

PROMPT_SHARE = 4
"""One part in so many of a training row is prompt, which is never merged."""
STOP_WEIGHT = 0.5


class SegmentEmbedder(nn.Module):
    """One vector for up to ``longest`` tokens: a single one stays as it is, several are mean(E) + W_o attention.

    The query is W_q mean(E); keys and values are W [E ; pos], with a learnt ``pos`` of half the width for each place.
    """

    def __init__(self, width: int, heads: int, longest: int) -> None:
        super().__init__()
        self.heads = heads
        self.pos = nn.Parameter(nn.init.xavier_normal_(torch.empty(longest, width // 2)))
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width + width // 2, width)
        self.value = nn.Linear(width + width // 2, width)
        self.out = nn.Linear(width, width)

    def forward(self, embeds_NSD: Tensor, size_N: Tensor) -> Tensor:
        """``[N, D]`` for segments of ``size_N`` tokens; what lies behind them must be 0."""
        count, places, width = embeds_NSD.shape
        mean_ND = embeds_NSD.sum(1) / size_N[:, None]
        placed = torch.cat([embeds_NSD, self.pos[:places].expand(count, -1, -1)], -1)

        def by_head(states: Tensor) -> Tensor:
            return states.view(count, -1, self.heads, width // self.heads).transpose(1, 2)

        held_NS = torch.arange(places, device=size_N.device) < size_N[:, None]
        mixed = F.scaled_dot_product_attention(
            by_head(self.query(mean_ND)),
            by_head(self.key(placed)),
            by_head(self.value(placed)),
            attn_mask=held_NS[:, None, None],
        )
        merged_ND = mean_ND + self.out(mixed.transpose(1, 2).reshape(count, width))
        return torch.where(size_N[:, None] == 1, embeds_NSD[:, 0], merged_ND)


class MicroDecoder(nn.Module):
    """Small Llama layers over the model's features and the tokens written so far, and a head that ends a segment."""

    def __init__(self, config: Any, layers: int) -> None:
        super().__init__()
        width = config.hidden_size
        self.layers = nn.ModuleList(LlamaDecoderLayer(config, index) for index in range(layers))
        self.rotary = LlamaRotaryEmbedding(config)
        self.stop = nn.Sequential(
            nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, 1)
        )

    def forward(self, features_NKD: Tensor, embeds_NSD: Tensor) -> Tensor:
        """``[N, 1 + S, D]``: from vector j token j of the segment is read, and whether it is the last.

        The first is the model's own last state, untouched; the others come from after each written token.
        """
        if not embeds_NSD.shape[1]:
            return features_NKD[:, -1:]
        states = torch.cat([features_NKD, embeds_NSD], 1)
        place_1S = torch.arange(states.shape[1], device=states.device)[None]
        turned = self.rotary(states, place_1S)
        for layer in self.layers:
            states = layer(states, attention_mask=None, position_embeddings=turned, position_ids=place_1S)
        return torch.cat([features_NKD[:, -1:], states[:, features_NKD.shape[1] :]], 1)


class SmashedLlama(LlamaForCausalLM):  # type: ignore[misc]
    """The base model with both parts. Its plain forward is the base's, so ``longest = 1`` is the base."""

    def __init__(self, config: Any, longest: int, micro_layers: int, features: int) -> None:
        super().__init__(config)
        self.longest = longest
        count = min(features, config.num_hidden_layers)
        self.tapped_layers = [round(config.num_hidden_layers * (i + 1) / count) - 1 for i in range(count)]
        self.embedder = SegmentEmbedder(config.hidden_size, config.num_attention_heads, longest)
        self.micro = MicroDecoder(config, micro_layers)
        # In a list, so that it is no part of the model: it is not trained and not kept.
        self._judges: list[Any] = []

    def new_parts(self) -> list[nn.Parameter]:
        """Parameters that the base does not have."""
        return [*self.embedder.parameters(), *self.micro.parameters()]

    def freeze_judge(self) -> None:
        """From now on the model as it is now says how hard a token is, however training goes on."""
        self._judges[:] = [copy.deepcopy(self).requires_grad_(False)]

    @contextmanager
    def features(self) -> Iterator[list[Tensor]]:
        """While open, each forward appends the states after the tapped layers, the last behind the final norm."""
        caught: list[Tensor] = []
        parts = [*(self.model.layers[i] for i in self.tapped_layers[:-1]), self.model.norm]
        hooks = [part.register_forward_hook(lambda _m, _i, out: caught.append(out)) for part in parts]
        try:
            yield caught
        finally:
            for hook in hooks:
                hook.remove()

    def segmented(self, ids_BT: Tensor, mask_BT: Tensor) -> Layout:
        """The layout of training rows: a quarter is prompt, the rest is segmented by the judge's entropies."""
        judge = self._judges[0] if self._judges else self
        with torch.no_grad():
            entropy = entropies(judge(input_ids=ids_BT, use_cache=False).logits).tolist()
        prompts, lengths = [], []
        for row, total in zip(entropy, mask_BT.sum(1).tolist(), strict=True):
            prompts.append(max(1, total // PROMPT_SHARE))
            lengths.append(segment_lengths(row[prompts[-1] : total], self.longest))
        return lay_out(prompts, lengths, ids_BT.shape[1], ids_BT.device)

    def written(self, ids_BT: Tensor, layout: Layout) -> tuple[Tensor, Tensor]:
        """The states ``[N, D]`` from which the answer tokens are read, row after row, and their stop logits ``[N]``."""
        grid, merged_BMD = self._merged_rows(ids_BT, layout)
        slots = merged_BMD.shape[1]
        with self.features() as caught:
            # Positions that jump would be taken for the seams of packed texts, so the mask is made here.
            causal = torch.ones(slots, slots, dtype=torch.bool, device=ids_BT.device).tril()[None, None]
            self.model(inputs_embeds=merged_BMD, position_ids=layout.end_BM, attention_mask=causal, use_cache=False)
        feature_BMKD = torch.stack(caught, 2)
        rows_BT = torch.arange(len(ids_BT), device=ids_BT.device)[:, None].expand_as(ids_BT)
        row_N, slot_N, place_N = (t[layout.answer_BT] for t in (rows_BT, layout.slot_BT, layout.place_BT))
        states_ND = feature_BMKD[row_N, slot_N - 1, -1]
        long_BM = layout.size_BM > 1
        if long_BM.any():
            # A segment of one token is read from the base's state alone, so only the others need the micro decoder.
            out_LSD = self.micro(feature_BMKD[:, :-1][long_BM[:, 1:]], grid[long_BM][:, :-1])
            number_BM = (long_BM.flatten().cumsum(0) - 1).clamp(min=0).view_as(long_BM)
            later_ND = out_LSD[number_BM[row_N, slot_N], place_N]
            states_ND = torch.where(place_N[:, None] > 0, later_ND, states_ND)
        return states_ND, self.micro.stop(states_ND)[:, 0]

    def _merged_rows(self, ids_BT: Tensor, layout: Layout) -> tuple[Tensor, Tensor]:
        """Embeddings by slot and place, ``[B, M, S, D]`` with 0 where there is no token, and merged ``[B, M, D]``."""
        embeds_BTD = self.model.embed_tokens(ids_BT)
        batch, slots = layout.size_BM.shape
        grid = embeds_BTD.new_zeros(batch, slots, int(layout.size_BM.max()), embeds_BTD.shape[-1])
        rows_BT = torch.arange(batch, device=ids_BT.device)[:, None].expand_as(ids_BT)
        real_BT = layout.place_BT < layout.size_BM.gather(1, layout.slot_BT)
        at = (rows_BT[real_BT], layout.slot_BT[real_BT], layout.place_BT[real_BT])
        grid = grid.index_put(at, embeds_BTD[real_BT])
        merged_BMD = grid[:, :, 0]
        long_BM = layout.size_BM > 1
        if long_BM.any():
            merged_LD = self.embedder(grid[long_BM], layout.size_BM[long_BM])
            merged_BMD = merged_BMD.index_put((long_BM,), merged_LD.to(merged_BMD.dtype))
        return grid, merged_BMD

    def loss(self, ids_BT: Tensor, layout: Layout) -> Tensor:
        """Cross-entropy of the answer tokens plus half the binary cross-entropy of where their segments end."""
        states_ND, stop_N = self.written(ids_BT, layout)
        token_loss = F.cross_entropy(self.lm_head(states_ND).float(), ids_BT[layout.answer_BT])
        known_N = layout.known_BT[layout.answer_BT]
        ends_N = layout.last_BT[layout.answer_BT].float()
        stop_loss = F.binary_cross_entropy_with_logits(stop_N[known_N].float(), ends_N[known_N])
        return token_loss + STOP_WEIGHT * stop_loss

    def merged(self, segment: Sequence[int]) -> Tensor:
        """The vector ``[1, 1, D]`` that stands for a segment."""
        embeds = self.model.embed_tokens(torch.tensor([list(segment)], device=self.device))
        if len(segment) == 1:
            return embeds  # type: ignore[no-any-return]
        return self.embedder(embeds, torch.tensor([len(segment)], device=self.device))[:, None]  # type: ignore[no-any-return]

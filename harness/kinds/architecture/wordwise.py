"""A model over words: bytes of a word become a few vectors, a backbone reads these, and the next word is spelt from it.

Ids from ``first_end`` on (beginning and end of a text, end of a word) end a word. The vectors of a word are read where
it ends, and nothing of it is seen by the backbone before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import DynamicCache

from harness.kinds.architecture.blocks import Blocks, initial_std
from harness.kinds.architecture.ragged import Segments, inside
from harness.kinds.architecture.stepwise import MainCounts, StepModel


def causal_by_word(queries: int, keys: int, slots: int, device: torch.device) -> Tensor:
    """``[1, 1, T, S]``: the last ``queries`` of ``keys`` places see all ``slots`` of their own word and before."""
    word_S = torch.arange(keys, device=device) // slots
    return (word_S[None] <= word_S[keys - queries :, None])[None, None]


@dataclass
class WordState:
    """What is carried of one row: the backbone's cache, from what the open word is spelt ``[1, n, C]``, its ids."""

    lead_1nC: Tensor
    cache: DynamicCache
    main: MainCounts
    word: list[int] = field(default_factory=list)


class WordModel(StepModel):
    """Encoder within words, backbone over words, decoder within words; one table of ids for all three.

    ``prefixes`` 0: a word's vector is the encoder's state at its last id. Else that many learnt vectors stand before
    the word in the encoder, and their states are the word's vectors.
    """

    def __init__(self, vocab_size: int, first_end: int, prefixes: int, parts: Sequence[Blocks]) -> None:
        super().__init__()
        self.first_end, self.slots = first_end, max(1, prefixes)
        self.encoder, self.backbone, self.decoder = parts
        inner, width = (blocks.norm.normalized_shape[0] for blocks in parts[:2])
        self.embed = nn.Embedding(vocab_size, inner)
        self.prefix = nn.Parameter(torch.empty(prefixes, inner))
        self.start = nn.Parameter(torch.empty(self.slots, width))
        for table in (self.embed.weight, self.prefix, self.start):
            nn.init.normal_(table, std=initial_std(table.shape[1]))
        self.up = nn.Identity() if inner == width else nn.Linear(inner, width, bias=False)
        self.down = nn.Identity() if inner == width else nn.Linear(width, inner, bias=False)

    def word_vectors(self, ids_BT: Tensor, segments: Segments) -> Tensor:
        """``[K, n, D]`` of each word, from its ids alone; of an open word they mean nothing."""
        lead_KnC = self.prefix.expand(len(segments.start_K), -1, -1)
        x_ND = self.embed(ids_BT.flatten())
        lead_KnC, x_ND = inside(self.encoder, lead_KnC, x_ND, segments, causal=False)
        if not len(self.prefix):
            lead_KnC = x_ND[segments.start_K + segments.length_K - 1, None]
        return self.up(lead_KnC)  # type: ignore[no-any-return]

    def spell(self, lead_KnC: Tensor, ids_BT: Tensor, segments: Segments) -> tuple[Tensor, Tensor]:
        """The decoder's states at each lead, ``[K, n, C]``, and after each id, ``[N, C]``."""
        return inside(self.decoder, lead_KnC, self.embed(ids_BT.flatten()), segments, causal=True)

    def think(self, vectors_BMnD: Tensor, cache: DynamicCache | None = None) -> Tensor:
        """The backbone over words' vectors, ``[B, M, n, C]``: from word m the word after it is spelt."""
        x_BTD = vectors_BMnD.flatten(1, 2)
        before = 0 if cache is None else cache.get_seq_length()
        seen = causal_by_word(x_BTD.shape[1], before + x_BTD.shape[1], self.slots, x_BTD.device)
        return self.down(self.backbone(x_BTD, mask=seen, cache=cache)).view(*vectors_BMnD.shape[:3], -1)  # type: ignore[no-any-return]

    def forward(self, ids_BT: Tensor) -> Tensor:
        """Logits ``[B, T, V]`` of the next id."""
        # One id more, so that the last has a successor to be read from; what it is changes nothing before it.
        ids_BT = F.pad(ids_BT, (0, 1))
        segments = Segments.after(ids_BT >= self.first_end)
        words = int(segments.number_K.max()) + 1
        vectors = self.word_vectors(ids_BT, segments)
        rows = self.start.to(vectors.dtype).repeat(len(ids_BT), words + 1, 1, 1)
        rows = rows.index_put((segments.row_K, segments.number_K + 1), vectors)
        lead_KnC = self.think(rows)[segments.row_K, segments.number_K]
        lead_KnC, after_NC = self.spell(lead_KnC, ids_BT, segments)
        before_NC = after_NC.roll(1, 0).index_put((segments.start_K,), lead_KnC[:, -1])
        return F.linear(before_NC, self.embed.weight).view(*ids_BT.shape, -1)[:, 1:]

    def begin(self) -> WordState:
        """The state before any id."""
        cache = DynamicCache()
        lead_1nC = self.think(self.start[None, None], cache)[:, 0]
        return WordState(lead_1nC, cache, main=MainCounts(1, cache.get_seq_length()))

    def read(self, ids: Sequence[int], state: WordState) -> Tensor:
        """Read some ids; the backbone runs where they end a word. Logits ``[V]`` of the next."""
        held = [*state.word, *ids]
        ended = max((i + 1 for i, token in enumerate(held) if token >= self.first_end), default=0)
        if ended:
            ids_1T = torch.tensor([held[:ended]], device=self.embed.weight.device)
            vectors_MnD = self.word_vectors(ids_1T, Segments.after(ids_1T >= self.first_end))
            state.lead_1nC = self.think(vectors_MnD[None], state.cache)[:, -1]
            state.main.forwards += 1
            state.main.slots = state.cache.get_seq_length()
        state.word = held[ended:]
        return self._next(state)

    def _next(self, state: WordState) -> Tensor:
        """Logits of the id after the open word; its ids are read again each time, as they are few."""
        ids_1T = torch.tensor([[*state.word]], dtype=torch.long, device=self.embed.weight.device)
        spelt = self.decoder(torch.cat([state.lead_1nC, self.embed(ids_1T)], 1))
        return F.linear(spelt[0, -1], self.embed.weight)

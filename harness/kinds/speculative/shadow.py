"""A draft that is not verified but compared with what plain steps emit: what drafting would have been worth."""

from __future__ import annotations

from dataclasses import dataclass

from harness.kinds.speculative.base import DraftTree


@dataclass
class Shadow:
    """A tree and how far the text has followed it. ``cost`` is what its width would have cost, in plain steps;
    ``promising`` is whether it would have been verified but for a rest."""

    tree: DraftTree
    cost: float
    promising: bool
    node: int = 0

    def follow(self, token: int) -> bool:
        """Go on by a token of the text; True where the tree has no such token there, so that its step would be over."""
        for child in self.tree.children[self.node]:
            if self.tree.tokens[child] == token:
                self.node = child
                return False
        return True

    @property
    def emitted(self) -> int:
        """Tokens that its step would have emitted: those it had right and the one after them."""
        return self.tree.depth[self.node] + 1

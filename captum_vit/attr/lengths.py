"""Lengths of what each token adds to a row: attention weighted by the vectors that it moves."""

from __future__ import annotations

from collections.abc import Iterable
from functools import reduce

import torch
from torch import Tensor, nn

from captum_vit.attr.base import TokenAttribution
from captum_vit.models.transformer import Transformer
from captum_vit.options import boolean, one_of
from captum_vit.trace.record.frozen_norm import frozen_norm
from captum_vit.trace.record.parts import Parts, attention_parts, branch_kinds, mid_kinds, stream_parts
from captum_vit.trace.record.record import Record, Want
from captum_vit.trace.record.rollout import Carry, maps_of_layers, rolled_out
from captum_vit.trace.run.layers import chosen_layers, listed
from captum_vit.trace.run.state import widened

AGGREGATIONS = ("rollout", "sum", "last")
NORMS = ("l1", "l2")


class PartsAttribution(TokenAttribution):
    """What the methods of this file share: a matrix for every block, of what each token adds to each row.

    An author writes ``_parts``, of one block, and ``_matrix``, some rows of its matrix, and chooses how matrices roll
    out. Rows that are not read are not computed: a map of one block needs only the head's row.
    """

    def __init__(
        self,
        forward_func: nn.Module,
        layers: Iterable[int] | None = None,
        *,
        aggregation: str = "rollout",
        output: str = "grid",
    ) -> None:
        super().__init__(forward_func, output=output)
        self.aggregation = one_of("aggregation", aggregation, AGGREGATIONS)
        self.layers = listed("layers", layers)

    def _kinds(self, transformer: Transformer) -> list[str]:
        """What must be seen of every block."""
        return mid_kinds(transformer)

    def _parts(self, found: Record, layer: int) -> Parts:
        """What each token adds to each row of a block."""
        return stream_parts(found, layer)

    def _matrix(self, found: Record, layer: int, T: Parts, rows: Tensor) -> Tensor:  # shape: (B, R, N)
        """Some rows of a block's matrix, not negative."""
        return T.lengths(rows)

    def _rolled_out(self, found: Record, layers: list[int]) -> Tensor:
        raise NotImplementedError

    def want(self, transformer: Transformer) -> Want:
        whole = self.aggregation == "rollout"
        return Want(seen=self._kinds(transformer), row="outputs", first_row=not whole, by_rows=whole)

    def _chosen(self, transformer: Transformer) -> list[int]:
        chosen = chosen_layers(transformer, self.layers)
        return chosen[-1:] if self.aggregation == "last" else chosen

    def start(self, transformer: Transformer) -> int:
        return self._chosen(transformer)[0]

    def relevance(self, found: Record) -> Tensor:
        chosen = self._chosen(found.transformer)
        if self.aggregation == "rollout":
            return self._rolled_out(found, chosen)
        return reduce(torch.add, maps_of_layers(found, self._carry(found), chosen))

    def layer_maps(self, found: Record) -> list[Tensor]:
        return maps_of_layers(found, self._carry(found))

    def _carry(self, found: Record, shared: bool = False) -> Carry:
        """A row times a block's matrix, or times that with each row scaled to sum 1."""

        def carry(row: Tensor, layer: int) -> Tensor:
            rows = row.flatten(0, 1).any(0).nonzero().squeeze(1)  # those that the row of any sample reads
            if not len(rows):
                return row
            T, read = self._parts(found, layer), []
            for some in rows.split(found.attention(layer).size):
                matrix = self._matrix(found, layer, T, some)
                read.append(row[..., some].to(matrix) @ (shares(matrix) if shared else matrix))
            return reduce(torch.add, read)

        return carry


class AttIN(PartsAttribution):
    r"""Attention x input norm: how long a vector each token sends to the head's row in one block.

    .. math:: M_{ij} = \Big\| \sum_h A^h_{ij}\, (W_V^h \hat x_j + b_V^h)\, W_O^h \Big\|_2

    A token with much attention and a short vector counts little; ``x^`` is what the attention reads, and where
    there is LayerScale it counts. The map is the CLS row of M (or the rows that the pooling reads). Not negative, in
    the units of the residual stream; the same for every target.

    Costs one forward pass. Lengths come from H x H Gram matrices of each token's own vectors: no N x N x D tensor,
    and no more than 4 N vectors of full width at a time. For one block, or a sum, only the head's row is computed.

    Departs from common implementations, which form all N x N x D vectors, for all heads at once: the lengths are the
    same. The residual stream has no part in M; in a rollout it is an equal partner, :math:`\tfrac12 (M' + I)` with rows
    of M' that sum to 1, as in :class:`AttentionRollout`.

    Args:
        forward_func: the model, or a target module around it.
        layers: the blocks that take part; all of them by default.
        aggregation: ``"last"``, only the last of these blocks; ``"sum"``, as PLUS does; ``"rollout"``.
        output: see :class:`TokenAttribution`.

    Raises:
        UnsupportedModelError: something else than the output projection stands behind the heads.

    Source: Kobayashi et al., Attention is Not Only a Weight: Analyzing Transformers with Vector Norms.
    """

    def __init__(
        self,
        forward_func: nn.Module,
        layers: Iterable[int] | None = None,
        *,
        aggregation: str = "last",
        output: str = "grid",
    ) -> None:
        super().__init__(forward_func, layers, aggregation=aggregation, output=output)

    def _kinds(self, transformer: Transformer) -> list[str]:
        return ["probs", "values", *branch_kinds(transformer)]

    def _parts(self, found: Record, layer: int) -> Parts:
        return attention_parts(found, layer)

    def _rolled_out(self, found: Record, layers: list[int]) -> Tensor:
        return rolled_out(found, self._carry(found, shared=True), stream=0.5, branch=0.5, layers=layers)


class GlobEnc(PartsAttribution):
    r"""How long a part of each row comes from each token, through attention, residual stream and norms, rolled out.

    .. math:: M_{ij} = \|T_{ij}\|_2, \qquad T_{ij} = [i = j]\,x_i + \sum_h A^h_{ij}\, (W_V^h \hat x_j + b_V^h)\, W_O^h

    In a pre-norm block the parts of a row, with the output projection's bias, sum to the stream between attention and
    feed-forward. In a post-norm block (BERT) T goes through both norms of the block, whose deviations are
    constants: T becomes LN2(LN1(T)) without biases, as in the source; the feed-forward itself is left out.

    The rollout is the head's row of the plain product of all M, since the residual stream is within T, divided by
    its sum: a share of 1 over all tokens. One-layer maps (PLUS, ``"sum"``, ``"last"``) are lengths in the units of
    the stream. Where a pre-norm model reads its CLS token, the stream is only in CLS's own entry, so the patches of
    such a map are those of :class:`AttIN`. Not negative; the same for every target.

    Costs one forward pass and, in each block, lengths from Gram matrices of each token's H + 1 vectors: no N x N x D
    tensor, and no more than 4 N vectors of full width at a time. A sum computes only the head's row.

    Departs from common implementations in three places. The product there is not divided by its sum, the source's
    neither, and overflows in deep models; the order of tokens is the same. The code of the SkipPLUS paper gives the
    bias of the values to no token; here, as in the source, it belongs to the tokens that carry it. In pre-norm blocks
    that code adds what the second norm makes of T, as it skips the feed-forward but not its norm:
    ``include_ln2=True`` does so too.

    Args:
        forward_func: the model, or a target module around it.
        layers: the blocks that take part; all of them by default.
        aggregation: ``"rollout"``; ``"sum"``, as PLUS does; ``"last"``, only the last of these blocks.
        include_ln2: post-norm: T passes the second norm too. Pre-norm: T + LN2(T). None is True for post-norm models
            and False for pre-norm ones.
        output: see :class:`TokenAttribution`.

    Raises:
        UnsupportedModelError: something else than the output projection stands behind the heads, or a norm to pass does
            more than to divide a token by a number and to weigh its channels.

    Source: Modarressi et al., GlobEnc: Quantifying Global Token Attribution by Incorporating the Whole Encoder Layer.
    """

    def __init__(
        self,
        forward_func: nn.Module,
        layers: Iterable[int] | None = None,
        *,
        aggregation: str = "rollout",
        include_ln2: bool | None = None,
        output: str = "grid",
    ) -> None:
        super().__init__(forward_func, layers, aggregation=aggregation, output=output)
        self.include_ln2 = None if include_ln2 is None else boolean("include_ln2", include_ln2)

    def _passes_ln2(self, transformer: Transformer) -> bool:
        return transformer.post_norm if self.include_ln2 is None else self.include_ln2

    def _kinds(self, transformer: Transformer) -> list[str]:
        read = ["before_norm" if transformer.post_norm else "mid"] if self._passes_ln2(transformer) else []
        return [*super()._kinds(transformer), *read]

    def _parts(self, found: Record, layer: int) -> Parts:
        T, transformer = super()._parts(found, layer), found.transformer
        if not self._passes_ln2(transformer):
            return T
        if transformer.post_norm:
            return T.through(frozen_norm(transformer.part(layer, "last_norm"), found.seen["before_norm"][layer]))
        return T.plus(T.through(frozen_norm(transformer.part(layer, "mid_norm"), found.seen["mid"][layer])))

    def _rolled_out(self, found: Record, layers: list[int]) -> Tensor:
        carry = self._carry(found)
        return rolled_out(found, lambda row, layer: shares(carry(row, layer)), stream=0, layers=layers)


class ALTI(PartsAttribution):
    r"""How much of each row every token accounts for, by the distance it leaves, rolled out.

    .. math:: M_{ij} = \frac{m_{ij}}{\sum_k m_{ik}}, \qquad m_{ij} = \big(\|y_i\|_1 - \|y_i - T_{ij}\|_1\big)^+

    ``y_i`` is the whole stream between attention and feed-forward, biases included, and ``T_ij`` the part of it that
    comes from token j, as in :class:`GlobEnc`; in a post-norm block (BERT) both stand behind the first norm. A part
    that points away from y counts as nothing. Rows sum to 1, so the map is a share of 1 over all tokens. Not
    negative; the same for every target. Rolled out, the cut at zero can leave few tokens (SkipPLUS paper, section 5).

    Costs one forward pass and, in each block, every vector T once, since a sum of absolute values has no Gram form:
    N x N x (H + 1) x D multiplications, which is most of the time. No more than 4 N of these vectors exist at a
    time: memory is O(N D), not O(N x N x D). ``norm="l2"`` takes Euclidean norms, from Gram matrices, which is much
    cheaper. A sum (PLUS) computes only the head's row, which is cheap for either.

    Departs from common implementations in three places. A row in which every part was cut is zero here, and 0 / 0
    there. The code of the SkipPLUS paper measures the distance to the block's output, feed-forward included, though
    no part has it; here, as in the source, y is what the parts and the biases sum to. That code gives the bias of the
    values to no token; here it belongs to the tokens that carry it.

    Args:
        forward_func: the model, or a target module around it.
        layers: the blocks that take part; all of them by default.
        aggregation: ``"rollout"``; ``"sum"``, as PLUS does; ``"last"``, only the last of these blocks.
        norm: ``"l1"``, the source's, or ``"l2"``, to which it compares.
        output: see :class:`TokenAttribution`.

    Raises:
        UnsupportedModelError: something else than the output projection stands behind the heads.

    Source: Ferrando et al., Measuring the Mixing of Contextual Information in the Transformer.
    """

    def __init__(
        self,
        forward_func: nn.Module,
        layers: Iterable[int] | None = None,
        *,
        aggregation: str = "rollout",
        norm: str = "l1",
        output: str = "grid",
    ) -> None:
        super().__init__(forward_func, layers, aggregation=aggregation, output=output)
        self.norm = one_of("norm", norm, NORMS)

    def _kinds(self, transformer: Transformer) -> list[str]:
        return [*super()._kinds(transformer), "mid"]

    def _matrix(self, found: Record, layer: int, T: Parts, rows: Tensor) -> Tensor:
        y = widened(found.seen["mid"][layer])[:, rows]
        nearer = T.nearer_by_sums(rows, y) if self.norm == "l1" else T.nearer_by_lengths(rows, y)
        return shares(nearer.clamp(min=0))

    def _rolled_out(self, found: Record, layers: list[int]) -> Tensor:
        return rolled_out(found, self._carry(found), stream=0, layers=layers)


def shares(rows: Tensor) -> Tensor:
    """Rows that are not negative scaled to sum 1; a row of zeros stays."""
    return rows / rows.sum(-1, keepdim=True).clamp_min(torch.finfo(rows.dtype).tiny)

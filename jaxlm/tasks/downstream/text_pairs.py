"""Rows of an encoder-decoder from pairs of source and target: framed, cut, one pair a row or several."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from jaxlm.data.documents import TokenDocuments, TwoTokenizations
from jaxlm.data.frames import Edges
from jaxlm.data.loader import Batch
from jaxlm.data.packing import Packing
from jaxlm.data.rows import PairRows

# rows that are not packed are as long as the longest text, rounded up to a multiple of this
_STEP = 16


@dataclasses.dataclass(frozen=True)
class Side:
    """All sources, or all targets: ids with their control tokens."""

    docs: TokenDocuments
    # number of texts that were cut, and the length to which they were
    cut: int
    limit: int

    @classmethod
    def of(cls, texts: Sequence[np.ndarray], edges: Edges, longest: int) -> Side:
        """Frames texts and cuts those that are longer than `longest` with their control tokens.

        Raises:
            ValueError: there is no room for text.
        """
        before, after = edges
        room = longest - len(before) - len(after)
        if room < 1:
            raise ValueError(
                f"no room for text in {longest} tokens beside {longest - room} control tokens: raise data.seq_len or "
                "task.target_len"
            )
        framed = [np.array([*before, *ids[:room], *after], np.int32) for ids in texts]
        ends = np.cumsum([len(ids) for ids in framed], dtype=np.int64)
        tokens = np.concatenate([np.zeros(0, np.int32), *framed])
        cut = sum(len(ids) > room for ids in texts)
        return cls(TokenDocuments(tokens, ends), cut, longest)

    @property
    def longest(self) -> int:
        """Length of a row that holds any one of them."""
        return min(-(-int(self.docs.lengths.max(initial=1)) // _STEP) * _STEP, self.limit)


@dataclasses.dataclass(frozen=True)
class TextPairs:
    """Rows of pairs; without packing row i is pair i."""

    packed: PairRows
    # about the pairs, for people
    note: str
    # whether the rows have targets
    has_targets: bool = True
    # sources that have as many tokens as one may have, and that number
    full_sources: int = 0
    source_limit: int = 0

    @classmethod
    def of(
        cls,
        sources: Side,
        targets: Side | None,
        *,
        capacities: tuple[int, int] | None,
        pad_id: int,
        start_id: int,
    ) -> TextPairs:
        """Makes rows.

        Args:
            sources: of all pairs.
            targets: of all pairs; None: there are none, to predict them.
            capacities: source and target tokens of a row into which pairs are packed; None: one pair a row.
            pad_id: fills up rows.
            start_id: the decoder's first token.
        """
        written = sources if targets is None else targets
        both = TwoTokenizations(sources.docs, written.docs)
        if capacities is not None:
            packed = PairRows.of_two(
                both,
                sources.docs.lengths,
                written.docs.lengths,
                input_capacity=capacities[0],
                target_capacity=capacities[1],
                pad_ids=(pad_id, pad_id),
                start_id=start_id,
            )
        else:
            packed = _one_pair_a_row(both, (sources.longest, written.longest), pad_id, start_id)
        note = f"{len(both):,} pairs"
        for name, side in (("sources", sources), ("targets", targets)):
            if side is not None and side.cut:
                note += (
                    f"; {_percent(side.cut, len(both))} of the {name} cut to {side.limit} tokens"
                )
        full = int((sources.docs.lengths >= sources.limit).sum())
        return cls(packed, note, targets is not None, full, sources.limit)

    def __len__(self) -> int:
        return len(self.packed)

    def owners(self) -> np.ndarray | None:
        """The pair that each row is of [rows]; None: rows may be of several."""
        return self.packed.owners()

    def describe(self, examples: int) -> str:
        """Pairs, rows and what was cut, in one line."""
        return f"{self.note}; {self.packed.describe(examples)}"

    def rows(self, indices: np.ndarray, epochs: np.ndarray) -> Batch:
        """Rows for `EncoderDecoderTask.loss`; without targets only what the encoder reads."""
        members = self.packed.members(indices)
        batch = self.packed.build_rows(
            self.packed.take_read(members), self.packed.take(members), members
        )
        if self.has_targets:
            return batch
        return {name: batch[name] for name in ("tokens", "segment_ids", "positions")}


def _one_pair_a_row(
    both: TwoTokenizations, capacities: tuple[int, int], pad_id: int, start_id: int
) -> PairRows:
    count = len(both)
    full = [
        side.num_tokens / max(1, count * capacity)
        for side, capacity in zip((both.read, both.written), capacities)
    ]
    return PairRows(
        both.written,
        Packing(np.arange(count), np.arange(1, count + 1), np.zeros(0, np.int64)),
        *capacities,
        pad_id=pad_id,
        start_id=start_id,
        efficiency=(full[0], full[1]),
        read=both.read,
        read_pad_id=pad_id,
    )


def _percent(part: int, whole: int) -> str:
    """A fraction in percent that is never rounded to nothing."""
    return f"{100 * part / whole:.2g} %"

"""TxT for a whole transcriptome: genes attend within their sets, and sets tell each other through a token each.

The authors name hierarchical attention as a way past a subset of genes (bbaf628, Discussion) and leave its form open.
This form is ours, of TxT's own blocks, with S sets of genes that may overlap. A set's token stands for the set as a
vector stands for a gene: it is learned, and its expression is the mean over the set (of the columns that Position
makes of it). One layer takes two steps:

    within    a block over each set, of its token and its genes; a gene in several sets takes the mean of its copies
    between   a block over the S tokens, with weights of its own

So a gene hears of the genes of its sets after one layer and of all others after two. The last layer has no step
between: nobody would hear of it. Why a token has the mean of expression, not 0: in the first layer only scores differ
between patients, so a token at 0 would leave it equal for everybody, and between sets news would take three layers.

With one set of all genes this is TxT on G + 1 genes, of which the token is one, but for the token's own steps between.
"""

import operator
from collections import Counter
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from txtlib.model import Block, TxT

SLACK = 0.8  # the shortest set of a batch has this part of the length of the longest, or more
NEVER = -1e30  # the score of a padded key: below any real one, also in bfloat16, so its weight is exactly 0


def sets_for(genes, gene_sets: dict[str, list[str]], rest: int = 128) -> list[list[int]]:
    """Return sets of columns that cover all ``genes``, from named sets of genes as ``read_gene_sets`` returns them.

    Each named set is cut down to the genes at hand and goes if none is left. Genes of no set (all, if none is
    named) follow in the fewest sets of at most ``rest``, about equal in size, in their order. Raises ValueError for
    a gene that is there twice, a ``rest`` below 1, and named sets without any of the genes.
    """
    column = {gene: number for number, gene in enumerate(genes)}
    twice = [gene for gene, count in Counter(genes).items() if count > 1]
    if twice:
        raise ValueError(f"Gene {twice[0]!r} stands there more than once; give each gene once.")
    if rest < 1:
        raise ValueError(f"rest is {rest}; sets of the remaining genes need room for 1 gene or more.")
    named = [sorted({column[gene] for gene in members if gene in column}) for members in gene_sets.values()]
    sets = [members for members in named if members]
    if gene_sets and not sets:
        raise ValueError(
            f"None of the {len(column)} genes (the first is {next(iter(column), 'missing')}) is in any of the "
            f"{len(gene_sets)} gene sets; use sets with the same kind of gene names."
        )
    left = sorted(set(column.values()).difference(*sets))
    pieces = -(-len(left) // rest)
    cuts = [len(left) * piece // pieces for piece in range(pieces + 1)] if pieces else []
    return sets + [left[a:b] for a, b in pairwise(cuts)]


def score_entries(sets: list[list[int]]) -> int:
    """Count the attention scores of one layer, patient and head: sum of (size + 1)^2 over sets, and S^2 between them.

    TxT has G^2. Not counted: padding, at most a quarter of a set's length, and that the last layer has no S^2.
    """
    return sum((len(genes) + 1) ** 2 for genes in sets) + len(sets) ** 2


def attend_in_sets(network: TxT, sets: list[list[int]]) -> None:
    """Put the network's blocks into layers over sets of columns, in place; ``variant(..., sets=...)`` calls this.

    The blocks keep their weights. Tokens start at the mean of their genes' vectors, the blocks between are drawn from
    torch's global generator. Raises ValueError for a set that is empty, holds a column twice or one that is not
    there, for a column in no set, and for a network with sets.
    """
    if "sets" in network.settings:
        raise ValueError("The network's genes already attend in sets; build a new one for other sets.")
    sets = [_columns(genes, network.settings["n_genes"]) for genes in sets]
    _check_covered(sets, network.settings["n_genes"])
    rows = Rows(sets, network.settings["n_genes"])
    last = len(network.blocks) - 1
    network.blocks = nn.ModuleList(
        SetBlock(within, rows, None if number == last else _new_block(network.settings))
        for number, within in enumerate(network.blocks)
    )
    for layer in network.blocks[:1]:
        layer.tokens = nn.Parameter(torch.stack([network.vectors.detach()[genes].mean(0) for genes in sets]))  # (S, d)
    network.settings["sets"] = sets


class SetBlock(nn.Module):
    """A layer over sets. The first one has ``tokens`` (S, d) and brings them in; the last has no block between."""

    def __init__(self, within: Block, rows: "Rows", between: Block | None):
        super().__init__()
        self.within, self.rows, self.between = within, rows, between
        self.register_parameter("tokens", None)

    def forward(self, hidden: Tensor, query_position: Tensor, key_position: Tensor) -> Tensor:
        """Map hidden (B, G, d) in the first layer, (B, G + S, d) later, to (B, G + S, d), in the last to (B, G, d).

        The positions are the genes' columns, (B, H, G, m).
        """
        if self.tokens is not None:
            hidden = torch.cat([hidden, self.tokens.expand(len(hidden), -1, -1)], 1)  # (B, G + S, d)
        q, k = (self.rows.with_tokens(columns) for columns in (query_position, key_position))  # (B, H, G + S, m)
        copies = torch.cat([batch(self.within, hidden, q, k) for batch in self.rows.batches], 1)  # (B, P, d)
        n_genes = query_position.shape[2]
        genes, tokens = self.rows.mean_of_copies(copies).tensor_split([n_genes], 1)  # (B, G, d), (B, S, d)
        if self.between is None:
            return genes
        return torch.cat([genes, self.between(tokens, q[:, :, n_genes:], k[:, :, n_genes:])], 1)

    def project(self, *_) -> None:
        """Raise ValueError: there are no scores between all genes, so ``TxT.attention`` has nothing to return."""
        raise ValueError("A network with sets has no attention between all genes; look at a TxT without sets.")


class Rows(nn.Module):
    """Which rows each set has among G genes and S tokens, the token of set s being row G + s."""

    def __init__(self, sets: list[list[int]], n_genes: int):
        super().__init__()
        self.n_rows = n_genes + len(sets)
        sizes = torch.tensor([len(genes) for genes in sets])
        ordered = sorted((torch.tensor([n_genes + s, *genes]) for s, genes in enumerate(sets)), key=len)
        self.batches = nn.ModuleList(Batch(members) for members in _alike(ordered))
        copies = torch.cat([batch.targets(self.n_rows) for batch in self.batches])  # (P,)
        self.register_buffer("copies", copies, persistent=False)
        self.register_buffer("n_copies", copies.bincount(minlength=self.n_rows + 1)[:-1, None], persistent=False)
        self.register_buffer("genes", torch.tensor([gene for genes in sets for gene in genes]), persistent=False)
        self.register_buffer("set_of", torch.arange(len(sets)).repeat_interleave(sizes), persistent=False)
        self.register_buffer("sizes", sizes[:, None], persistent=False)

    def with_tokens(self, columns: Tensor) -> Tensor:
        """Add to the genes' columns (B, H, G, m) those of the tokens, their genes' mean: (B, H, G + S, m)."""
        tokens = columns.new_zeros(*columns.shape[:2], len(self.sizes), columns.shape[3])  # (B, H, S, m)
        tokens = tokens.index_add(2, self.set_of, columns.index_select(2, self.genes)) / self.sizes
        return torch.cat([columns, tokens], 2)

    def mean_of_copies(self, copies: Tensor) -> Tensor:
        """Map what all batches return, (B, P, d), to one vector per gene and token, (B, G + S, d)."""
        total = copies.new_zeros(len(copies), self.n_rows + 1, copies.shape[2])  # the last row is for the padding
        return total.index_add(1, self.copies, copies)[:, :-1] / self.n_copies


class Batch(nn.Module):
    """S' sets of about one size M: ``rows`` (S', M) holds each one's token, its genes, and the token again as padding.

    As a key, padding has the score NEVER, by one more column of queries (1) and keys; as a query it is not read.
    """

    def __init__(self, members: list[Tensor]):
        super().__init__()
        rows = pad_sequence(members, batch_first=True, padding_value=-1)
        self.register_buffer("real", rows >= 0, persistent=False)
        self.register_buffer("rows", torch.where(self.real, rows, rows[:, :1]), persistent=False)

    def forward(self, block: Block, hidden: Tensor, query_position: Tensor, key_position: Tensor) -> Tensor:
        """Run the block over each set: hidden (B, G + S, d) and columns (B, H, G + S, m) to (B, S' * M, d)."""
        own, q, k = (self._take(values) for values in (hidden, query_position, key_position))
        shut = torch.where(self.real, 0.0, NEVER).to(k.dtype).repeat(len(hidden), 1)  # (B * S', M)
        shut = shut[:, None, :, None].expand(-1, k.shape[1], -1, -1)  # (B * S', H, M, 1)
        own = block(own, torch.cat([q, torch.ones_like(shut)], -1), torch.cat([k, shut], -1))  # (B * S', M, d)
        return own.unflatten(0, (len(hidden), -1)).flatten(1, 2)

    def targets(self, padding: int) -> Tensor:
        """Return the row that each of the S' * M results belongs to, ``padding`` for those that belong to none."""
        return torch.where(self.real, self.rows, padding).flatten()

    def _take(self, values: Tensor) -> Tensor:
        taken = values.index_select(-2, self.rows.flatten()).unflatten(-2, self.rows.shape)  # (B, ..., S', M, n)
        return taken.movedim(-3, 1).flatten(0, 1)  # (B * S', ..., M, n)


def _alike(ordered: list[Tensor]) -> list[list[Tensor]]:
    batches = [[ordered[-1]]]
    for members in reversed(ordered[:-1]):  # from long to short: the first of a batch is its longest
        if len(members) < SLACK * len(batches[-1][0]):
            batches.append([])
        batches[-1].append(members)
    return batches


def _new_block(settings: dict) -> Block:
    block = Block(settings["width"], settings["heads"], settings["dropout"])
    for parameter in block.parameters():
        if parameter.dim() > 1:
            nn.init.xavier_uniform_(parameter)  # as TxT does
    return block


def _columns(genes: list[int], n_genes: int) -> list[int]:
    try:
        genes = [operator.index(gene) for gene in genes]  # plain numbers, which a file can hold
    except TypeError as error:
        raise ValueError(f"A set is a list of column numbers ({error}); sets_for makes them of names.") from error
    wrong = [gene for gene in genes if not 0 <= gene < n_genes]
    if wrong:
        raise ValueError(f"A set holds column {wrong[0]}, and the network has columns 0 to {n_genes - 1}.")
    if not genes or len(set(genes)) < len(genes):
        raise ValueError(f"A set must hold one column or more, each once, not {genes[:10]}.")
    return genes


def _check_covered(sets: list[list[int]], n_genes: int) -> None:
    left = sorted(set(range(n_genes)).difference(*sets))
    if left:
        raise ValueError(f"{len(left)} genes are in no set (the first is column {left[0]}); sets_for covers them all.")

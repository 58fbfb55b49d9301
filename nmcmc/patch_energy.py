"""Energies of every value of a token, given the spins around it: what priors, labels and rewards are made of."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from mc.hamiltonian import Hamiltonian
from nmcmc.tokens import Tokens


class PatchEnergy(nn.Module):
    """-beta E_j(a | spins around token j) for all values a of every token j.

    around="past": each interaction counts for the last token it touches, so sum_j E_j(t_j | past) = E(s) - constant
    (arXiv:2604.27738 eq. 14, plus the bonds round a periodic lattice and any order of interaction).
    around="all": every interaction that touches the token counts; softmax over a is then the heat-bath law of the
    token given all other spins.

    An interaction is a product (spins of the token) x (spins around it). The products of spins around are called
    features here: features (batch, n_features) times a table (n_features, vocabulary) is all that is left to do.
    """

    def __init__(self, hamiltonian: Hamiltonian, tokens: Tokens, beta: float, around: str):
        super().__init__()
        if around not in ("past", "all"):
            raise ValueError(f"around={around}: past or all is needed")
        self.n_spins, self.k, self.vocabulary = tokens.n_spins, tokens.k, tokens.vocabulary
        index, table, inside = _feature_tables(hamiltonian, tokens, around)
        # (tokens, features, width), padded with n_spins: the row of ones behind all spins
        self.register_buffer("feature_sites", torch.from_numpy(index), persistent=False)
        self.register_buffer("table", torch.from_numpy(beta * table).float(), persistent=False)  # (T, F, V)
        self.register_buffer("inside", torch.from_numpy(beta * inside).float(), persistent=False)  # (T, V)

    def of_token(self, rows: Tensor, j: int) -> Tensor:
        """rows (n_spins + 1, batch) from `site_rows` -> (batch, vocabulary)."""
        return torch.addmm(self.inside[j], self._features(rows, self.feature_sites[j]).T, self.table[j])

    def of_all(self, rows: Tensor) -> Tensor:
        """rows (n_spins + 1, batch) -> (n_tokens, batch, vocabulary)."""
        around = self._features(rows, self.feature_sites)  # (T, F, batch)
        return torch.baddbmm(self.inside[:, None, :], around.transpose(1, 2), self.table)

    def of_given(self, rows: Tensor, tokens: Tensor) -> Tensor:
        """The same of given tokens (batch, n_tokens) alone, (batch, n_tokens), without an array over all values."""
        around = self._features(rows, self.feature_sites)  # (T, F, batch)
        chosen = self.table.gather(2, tokens.T[:, None].expand_as(around))
        return ((around * chosen).sum(1) + self.inside.gather(1, tokens.T)).T

    def _features(self, rows: Tensor, sites: Tensor) -> Tensor:
        return rows[sites[..., 0]] if sites.shape[-1] == 1 else rows[sites].prod(-2)


def site_rows(spins: Tensor) -> Tensor:
    """States (batch, n_spins) of +-1 as float32 rows, one a site, and a last row of ones: (n_spins + 1, batch).

    Gathering the neighbours of a token then copies whole rows, which is several times faster than columns.
    """
    return nn.functional.pad(spins.float().T, (0, 0, 0, 1), value=1.0)


def _feature_tables(
    hamiltonian: Hamiltonian, tokens: Tokens, around: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Feature sites (T, F, width) and sum J prod s as tables: around (T, F, V), inside (T, V)."""
    n_spins, n_tokens, vocabulary = tokens.n_spins, tokens.n_tokens, tokens.vocabulary
    token_of, bit_of = np.empty(n_spins, np.int64), np.empty(n_spins, np.int64)
    token_of[tokens.sites] = np.arange(n_tokens)[:, None]
    bit_of[tokens.sites] = np.arange(tokens.k)
    width = max(hamiltonian.max_order - 1, 1)
    owners, rests, members, strengths = [], [], [], []
    for order, (sites, couplings) in hamiltonian.interactions.items():
        touched = token_of[sites]  # (n, order)
        for column in range(order):
            owner = touched[:, column]
            # Take each (interaction, token) pair once, at the first column that lies in the token.
            take = ~(touched[:, :column] == owner[:, None]).any(axis=1)
            if around == "past":
                take &= owner == touched.max(axis=1)
            own = touched[take] == owner[take, None]
            rest = np.full((take.sum(), width + 1), n_spins)
            rest[:, :order] = np.sort(np.where(own, n_spins, sites[take]), axis=1)
            owners.append(owner[take])
            rests.append(rest[:, :width])
            members.append(np.where(own, 1 << bit_of[sites[take]], 0).sum(axis=1))
            strengths.append(couplings[take])
    if not owners:
        empty = np.full((n_tokens, 1, 1), n_spins)
        return empty, np.zeros((n_tokens, 1, vocabulary)), np.zeros((n_tokens, vocabulary))
    owner, rest = np.concatenate(owners), np.concatenate(rests)
    member, strength = np.concatenate(members), np.concatenate(strengths)
    keys, feature = np.unique(np.c_[owner, rest], axis=0, return_inverse=True)
    feature = feature.reshape(-1)
    first = np.searchsorted(keys[:, 0], np.arange(n_tokens + 1))
    n_features = max(int(np.diff(first).max()), 1)
    slot = np.arange(len(keys)) - first[keys[:, 0]]
    index = np.full((n_tokens, n_features, width), n_spins)
    index[keys[:, 0], slot] = keys[:, 1:]
    table = np.zeros((n_tokens, n_features, vocabulary))
    for part in np.array_split(np.arange(len(owner)), 1 + len(owner) * vocabulary // 10_000_000):
        which = feature[part]
        signs = _subset_signs(member[part], vocabulary)
        np.add.at(table, (keys[which, 0], slot[which]), strength[part, None] * signs)
    # A feature without sites is the constant 1: the energy of the token with itself.
    alone = (index == n_spins).all(axis=2)
    inside = np.where(alone[..., None], table, 0.0).sum(axis=1)
    return index, np.where(alone[..., None], 0.0, table), inside


def _subset_signs(members: np.ndarray, vocabulary: int) -> np.ndarray:
    """Product of the spins in each subset of bits `members` (n,), for every token value: (n, vocabulary)."""
    minus = ~np.arange(vocabulary)[None, :] & members[:, None]
    return 1.0 - 2.0 * (np.bitwise_count(minus) % 2)

"""Message passing among the spins that are not drawn yet: the prior for three dimensions and for graphs.

The exact log-odds of spin i are 2 a_i, a_i half the log ratio of two partition functions of the spins still to come.
Leave i out of them: its neighbours j then feel fields H_j (times beta), and if they were independent

    a_i = h_i + sum_j atanh(tanh(beta J_ij) tanh H_j),                   h_i: the external field and the drawn spins.

sweeps = 0 takes H_j = h_j. On sparse graphs H_j comes from belief propagation (Mezard and Montanari, "Information,
Physics, and Computation", 2009, ch. 14): exact on trees. Messages stay from one spin to the next, and only those
near the current and the previous spin are renewed, in shells of distance from the two: outward, then inward.
Dense graphs take the Thouless-Anderson-Palmer equations instead, iterated as Bolthausen does (Commun. Math. Phys.
325, 333 (2014)): the reaction term has the magnetisation of one iteration earlier, without which warm starts diverge.

Neighbours on a short loop are not independent. Let l J_ij act in place of i: as -l and l are the nodes of Gauss's
two-point rule, d a_i / d l = sum_j beta J_ij m_j(l) integrates to a_i. What the loops of three and four bonds through
i change in m_j is added to the formula above: nothing on trees, a quarter less of the KL divergence on lattices.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from mc.hamiltonian import Hamiltonian
from nmcmc.priors.base import PriorState, SpinPrior
from nmcmc.priors.belief_graph import Graph, Lists, Step, step_lists
from nmcmc.tokens import Tokens

DENSE = 16  # neighbours a spin, on average, beyond which TAP is as good as messages and 20 times cheaper
DENSE_SWEEPS, SPARSE_SWEEPS = 5, 2
KEPT = 0.2  # of the old message or field: without it iterations oscillate in the spin-glass phase
FADE = 0.7  # of old messages before they are renewed, lest they feed themselves round the loops
STRONGEST = 40.0  # fields beyond this (times beta) count as this: e^-80 still fits float32
CLAMP = 3.0**-0.5  # node of the two-point Gauss rule on [-1, 1]


def belief_refusal(hamiltonian: Hamiltonian) -> str:
    """Why the prior does not apply to this model, with the remedy; "" where it does."""
    if hamiltonian.is_pairwise:
        return ""
    return f"prior=belief needs bonds and fields only, not terms of {hamiltonian.max_order} spins; use prior=local"


class BeliefPrior(SpinPrior):
    """Log-odds of each spin from belief propagation (sparse graphs) or TAP (dense graphs) on the undrawn spins.

    sweeps: renewals of messages, or TAP iterations, a spin; 0 for the one-hop formula; default 2 sparse, 5 dense.
    radius: bonds from the current or the previous spin within which messages are renewed; default sweeps + 1.
    Raises ValueError for interactions of three or more spins, sweeps < 0 or radius < 1.
    """

    def __init__(
        self,
        hamiltonian: Hamiltonian,
        tokens: Tokens,
        beta: float,
        sweeps: int | None = None,
        radius: int | None = None,
    ):
        super().__init__(tokens)
        if refusal := belief_refusal(hamiltonian):
            raise ValueError(refusal)
        dense = 2 * len(hamiltonian.bonds[1]) > DENSE * hamiltonian.n_spins
        sweeps = (DENSE_SWEEPS if dense else SPARSE_SWEEPS) if sweeps is None else sweeps
        radius = sweeps + 1 if radius is None else radius
        if sweeps < 0:
            raise ValueError(f"prior=belief: sweeps={sweeps}: 0 (one hop) or more is needed")
        if radius < 1:
            raise ValueError(f"prior=belief: radius={radius}: at least 1 bond is needed")
        order = tokens.sites.reshape(-1)
        place = np.empty(tokens.n_spins, np.int64)
        place[order] = np.arange(tokens.n_spins)
        bonds, couplings = place[hamiltonian.bonds[0]], beta * hamiltonian.bonds[1]
        fields = torch.from_numpy(beta * hamiltonian.fields[order]).float()
        make = DenseFields if dense else SparseFields
        self.undrawn = make(bonds, couplings, fields, sweeps, radius)

    @torch.no_grad()
    def start(self, batch: int) -> PriorState:
        """The state before anything is drawn; notes: fields and messages, (rows, batch), and the next log-odds."""
        state = super().start(batch)
        self.undrawn.start(state.notes, batch)
        state.notes["log_odds"] = 2.0 * self.undrawn.field(state.notes, 0)
        return state

    def log_odds(self, state: PriorState, n: int) -> Tensor:
        # `start` and `advance` have found them, so that a caller who needs none for a spin leaves the same messages.
        return state.notes["log_odds"]

    @torch.no_grad()
    def advance(self, state: PriorState, n: int, spin: Tensor) -> None:
        super().advance(state, n, spin)
        if n + 1 < self.tokens.n_spins:
            self.undrawn.fix(state.notes, n, spin.float())
            state.notes["log_odds"] = 2.0 * self.undrawn.field(state.notes, n + 1)

    @torch.no_grad()
    def log_odds_of(self, spins: Tensor) -> Tensor:
        state = self.start(len(spins))
        result = torch.empty(len(spins), self.tokens.n_spins, device=spins.device)
        for n, site in enumerate(self.tokens.sites.reshape(-1)):
            result[:, n] = self.log_odds(state, n)
            self.advance(state, n, spins[:, site])
        return result


def bond_tables(couplings: Tensor) -> tuple[Tensor, Tensor]:
    """What `through_bond` needs of beta J, any shape: e^(-2 |beta J|) and half its sign."""
    return (-2.0 * couplings.abs().clamp(max=STRONGEST)).exp(), 0.5 * couplings.sign()


def through_bond(weak: Tensor, turn: Tensor, field: Tensor) -> Tensor:
    """atanh(tanh(beta J) tanh H), from `bond_tables` and fields H.

    As 1/2 ln [(1 + e^-2|K| e^-2|H|) / (e^-2|K| + e^-2|H|)] with the signs: no saturation, and fewer steps than tanh.
    """
    faint = field.abs().clamp_(max=STRONGEST).mul_(-2.0).exp_()
    ratio = (weak * faint).add_(1.0)
    return ratio.div_(faint.add_(weak)).log_().copysign_(field).mul_(turn)


class DenseFields(nn.Module):
    """TAP on all spins after the current one; rows are spins in generation order."""

    def __init__(self, bonds: np.ndarray, couplings: np.ndarray, fields: Tensor, sweeps: int, radius: int):
        super().__init__()
        matrix = torch.zeros(len(fields), len(fields))
        matrix[bonds[:, 0], bonds[:, 1]] = matrix[bonds[:, 1], bonds[:, 0]] = torch.from_numpy(couplings).float()
        weak, turn = bond_tables(matrix)
        self.sweeps = sweeps
        for name, table in (
            ("fields", fields), ("couplings", matrix), ("squares", matrix**2), ("weak", weak), ("turn", turn)
        ):  # fmt: skip
            self.register_buffer(name, table, persistent=False)

    def start(self, notes: dict, batch: int) -> None:
        notes["fields"] = self.fields[:, None].repeat(1, batch)  # of external field and drawn spins
        notes["total"] = notes["fields"].clone()
        notes["before"] = notes["total"].tanh()  # magnetisations of one iteration earlier

    def fix(self, notes: dict, n: int, spin: Tensor) -> None:
        notes["fields"][n + 1 :] += self.couplings[n + 1 :, n, None] * spin

    def field(self, notes: dict, n: int) -> Tensor:
        """a_n, (batch,)."""
        rest = slice(n + 1, None)
        couplings, squares = self.couplings[rest, rest], self.squares[rest, rest]
        fields, before = notes["fields"][rest], notes["before"][rest]
        total = notes["total"][rest] if self.sweeps else fields
        for _ in range(self.sweeps):
            now = total.tanh()
            new = torch.addmm(fields, couplings, now).sub_((squares @ (1.0 - now * now)).mul_(before))
            total, before = new.lerp_(total, KEPT), now
        notes["total"][rest], notes["before"][rest] = total, before
        return notes["fields"][n] + through_bond(self.weak[rest, n, None], self.turn[rest, n, None], total).sum(0)


class SparseFields(nn.Module):
    """Belief propagation near the current spin; rows are spins in generation order.

    Message j*D + s, one row, goes from spin j to its s-th neighbour, D neighbours at most. Only undrawn spins send:
    drawn ones are in the fields. The last message is 0 for ever; where a neighbour is missing, lists point there.
    """

    def __init__(self, bonds: np.ndarray, couplings: np.ndarray, fields: Tensor, sweeps: int, radius: int):
        super().__init__()
        graph = Graph(len(fields), bonds, couplings)
        self.n_spins, self.degree, self.sweeps = len(fields), graph.degree, sweeps
        strength = torch.from_numpy(graph.couplings).float()[:, None]
        weak, turn = bond_tables(strength)
        lists = Lists()
        self.steps = [step_lists(graph, n, radius if sweeps else 0, lists) for n in range(self.n_spins)]
        for name, table in (
            ("fields", torch.cat([fields, torch.zeros(1)])[:, None]), ("couplings", strength), ("weak", weak),
            ("turn", turn), ("near", torch.from_numpy(graph.near)), ("reverse", torch.from_numpy(graph.reverse)),
            ("lists", lists.joined()),
        ):  # fmt: skip
            self.register_buffer(name, table, persistent=False)
        first = torch.zeros(len(strength), 1)
        if sweeps and fields.any():
            # Before anything is drawn only fields send messages, alike in all states: from everywhere, once.
            for _ in range(2 * radius):
                self.renew(first, torch.arange(self.n_spins), self.fields)
        self.register_buffer("first", first, persistent=False)

    def start(self, notes: dict, batch: int) -> None:
        notes["fields"] = self.fields.repeat(1, batch)  # of external field and drawn spins
        notes["messages"] = self.first.repeat(1, batch)

    def fix(self, notes: dict, n: int, spin: Tensor) -> None:
        own = slice(n * self.degree, (n + 1) * self.degree)
        notes["fields"][self.near[n]] += self.couplings[own] * spin

    def by_spin(self, rows: Tensor) -> Tensor:
        """Rows of messages (n_spins * D + 1, m) as a view (n_spins, D, m)."""
        return rows[:-1].view(self.n_spins, self.degree, -1)

    def renew(self, messages: Tensor, nodes: Tensor, fields: Tensor) -> None:
        """All messages that the spins `nodes` send, from those they receive."""
        weak, turn = self.by_spin(self.weak)[nodes], self.by_spin(self.turn)[nodes]
        new, old = sent(messages[self.reverse[nodes]], fields[nodes], weak, turn), self.by_spin(messages)
        old[nodes] = new.lerp_(old[nodes], KEPT)

    def field(self, notes: dict, n: int) -> Tensor:
        """a_n, (batch,)."""
        messages, fields, step = notes["messages"], notes["fields"], self.steps[n]
        self.by_spin(messages)[n] = 0.0
        if step.shells:
            self.by_spin(messages)[self.lists[step.shells[0].start : step.shells[-1].stop]] *= FADE
        for left in range(self.sweeps, 0, -1):  # the last sweep runs inward
            for span in step.shells if left % 2 == 0 else step.shells[::-1]:
                self.renew(messages, self.lists[span], fields)
        if not step.n_near:
            return fields[n]
        region, own = self.lists[step.region], self.lists[step.own]
        total = fields[region] + messages[self.reverse[region]].sum(1)
        a = fields[n] + through_bond(self.weak[own], self.turn[own], total[: step.n_near]).sum(0)
        if step.inside is None or not self.sweeps:
            return a
        return a + self.loops(messages, total, self.couplings[own], step)

    def loops(self, messages: Tensor, total: Tensor, pull: Tensor, step: Step) -> Tensor:
        """Correction of a_n (batch,) for loops of three and four bonds through spin n; see the module docstring.

        total: fields on the region, (v, batch); pull: beta J of its first spins, the neighbours of n, (n_near, 1).
        """
        edges = self.lists[step.edges].view(len(total), -1)
        reverse = self.lists[step.inside].view(edges.shape)
        inner = torch.cat([messages[edges.view(-1)], messages[-1:]])  # and nothing else changes in the region
        outer = total - inner[reverse].sum(1)
        near, rest = slice(0, step.n_near), slice(step.n_near, None)
        push = torch.stack([-CLAMP * pull, CLAMP * pull], 1)  # (n_near, 2, 1)
        fields = outer[:, None].repeat(1, 2, 1)
        fields[near] += push
        inner = inner[:, None].repeat(1, 2, 1)
        weak, turn = self.weak[edges][..., None], self.turn[edges][..., None]
        by_spin = inner[:-1].view(*edges.shape, 2, -1)
        for part in (near, rest):
            by_spin[part] = sent(inner[reverse[part]], fields[part], weak[part], turn[part])
        there = fields[near] + inner[reverse[near]].sum(1)
        change = there.tanh_() - (total[near][:, None] + push).tanh_()
        return 0.5 * (pull * change.sum(1)).sum(0)


def sent(received: Tensor, fields: Tensor, weak: Tensor, turn: Tensor) -> Tensor:
    """Messages (v, D, ...) from those received (v, D, ...), in the same order, and the fields (v, ...)."""
    total = fields + received.sum(1)
    return through_bond(weak, turn, total[:, None] - received)

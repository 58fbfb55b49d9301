"""The notes of a run while it goes on."""

import numpy as np

from cli.live import Live
from mc.simulate import Block
from mc.weighted import effective_sample_size


def block_of(energy, **stats):
    return Block({"energy": energy}, stats, np.zeros((1, 0, 2, 4), np.int8), np.zeros(0, np.int64))


def test_notes_are_of_the_coldest_beta_and_ess_of_all_blocks():
    random = np.random.default_rng(2)
    log_weight = random.normal(size=(2, 50, 2))
    log_weight += 1000.0  # weights are relative, whatever their size
    log_weight[1, 3, 0] = log_weight[0, 30:40, 0] = -np.inf
    energy = random.normal(-8.0, 1.0, (2, 50, 2))
    live = Live(4, np.array([0.9, 0.1]), "J")
    for part in (slice(0, 20), slice(20, 50)):
        note = live.note(block_of(energy[:, part], log_weight=log_weight[:, part], accepted=np.ones((2, 30, 2))))
    whole = effective_sample_size(log_weight[:, :, 0].ravel())
    assert note == f"E/N {energy[:, 20:, 0].mean() / 4:.4f} J, acceptance 1, ESS {whole:.3g}"


def test_swaps_count_where_they_were_tried():
    swaps = np.array([[[1.0, np.nan], [0.0, np.nan]]])
    note = Live(2, np.array([0.1, 0.9]), "eV").note(block_of(np.zeros((1, 2, 2)), swap_accepted=swaps))
    assert note == "E/N 0.0000 eV, swaps 0.5"

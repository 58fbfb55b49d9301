"""The trunk with every mask and position: cached as uncached, normalised, and blind to what its mask hides."""

import copy
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import mc
from mc.markov_boundary import ordered_boundary
from nmcmc.networks import attention_cuda, cuda_step
from nmcmc.networks.positions import POSITIONS, Positions
from nmcmc.networks.trunk import Trunk, reset
from nmcmc.networks.visibility import Visibility, make_visibility
from nmcmc.recipe import NetSettings, build_sampler
from nmcmc.tokens import tokens_for
from tests.enumerated import FALSE_ALARM, all_states, chi_square_p, combined_p_value, law, state_numbers

BETA = 0.5
MASKS = ("full", "boundary", "window:3", "window:4+first")
SYSTEMS = {  # model, patch
    "torus": (lambda: mc.models.ea2d(L=6, seed=1), (1, 1)),
    "torus of patches": (lambda: mc.models.ising(L=6), (2, 2)),
    "open square": (lambda: mc.models.ising(Lx=5, Ly=7, boundary="open", h=0.2), (1, 1)),
    "cube in groups": (lambda: mc.models.ea3d(L=4, J="gaussian", seed=1), (2, 2, 2)),
    "open cube": (lambda: mc.models.ea3d(L=3, boundary="open", seed=2), (1, 1, 1)),
    "random regular graph": (lambda: mc.models.rrg(N=26, h=0.1, seed=3), (2,)),
    "SK": (lambda: mc.models.sk(N=16, seed=4), (4,)),
}
HEADS = {"tree": dict(prior="local", head="tree"), "spin": dict(prior="belief", head="spin")}


def net(mask, position="additive", patch=(1, 1), head="tree", layers=2, **more):
    more = dict(width=24, heads=2) | more
    return NetSettings(patch=patch, mask=mask, position=position, layers=layers, **HEADS[head], **more)


def shaken(sampler, size=0.2, seed=5):
    """The sampler with random weights, so that all of the network matters."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in sampler.network.parameters():
            parameter.add_(size * torch.randn(parameter.shape, generator=generator))
    return sampler


def cases():
    found = []
    for system, (build, patch) in SYSTEMS.items():
        for mask in MASKS:
            if mask.endswith("first") and build().lattice is None:
                continue
            found += [(system, mask, POSITIONS[n % 5], patch) for n in (len(found), len(found) + 1)]
    return found


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize(("system", "mask", "position", "patch"), cases())
def test_log_q_drawn_with_the_cache_is_log_q_of_a_full_pass(system, mask, position, patch, head):
    sampler = shaken(build_sampler(SYSTEMS[system][0](), BETA, net(mask, position, patch, head)))
    spins, drawn = sampler.sample(24, torch.Generator().manual_seed(1))
    assert np.abs(sampler.log_prob(spins) - drawn).max() < 1e-5
    cache = sampler.network.start(3)
    layers = getattr(cache, "cache", cache).layers
    assert all(x.shape[2] == sampler.network.trunk.visibility.cache.capacity for pair in layers for x in pair)


@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("mask", MASKS)
def test_every_mask_with_every_position_draws_what_it_scores(mask, position):
    sampler = shaken(build_sampler(SYSTEMS["torus"][0](), BETA, net(mask, position)))
    spins, drawn = sampler.sample(16, torch.Generator().manual_seed(2))
    assert np.abs(sampler.log_prob(spins) - drawn).max() < 1e-5


@pytest.mark.parametrize("backend", ["reference", "sdpa", "blocks"])
@pytest.mark.parametrize("mask", ["full", "boundary", "window:20+first"])
def test_log_q_does_not_depend_on_the_backend(mask, backend):
    hamiltonian = mc.models.ising(L=18)
    sampler = shaken(build_sampler(hamiltonian, BETA, net(mask, backend=backend)), 0.1)
    spins = np.random.default_rng(0).choice([-1, 1], (4, 324)).astype(np.int8)
    reference = shaken(build_sampler(hamiltonian, BETA, net(mask, backend="reference")), 0.1)
    a, b = (s.token_log_probs(torch.from_numpy(spins).float()) for s in (sampler, reference))
    difference = (a - b).detach().abs()
    assert difference.max() < 1e-5, "of a token"
    assert difference.sum(1).max() < 1e-4
    a.sum().backward()
    b.sum().backward()
    for ours, theirs in zip(sampler.network.parameters(), reference.network.parameters(), strict=True):
        assert float((ours.grad - theirs.grad).abs().max()) < 1e-4 * max(1.0, float(theirs.grad.abs().max()))


SMALL = {
    "torus": (lambda: mc.models.ea2d(L=3, J="gaussian", h="gauss:0.3", seed=1), (1, 1)),
    "ising": (lambda: mc.models.ising(L=3), (1, 3)),
    "bar": (lambda: mc.models.ea3d(Lx=2, Ly=2, Lz=3, boundary="open", seed=2), (1, 2, 1)),
    "graph": (lambda: mc.models.rrg(N=12, seed=1), (2,)),
}


def small_cases():
    for system, (build, patch) in SMALL.items():
        for mask in MASKS:
            if not (mask.endswith("first") and build().lattice is None):
                yield system, mask, patch


@pytest.mark.statistical
@pytest.mark.parametrize("head", HEADS)
def test_q_is_normalised_and_draws_follow_it(head):
    """False alarm 1e-4 in all: one p-value, combined over systems and masks."""
    p_values = []
    for number, (system, mask, patch) in enumerate(small_cases()):
        sampler = shaken(build_sampler(SMALL[system][0](), BETA, net(mask, POSITIONS[number % 5], patch, head)))
        sampler.max_batch = 4096
        q = np.exp(sampler.log_prob(all_states(sampler.tokens.n_spins)))
        assert abs(q.sum() - 1.0) < 1e-5, (system, mask)
        spins, _ = sampler.sample(8000, torch.Generator().manual_seed(number))
        p_values.append(chi_square_p(np.bincount(state_numbers(spins), minlength=len(q)), q, len(spins)))
    assert combined_p_value(p_values) > FALSE_ALARM


@pytest.mark.parametrize(
    ("system", "mask"),
    [
        (system, mask)
        for system in ("torus", "open square", "open cube", "random regular graph")
        for mask in (MASKS if "graph" not in system else MASKS[:3])
    ],
)
def test_one_layer_is_blind_to_hidden_spins_and_to_no_other(system, mask):
    hamiltonian = SYSTEMS[system][0]()
    patch = {3: (1, 1, 1), 2: (1, 1)}[hamiltonian.lattice.dimension] if hamiltonian.lattice else (1,)
    sampler = shaken(build_sampler(hamiltonian, BETA, net(mask, patch=patch, layers=1, backend="sdpa")))
    n_spins = hamiltonian.n_spins
    allowed = sampler.network.trunk.visibility.allowed()
    tokens = torch.randint(0, 2, (1, n_spins), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        changed = tokens.repeat(n_spins, 1)
        changed[torch.arange(n_spins), torch.arange(n_spins)] ^= 1
        before = sampler.network(tokens.repeat(n_spins, 1))[..., 0].T  # (one row a changed spin, queries)
        after = sampler.network(changed)[..., 0].T
    for spin in range(n_spins - 1):
        moved = (before[spin] != after[spin]).numpy()
        assert not moved[:spin].any()
        assert not moved[~allowed[:, spin]].any(), "a hidden spin is seen, bit for bit"
        assert moved[allowed[:, spin]].mean() > 0.9, "a visible spin is not seen"


def test_a_boundary_mask_lets_one_layer_see_all_that_the_exact_conditional_needs():
    hamiltonian = mc.models.ea2d(L=6, seed=1)
    tokens = tokens_for(hamiltonian, (1, 1))
    mask = make_visibility("boundary", hamiltonian, tokens)
    boundary = ordered_boundary(hamiltonian, tokens.sites.reshape(-1))
    assert all(set(boundary.of(q + 1)) <= set(mask.seen_by(q)) for q in range(mask.rows))


# Positions.


def test_rotary_scores_depend_on_displacements_and_are_right_across_a_periodic_edge():
    lattice_of = {"torus": mc.models.ising(Lx=6, Ly=4), "open": mc.models.ising(Lx=6, Ly=4, boundary="open")}
    generator = torch.Generator().manual_seed(0)
    q, k = torch.randn(1, 8, generator=generator), torch.randn(1, 8, generator=generator)
    for name, hamiltonian in lattice_of.items():
        tokens = tokens_for(hamiltonian, (1, 1))
        positions = Positions("rotary", 24, width=8, heads=1, tokens=tokens)
        queries, keys = positions.rotated(q.expand(23, -1), k.expand(23, -1), slice(1, 24))
        scores = queries @ keys.T  # of the token at row + 1, to the content of the token at column
        places = hamiltonian.lattice.coordinates
        by_displacement, spread = {}, 0.0
        for row in range(23):
            for column in range(23):
                step = places[row + 1] - places[column]
                key = tuple(step % [4, 6]) if name == "torus" else tuple(step)
                spread = max(
                    spread,
                    abs(float(scores[row, column]) - by_displacement.setdefault(key, float(scores[row, column]))),
                )
        assert spread < 1e-5
        values = sorted(by_displacement.values())
        assert min(np.diff(values)) > 1e-7, "two displacements give one score"


def test_rotary_on_a_graph_and_rotary_1d_count_along_the_order():
    graph, square = mc.models.sk(N=12, seed=1), mc.models.ising(L=6)
    a = Positions("rotary", 12, width=8, heads=2, tokens=tokens_for(graph, (1,)))
    b = Positions("rotary-1d", 12, width=8, heads=2, tokens=tokens_for(square, (1, 3)))
    assert torch.equal(a.turns, b.turns)
    assert not torch.equal(
        b.turns, Positions("rotary", 12, width=8, heads=2, tokens=tokens_for(square, (1, 3))).turns
    )


def test_one_position_at_a_time_is_the_same_as_all_at_once():
    tokens = tokens_for(mc.models.ising(L=4), (1, 1))
    for kind in POSITIONS:
        positions = Positions(kind, 16, width=16, heads=2, tokens=tokens)
        reset(positions, torch.Generator().manual_seed(0))
        content = torch.randn(3, 15, positions.content_width)
        q, k = torch.randn(2, 3, 2, 15, 8)
        joined, (turned_q, turned_k) = positions.join(content, slice(1, 16)), positions.rotated(q, k, slice(1, 16))
        assert joined.shape == (3, 15, 16)
        for j in (1, 7, 15):
            for at in (j, torch.tensor([j])):
                assert torch.equal(positions.join(content[:, j - 1], at), joined[:, j - 1])
                one_q, one_k = positions.rotated(q[:, :, j - 1], k[:, :, j - 1], at)
                assert torch.equal(one_q, turned_q[:, :, j - 1])
                assert torch.equal(one_k, turned_k[:, :, j - 1])


def test_concatenated_contents_have_two_numbers_a_spin():
    for patch, content in (((1, 1), 2), ((2, 2), 8)):
        tokens = tokens_for(mc.models.ising(L=6), patch)
        positions = Positions("concatenated", tokens.n_tokens, width=24, heads=2, tokens=tokens)
        assert positions.content_width == content
        assert positions.weight.shape == (tokens.n_tokens, 24 - content)


@pytest.mark.parametrize(
    ("kind", "width", "heads", "said"),
    [
        ("rotary", 6, 2, "heads of width 3 cannot turn along 2 axes; net.width= over net.heads= must be even"),
        ("rotary", 4, 2, "heads of width 2 cannot turn along 2 axes"),
        ("additive+rotary", 4, 2, "at least 4"),
        ("concatenated", 2, 1, "leaves no room beside the 2 numbers of a token; more than 2"),
        ("rotary-2d", 8, 2, "additive, concatenated, rotary"),
    ],
)
def test_positions_that_do_not_fit_are_refused(kind, width, heads, said):
    with pytest.raises(ValueError, match=rf"net\.position={kind.replace('+', '.')}: .*{said}"):
        Positions(kind, 16, width=width, heads=heads, tokens=tokens_for(mc.models.ising(L=4), (1, 1)))


def test_a_single_token_needs_no_place():
    sampler = build_sampler(mc.models.sk(N=4, seed=1), BETA, net("boundary", "additive+rotary", (4,)))
    spins, drawn = sampler.sample(50, torch.Generator().manual_seed(0))
    assert np.allclose(sampler.log_prob(spins), drawn, atol=1e-6)


# The trunk alone.


def trunk_of(mask="boundary", position="additive+rotary", L=5, **more):
    hamiltonian = mc.models.ising(L=L)
    tokens = tokens_for(hamiltonian, (1, 1))
    positions = Positions(position, tokens.n_tokens, width=16, heads=2, tokens=tokens)
    visibility = make_visibility(mask, hamiltonian, tokens)
    trunk = Trunk(tokens.n_tokens, width=16, layers=2, heads=2, visibility=visibility, positions=positions, **more)
    reset(trunk, torch.Generator().manual_seed(0))
    return trunk.requires_grad_(False)


def contents(trunk, batch=4, seed=0):
    return 3.0 * torch.randn(
        batch, trunk.n_tokens - 1, trunk.content_width, generator=torch.Generator().manual_seed(seed)
    )


@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("mask", ["full", "boundary", "window:3", "window:5+first"])
def test_steps_of_fixed_shape_are_the_steps(mask, position):
    trunk = trunk_of(mask, position)
    content = contents(trunk)
    full, one, other = trunk(content), trunk.start(4), trunk.start(4)
    for j in range(1, trunk.n_tokens):
        a = trunk.step(one, content[:, j - 1], j)
        b = trunk.step_fixed(other, content[:, j - 1], torch.tensor([j]))
        assert torch.allclose(a, b, atol=1e-5)
        assert torch.allclose(a, full[:, j - 1], atol=1e-5)


def test_what_is_left_in_slots_of_an_earlier_configuration_does_not_count():
    trunk = trunk_of("boundary")
    first, second = contents(trunk, seed=1), contents(trunk, seed=2)
    used, fresh = trunk.start(4), trunk.start(4)
    for j in range(1, trunk.n_tokens):
        trunk.step_fixed(used, first[:, j - 1], torch.tensor([j]))
    for j in range(1, trunk.n_tokens):
        a = trunk.step_fixed(used, second[:, j - 1], torch.tensor([j]))
        assert torch.equal(a, trunk.step_fixed(fresh, second[:, j - 1], torch.tensor([j])))


@pytest.mark.parametrize("mask", ["full", "window:3"])
def test_flash_decoding_reads_the_cache_of_a_window(mask, monkeypatch):
    """With a stand-in of `flash_attn_with_kvcache`, on the path that CUDA graphs take."""

    def with_cache(q, k_cache, v_cache, *, cache_seqlens, causal):
        n = int(cache_seqlens[0])
        assert (cache_seqlens == n).all()
        scores = torch.einsum("bqhd,bkhd->bhqk", q, k_cache[:, :n]) / q.shape[-1] ** 0.5
        return torch.einsum("bhqk,bkhd->bqhd", scores.softmax(-1), v_cache[:, :n])

    monkeypatch.setattr(attention_cuda, "flash_cache_function", lambda: with_cache)
    trunk = trunk_of(mask)
    content = contents(trunk)
    full, cache = trunk(content), trunk.start(4)
    trunk._chosen[torch.device("cpu")] = ("flash", "a stand-in")
    for j in range(1, trunk.n_tokens):
        found = trunk.step_fixed(cache, content[:, j - 1], torch.tensor([j]))
        assert torch.allclose(found, full[:, j - 1], atol=1e-5)


@pytest.mark.parametrize("backend", ["reference", "sdpa", "blocks"])
def test_bf16_comes_near_and_leaves_weights_and_features_in_float32(backend):
    for mask in ("full", "boundary"):
        trunk, exact = trunk_of(mask, precision="bf16", backend=backend), trunk_of(mask)
        content = contents(trunk)
        found, cache = trunk(content), trunk.start(4)
        assert found.dtype == torch.float32
        assert cache.layers[0][0].dtype == torch.bfloat16
        assert 0 < float((found - exact(content)).abs().max()) < 0.1
        steps = [trunk.step(cache, content[:, j - 1], j) for j in range(1, trunk.n_tokens)]
        assert steps[0].dtype == torch.float32
        assert float((torch.stack(steps, 1) - found).abs().max()) < 0.1
        trunk.requires_grad_(True)
        trunk(content).square().sum().backward()
        assert all(p.dtype == torch.float32 and p.grad.isfinite().all() for p in trunk.parameters())


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="does not divide"):
        Trunk(8, width=10, layers=1, heads=4)
    with pytest.raises(ValueError, match=r"net\.precision=fp8: float32 or bf16 is needed"):
        Trunk(8, width=8, layers=1, heads=2, precision="fp8")
    trunk = Trunk(8, width=8, layers=1, heads=2, backend="flash")
    with pytest.raises(ValueError, match=r"net\.backend=flash: runs on CUDA only"):
        trunk(torch.zeros(1, 7, 8))


def test_the_line_says_what_attention_is_computed_with():
    line = trunk_of("boundary").backend_line()
    assert "net.backend=sdpa" in line
    assert "net.mask=boundary" in line
    assert "a cache of 10 keys" in line
    assert "float32 on cpu" in line


# CUDA graphs, on a stand-in that computes the step anew where a graph would replay it.


@pytest.fixture
def graphs(monkeypatch):
    """Captures without CUDA; a list of the steps that were captured."""
    captured = []

    class Graph:
        def replay(self):
            self.owner.features.copy_(self.trunk.step_fixed(self.owner.cache, self.owner.content, self.owner.j))

    class Context:
        def __init__(self, *_):
            pass

        def __enter__(self):
            pass

        def __exit__(self, *_):
            pass

    stream = SimpleNamespace(wait_stream=lambda other: None)
    fakes = dict(Stream=lambda: stream, current_stream=lambda: stream, stream=Context, graph=Context, CUDAGraph=Graph)
    for name, fake in fakes.items():
        monkeypatch.setattr(torch.cuda, name, fake, raising=False)
    init = cuda_step.CapturedStep.__init__

    def noted(self, trunk, content):
        init(self, trunk, content)
        self.graph.owner, self.graph.trunk = self, trunk
        captured.append(self)

    monkeypatch.setattr(cuda_step.CapturedStep, "__init__", noted)
    return captured


def test_replayed_steps_are_the_steps_and_are_captured_once(graphs):
    trunk = trunk_of("boundary")
    replays = cuda_step.Replays()
    for seed in range(3):
        content, cache, plain = contents(trunk, seed=seed), trunk.start(4), trunk.start(4)
        for j in range(1, trunk.n_tokens):
            found = replays.step(trunk, cache, content[:, j - 1], j)
            assert torch.allclose(found, trunk.step(plain, content[:, j - 1], j), atol=1e-5)
    assert len(graphs) == 1
    replays.step(trunk, trunk.start(2), contents(trunk, 2)[:, 0], 1)
    assert len(graphs) == 2, "another batch"
    with torch.no_grad():
        trunk.norm.weight.mul_(2.0)
    replays.step(trunk, trunk.start(4), contents(trunk)[:, 0], 1)
    assert len(graphs) == 2, "weights changed in place are read anew"
    trunk.norm.weight = torch.nn.Parameter(trunk.norm.weight.detach().clone())
    replays.step(trunk, trunk.start(4), contents(trunk)[:, 0], 1)
    assert len(graphs) == 3, "weights elsewhere need a new graph"


def test_two_configurations_drawn_in_turn_do_not_share_slots(graphs):
    trunk = trunk_of("window:3")
    replays = cuda_step.Replays()
    content = [contents(trunk, seed=seed) for seed in range(2)]
    caches, plain = [trunk.start(4) for _ in range(2)], [trunk.start(4) for _ in range(2)]
    for j in range(1, trunk.n_tokens):
        for one in range(2):
            found = replays.step(trunk, caches[one], content[one][:, j - 1], j)
            assert torch.allclose(found, trunk.step(plain[one], content[one][:, j - 1], j), atol=1e-5)


def test_graphs_do_not_travel_with_copies(graphs):
    trunk = trunk_of("full")
    trunk._replays.step(trunk, trunk.start(4), contents(trunk)[:, 0], 1)
    assert copy.deepcopy(trunk)._replays.captured == {}
    assert trunk._replays.captured


def test_defaults_are_a_full_mask_and_an_added_table():
    trunk = Trunk(9, width=8, layers=1, heads=2)
    assert isinstance(trunk.visibility, Visibility)
    assert trunk.visibility.is_full
    assert next(name for name, _ in trunk.named_parameters()) == "position.weight"
    assert trunk.position.weight.shape == (9, 8)
    assert trunk.content_width == 8


def test_one_layer_learns_the_law_with_its_boundary_and_not_with_less():
    """A ladder in its order needs the last two spins: ln q against ln p of all states, without a prior."""
    hamiltonian = mc.models.ising(Lx=2, Ly=5, boundary="open")
    states, p = law(hamiltonian, BETA)
    kl = {}
    for mask in ("boundary", "window:2", "window:1"):
        settings = NetSettings(patch=(1, 1), prior="none", mask=mask, layers=1, width=16, heads=2)
        sampler = build_sampler(hamiltonian, BETA, settings)
        optimizer = torch.optim.AdamW(sampler.network.parameters(), 1e-2)
        half, weights = torch.from_numpy(states[::2].astype(np.float32)), torch.from_numpy(2.0 * p[::2])
        for _ in range(60):
            optimizer.zero_grad()
            (-weights * sampler.token_log_probs(half).sum(1)).sum().backward()
            optimizer.step()
        kl[mask] = float((p * (np.log(p) - sampler.log_prob(states))).sum())
    assert kl["boundary"] < 0.01
    assert kl["window:2"] < 0.01
    assert kl["window:1"] > 0.1

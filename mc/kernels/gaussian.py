"""Random vectors of the kernels: normal numbers, uniform directions, and spins in a field (von Mises-Fisher).

Normal numbers by the ziggurat of 256 layers, Marsaglia and Tsang, J. Stat. Softw. 5, 8 (2000), with the lowest 8 bits
of a word for the layer and its upper 53 for the place in it, as Doornik (2005) asks: bits used for both leave
correlations. Gamma variates: Marsaglia and Tsang, ACM Trans. Math. Softw. 26, 363 (2000). A spin of norm R with the
density exp(beta s.l) is von Mises-Fisher: the cosine to l by Wood's rejection, Commun. Stat. Simul. 23, 157 (1994),
after Ulrich, Appl. Stat. 33, 158 (1984), the rest of it uniform around l.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from mc.kernels.random_streams import advance, next_uniform, uniform

LAYERS = 256
TAIL = 3.6541528853610088  # where layer 0 passes into the tail, of 256 layers
LAYER = np.uint64(LAYERS - 1)
TWO_TO_MINUS_52 = 2.0**-52
FAST = {"reassoc", "contract", "nsz"}  # compiler flags: sums in any order, so that they fill vector registers
WEAKEST = 1e-140  # fields below it are as good as none, and their squares have lost digits
LARGEST = 1e150  # concentrations above it are as good as this, and their squares overflow


def _layer_widths() -> np.ndarray:
    """Half widths of the layers, (257,) float64 falling to 0, so that all have one area under exp(-x^2 / 2)."""
    tail = math.sqrt(math.pi / 2.0) * math.erfc(TAIL / math.sqrt(2.0))
    height = math.exp(-0.5 * TAIL**2)
    area = TAIL * height + tail
    widths = np.zeros(LAYERS + 1)
    widths[0], widths[1] = area / height, TAIL  # layer 0 as wide as a rectangle of its area
    for layer in range(1, LAYERS - 1):
        height += area / widths[layer]
        widths[layer + 1] = math.sqrt(-2.0 * math.log(height))
    return widths


WIDTHS = _layer_widths()
HEIGHTS = np.exp(-0.5 * WIDTHS**2)


@njit(cache=True, nogil=True, error_model="numpy")
def _outside(x, layer, s0, s1, s2, s3):
    """A normal number where place x of a layer is not under the curve for sure; with the stream in registers."""
    while True:
        if layer == 0:
            while True:
                word, s0, s1, s2, s3 = advance(s0, s1, s2, s3)
                beyond = -math.log(1.0 - uniform(word)) / TAIL
                word, s0, s1, s2, s3 = advance(s0, s1, s2, s3)
                if -2.0 * math.log(1.0 - uniform(word)) >= beyond * beyond:
                    return math.copysign(TAIL + beyond, x), s0, s1, s2, s3
        word, s0, s1, s2, s3 = advance(s0, s1, s2, s3)
        low, high = HEIGHTS[layer], HEIGHTS[layer + 1]
        if low + uniform(word) * (high - low) < math.exp(-0.5 * x * x):
            return x, s0, s1, s2, s3
        word, s0, s1, s2, s3 = advance(s0, s1, s2, s3)
        layer = np.int64(word & LAYER)
        x = np.float64(np.int64(word) >> 11) * TWO_TO_MINUS_52 * WIDTHS[layer]
        if abs(x) < WIDTHS[layer + 1]:
            return x, s0, s1, s2, s3


@njit(cache=True, nogil=True, error_model="numpy")
def fill_normals(out, state):
    """Independent standard normal numbers into out (n,) float64; the stream `state` (4,) uint64 moves on."""
    s0, s1, s2, s3 = state[0], state[1], state[2], state[3]
    for i in range(out.shape[0]):
        word, s0, s1, s2, s3 = advance(s0, s1, s2, s3)
        layer = np.int64(word & LAYER)
        x = np.float64(np.int64(word) >> 11) * TWO_TO_MINUS_52 * WIDTHS[layer]
        if abs(x) >= WIDTHS[layer + 1]:
            x, s0, s1, s2, s3 = _outside(x, layer, s0, s1, s2, s3)
        out[i] = x
    state[0], state[1], state[2], state[3] = s0, s1, s2, s3


@njit(cache=True, nogil=True, error_model="numpy")
def next_normal(state):
    """The next standard normal number of the stream `state` (4,) uint64, float64."""
    word, s0, s1, s2, s3 = advance(state[0], state[1], state[2], state[3])
    layer = np.int64(word & LAYER)
    x = np.float64(np.int64(word) >> 11) * TWO_TO_MINUS_52 * WIDTHS[layer]
    if abs(x) >= WIDTHS[layer + 1]:
        x, s0, s1, s2, s3 = _outside(x, layer, s0, s1, s2, s3)
    state[0], state[1], state[2], state[3] = s0, s1, s2, s3
    return x


@njit(cache=True, nogil=True, error_model="numpy")
def next_gamma(shape, state):
    """The next Gamma(shape, scale 1) variate of the stream, shape >= 1, float64."""
    d = shape - 1.0 / 3.0
    c = 1.0 / math.sqrt(9.0 * d)
    while True:
        x = next_normal(state)
        v = 1.0 + c * x
        if v <= 0.0:
            continue
        v = v * v * v
        u = 1.0 - next_uniform(state)
        if u < 1.0 - 0.0331 * x**4 or math.log(u) < 0.5 * x * x + d * (1.0 - v + math.log(v)):
            return d * v


@njit(cache=True, nogil=True, fastmath=FAST, error_model="numpy")
def dot(a, b):
    """a.b of two rows (D,) float64, summed in the order that is fastest."""
    total = 0.0
    for k in range(a.shape[0]):
        total += a[k] * b[k]
    return total


@njit(cache=True, nogil=True, error_model="numpy")
def uniform_direction(out, norm, state):
    """A vector of the given norm and any direction alike into out (D,) float64."""
    length = 0.0
    while length == 0.0:
        fill_normals(out, state)
        length = math.sqrt(dot(out, out))
    scale = norm / length
    for k in range(out.shape[0]):
        out[k] *= scale


@njit(cache=True, nogil=True, error_model="numpy")
def vmf_gap(kappa, dimension, state):
    """1 - w of the cosine w between a von Mises-Fisher vector in R^D and its axis, with all digits where w is near 1.

    Density ~ exp(kappa w) (1 - w^2)^((D-3)/2). kappa >= 0 the concentration (beta R |l| of a spin in the field l),
    dimension D >= 3, state (4,) uint64 the stream.
    Wood's rejection from a variate Z of Beta((D-1)/2, (D-1)/2), rewritten for 1 - w = 2 b Z / (1 - Z + b Z) and
    1 - x_0 = 2 b / (1 + b): nothing is a small difference of large numbers. Two trials of three are taken, or more.
    """
    if math.isnan(kappa):
        return kappa
    kappa = min(kappa, LARGEST)
    freedom = dimension - 1.0
    b = freedom / (2.0 * kappa + math.sqrt(4.0 * kappa * kappa + freedom * freedom))
    gap_0 = 2.0 * b / (1.0 + b)
    while True:
        z, rest = next_gamma(0.5 * freedom, state), next_gamma(0.5 * freedom, state)
        gap = 2.0 * b * z / (rest + b * z)
        ratio = (gap_0 + gap * (1.0 - gap_0)) / (gap_0 * (2.0 - gap_0))
        if math.log(1.0 - next_uniform(state)) <= kappa * (gap_0 - gap) + freedom * math.log(ratio):
            return gap


@njit(cache=True, nogil=True, error_model="numpy")
def draw_vmf(out, field, beta, radius, state):
    """A spin with density ~ exp(beta s.field) on the sphere of norm `radius` into out (D,) float64.

    field (D,) float64, another array than `out`; beta >= 0 in 1 / energy unit. A zero field draws uniformly.
    """
    strength = math.sqrt(dot(field, field))
    if strength < WEAKEST:
        uniform_direction(out, radius, state)
        return
    gap = vmf_gap(beta * radius * strength, out.shape[0], state)
    inverse = 1.0 / strength
    length = 0.0
    while length == 0.0:
        fill_normals(out, state)
        along = dot(out, field) * inverse * inverse
        for k in range(out.shape[0]):
            out[k] -= along * field[k]
        length = math.sqrt(dot(out, out))
    across = radius * math.sqrt(gap * (2.0 - gap)) / length
    along = radius * (1.0 - gap) * inverse
    for k in range(out.shape[0]):
        out[k] = across * out[k] + along * field[k]

"""The Gamma method: error and integrated autocorrelation time of a mean from the sum of its autocovariance.

U. Wolff, Comput. Phys. Commun. 156, 143 (2004), hep-lat/0306017, with one addition. The automatic window takes the
autocorrelation for one decay: a slow mode of small amplitude, such as a barrier of a glass that is crossed rarely,
lies below the noise of rho(t) when the window closes, and the error comes out too small, by a factor of two in cold
glasses. Means over long blocks hold such a mode. So the scatter of blocks of many lengths is compared with the error
of the window, and where it is larger beyond chance (an F-test at a level of 0.1 %), it takes its place. Series with
one time scale keep Wolff's error to the last digit, but for one in some hundred.
"""

import math
from typing import NamedTuple

import numpy as np
from scipy import fft, stats

WINDOW_S = 1.5  # Wolff's S: the assumed ratio of the exponential to the integrated time
FIRST_LAGS = 255  # of the autocovariance; more are computed where the window does not close
MORE_LAGS = 8
SHORTEST_PIECE = 3840  # draws that are transformed together
BY_CHANCE = 1e-3  # level at which blocks are called wider than the window says
BLOCKINGS = 6  # blocks are the chains, their halves, quarters ... down to 1/32
FEWEST_FREEDOM = 3  # degrees of freedom below which a scatter says nothing


class Gamma(NamedTuple):
    """What is known of the mean of a series.

    error: in the unit of the series. tau_int, tau_int_error: in draws, 0.5 if uncorrelated; the error is nan where
    the window never closed. window: lags summed. slow: whether blocks showed a mode that the window misses; error
    and tau_int are then those of the blocks.
    """

    error: float
    tau_int: float
    tau_int_error: float
    window: int
    slow: bool


def gamma_method(y: np.ndarray) -> Gamma:
    """Error of the mean, tau_int and its error for deviations y (chains, draws >= 2) from the common mean.

    Wolff 2004: window sec. 3.3, bias eq. 49, error of tau eq. 42.  Wolff's window takes rho > 0 for
    granted: an alternating rho closes it at the first lag, with a variance that may come out negative.
    There the window is instead set by the sum of |rho|, and the last term is counted half, which
    truncates rho = (-a)^t with the same relative error a^W as a^t.
    """
    draws, total = y.shape[1], y.size
    most = max(1, (draws - 1) // 2)
    lags = min(most, FIRST_LAGS)
    while True:
        gamma = autocovariance(y, lags)
        rho = gamma[1:] / gamma[0]
        tau_of_window = 0.5 + np.cumsum(rho)
        window, closed = _automatic_window(tau_of_window, total)
        alternating = tau_of_window[window - 1] <= 0.5
        if alternating:
            window, closed = _automatic_window(0.5 + np.cumsum(np.abs(rho)), total)
        if closed or lags == most:
            break
        lags = min(most, MORE_LAGS * (lags + 1) - 1)
    tau = float(tau_of_window[window - 1])
    terms = 2 * window + 1  # of C = sum_{|t|<=W} Gamma(t)
    if alternating:
        terms = 2 * window
        # Noise may still leave nothing, or less.  A reversible chain with eigenvalues l has 2 tau =
        # <(1+l)/(1-l)> >= <(1+l)/2> = (1+rho(1))/2; and the unpaired end of a perfectly alternating
        # chain leaves the mean uncertain by about one draw's fluctuation over the number of draws.
        floor = max((1 + rho[0]) / 4, 1 / (2 * draws))
        tau = float(max(tau_of_window[window - 1] - rho[window - 1] / 2, floor))
        closed = closed or tau < 0.5
    # Subtracting the common mean lowers every Gamma(t) by C/N, with C = 2 tau Gamma(0).
    variance = float(gamma[0]) * (1 + 2 * tau / total)
    tau = tau * (1 + terms / total) / (1 + 2 * tau / total)
    error = math.sqrt(2 * tau * variance / total)
    tau_error = 2 * tau * math.sqrt(max(window + 0.5 - tau, 0.5) / total) if closed else math.nan
    blocks = _wider_blocks(y, error, total / terms)
    if blocks is None:
        return Gamma(error, tau, tau_error, window, False)
    error_of_blocks, freedom = blocks
    tau *= (error_of_blocks / error) ** 2
    return Gamma(error_of_blocks, tau, tau * math.sqrt(2 / freedom), window, True)


def autocovariance(y: np.ndarray, lags: int) -> np.ndarray:
    """Gamma(t) for t = 0 .. lags of deviations y (chains, draws), averaged over the pairs of all chains; (lags + 1,).

    By FFT of pieces some times longer than `lags`, which stay in the cache, padded against wrap-around.
    """
    chains, draws = y.shape
    piece = min(draws, max(7 * (lags + 1), SHORTEST_PIECE))
    pieces = -(-draws // piece)
    size = fft.next_fast_len(piece + lags, real=True)
    power = np.zeros(size // 2 + 1, np.complex128)
    padded = np.zeros(pieces * piece + lags)
    for chain in y:
        padded[:draws] = chain
        both = np.lib.stride_tricks.sliding_window_view(padded, piece + lags)[::piece]  # (pieces, piece + lags)
        one, both = fft.rfft(both[:, :piece], size), fft.rfft(both, size)
        power += np.einsum("pf,pf->f", one.conj(), both)
    return fft.irfft(power, size)[: lags + 1] / (chains * (draws - np.arange(lags + 1)))


def scatter(x: np.ndarray) -> float:
    """Standard error of the mean from the scatter of the means of the rows of ``x``, two or more."""
    return float(x.mean(axis=1).std(ddof=1)) / math.sqrt(len(x))


def _automatic_window(tau_of_window: np.ndarray, total: int) -> tuple[int, bool]:
    """The first W at which truncating rho costs less than its noise does; the last lag if there is none.

    Wolff 2004, sec. 3.3: exp(-W/tau_W) < tau_W / sqrt(W N), tau_W = S / ln((2 tau + 1)/(2 tau - 1)).
    """
    lag = np.arange(1, len(tau_of_window) + 1)
    decay = np.full(len(lag), 1e-3)  # tau <= 1/2: no correlation left, close at once
    above = tau_of_window > 0.5
    decay[above] = WINDOW_S / np.log1p(2 / (2 * tau_of_window[above] - 1))
    closed = np.exp(-lag / decay) < decay / np.sqrt(lag * total)
    return (int(np.argmax(closed)) + 1, True) if closed.any() else (len(lag), False)


def _wider_blocks(y: np.ndarray, error: float, freedom: float) -> tuple[float, int] | None:
    """The largest error from the scatter of blocks that is beyond chance above `error`, and its degrees of freedom.

    freedom: the degrees of freedom of `error`, squared; by Wolff 2004, eq. 42, its variance is that of
    chi^2 with N / (2 W + 1).
    """
    chains, draws = y.shape
    found = []
    for halvings in range(BLOCKINGS):
        blocks = 1 << halvings
        length = draws // blocks
        if chains * blocks - 1 < FEWEST_FREEDOM or length < 2:
            continue
        means = y[:, : blocks * length].reshape(chains * blocks, length)
        of_blocks, own = scatter(means), chains * blocks - 1
        if stats.f.sf((of_blocks / error) ** 2, own, freedom) < BY_CHANCE:
            found.append((of_blocks, own))
    return max(found, default=None)

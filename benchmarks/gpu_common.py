"""What the sections of `gpu.py` share: where and how large, clocks, memory, and batches halved until they fit."""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from nmcmc.sampler import AutoregressiveSampler

NEEDS_CUDA = "not measured: needs CUDA"
NO_BF16 = "not measured: this device has no bfloat16"
OUT_OF_TIME = "not measured: out of time"
SEED = 5

Job = Callable[[float], "dict[str, Any] | str"]  # the seconds it may take to its figures, or why there are none


@dataclass(frozen=True)
class Bench:
    """device: where it runs. small: tiny sizes, to see that everything works. known: what sections tell later ones.

    known holds "copy" (bytes/s), "float32" and "bf16" (flop/s), "bf16 agrees" (bool), and states of tempering.
    """

    device: torch.device
    small: bool
    known: dict[str, Any] = field(default_factory=dict)

    @property
    def cuda(self) -> bool:
        return self.device.type == "cuda"

    @property
    def precision(self) -> str:
        """bf16 on a GPU where the section on agreement found nothing against it, else float32."""
        return "bf16" if self.cuda and self.known.get("bf16 agrees") else "float32"

    @property
    def has_bf16(self) -> bool:
        """Whether the device computes in bf16 by itself; a CPU emulates it well enough to compare numbers."""
        return not self.cuda or torch.cuda.is_bf16_supported(including_emulation=False)

    def now(self) -> float:
        """Wall seconds when all work on the GPU is done; on a CPU seconds of this process."""
        if self.cuda:
            torch.cuda.synchronize(self.device)
            return time.perf_counter()
        return time.process_time()

    def timed(self, job: Callable[[], Any]) -> tuple[float, Any]:
        """Seconds of one call and what it returned."""
        began = self.now()
        result = job()
        return self.now() - began, result

    def least(self, job: Callable[[], Any], seconds: float = 2.0, calls: int = 5) -> float:
        """The least seconds of a call after one that is not counted: up to `calls`, fewer when `seconds` are over."""
        began = time.perf_counter()
        job()
        best = math.inf
        for _ in range(calls):
            best = min(best, self.timed(job)[0])
            if time.perf_counter() - began > seconds:
                break
        return best

    def on_stream(self, job: Callable[[], Any], calls: int) -> float:
        """Seconds a call of short kernels in a row, by events of the GPU; on a CPU by its clock."""
        job()
        if not self.cuda:
            return self.timed(lambda: [job() for _ in range(calls)])[0] / calls
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize(self.device)
        begin.record()
        for _ in range(calls):
            job()
        end.record()
        end.synchronize()
        return 1e-3 * begin.elapsed_time(end) / calls

    def forget_peak(self) -> None:
        """The peak of memory begins anew."""
        if self.cuda:
            self.release()
            torch.cuda.reset_peak_memory_stats(self.device)

    def peak_bytes(self) -> int | None:
        """The most bytes in tensors since `forget_peak`; None on a CPU."""
        return torch.cuda.max_memory_allocated(self.device) if self.cuda else None

    def release(self) -> None:
        """Give unused memory of the GPU back."""
        if self.cuda:
            gc.collect()
            torch.cuda.empty_cache()

    def halved_until_it_fits(self, job: Callable[[int], Any], size: int) -> tuple[int, Any]:
        """The first of size, size / 2, ... for which there is memory, and what the job returned."""
        while True:
            try:
                return size, job(size)
            except torch.cuda.OutOfMemoryError as error:
                if size == 1:
                    raise MemoryError(f"not even one at a time fits: {first_line(error)}") from None
            size //= 2  # out of the handler, whose traceback holds what did not fit
            self.release()

    def generator(self, number: int = 0) -> torch.Generator:
        """Of random numbers on the CPU, as all samplers want them."""
        return torch.Generator().manual_seed(SEED + number)


def first_line(error: BaseException) -> str:
    """Kind and first line of an error, for a file."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else ''}"[:400]


def shake(network: nn.Module, size: float = 0.1) -> None:
    """Weights plus Gaussian numbers, so that nothing that is zero at the start hides a mistake."""
    generator = torch.Generator().manual_seed(SEED)
    with torch.no_grad():
        for weight in network.parameters():
            weight.add_(size * torch.randn(weight.shape, generator=generator).to(weight.device))


def states_at_once(sampler: AutoregressiveSampler, bench: Bench) -> int:
    """States of a backward pass to begin with: arrays over all values of all tokens then take a twelfth of memory."""
    if not bench.cuda:
        return 8
    free, _ = torch.cuda.mem_get_info(bench.device)
    return min(4096, sampler.states_within(int(free) // (4 * 12)))

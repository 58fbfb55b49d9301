"""One thread for torch, whatever the machine has.

Products of this size gain little from more and lose much when cores are busy, and the order of float sums, hence
every bit of a chain, then does not depend on the number of cores. (NumPy's are set in `cli.main`, before it loads.)
"""

import torch

torch.set_num_threads(1)

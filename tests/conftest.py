"""One torch thread for all tests: the products are small, and other work runs beside."""

import torch

torch.set_num_threads(1)

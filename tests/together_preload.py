"""What the server of :mod:`together` imports once for all the processes it forks."""

import torch
import torch.distributed.fsdp
import torch.distributed.tensor

import multigrid.distributed.process_group
import multigrid.ladder.ladder
import multigrid.run
import multigrid.surrogate  # noqa: F401

torch.set_num_threads(1)

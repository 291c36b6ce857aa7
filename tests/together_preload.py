"""What the server of :mod:`together` imports once for all the processes it forks."""

import torch
import torch.distributed.fsdp
import torch.distributed.tensor

import multigrid.api
import multigrid.distributed.process_group
import multigrid.ladder.ladder
import multigrid.report.record  # noqa: F401

torch.set_num_threads(1)

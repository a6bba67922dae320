"""One run over several processes: the first decides and records, the others follow.

Started by `accelerate launch` or `torchrun`. Batches are divided among the processes. Each holds
the whole model, and the first measures it; or (`accelerate launch --use_fsdp`) each holds some rows
of every weight, of its gradient, moments and mask, and all measure together.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import os
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from jdna_cli.compute import precision
from jdna_cli.compute.processes import HOW, is_first, rank, size
from jdna_cli.errors import RequestError

JOINING = dt.timedelta(minutes=5)  # all processes of a run are there by then
PATIENCE = dt.timedelta(days=1)  # others wait while the first prunes, measures, or writes

_sent = False


def is_sharded() -> bool:
    """Whether each process holds a part of the model only."""
    asked = os.environ.get("ACCELERATE_USE_FSDP", "").lower() in ("1", "true", "yes")
    return asked and size() > 1


def measures() -> bool:
    """Whether this process measures: the first alone, or all that hold a part of the model."""
    return is_first() or is_sharded()


def join() -> None:
    """Meet the other processes, if there are any; once is enough.

    Raises:
        RequestError: they are not there, or are another number than the launcher says.
    """
    from accelerate import PartialState

    count = size()
    if count == 1 or PartialState._shared_state:
        return
    # Accelerate's launcher asks transformers to leave weights out of all processes but one.
    os.environ["FSDP_CPU_RAM_EFFICIENT_LOADING"] = "false"
    where = os.environ["MASTER_ADDR"]
    try:
        # Where there is no device, accelerate would take this process for the only one.
        state = PartialState(cpu=precision.device() == "cpu", timeout=JOINING)
    except (torch.distributed.DistError, RuntimeError, ValueError) as error:
        raise RequestError(
            f"the {count} processes that WORLD_SIZE tells of did not meet at {where}: "
            f"{str(error).splitlines()[0]}"
        ) from None
    if state.num_processes != count:
        raise RequestError(
            f"WORLD_SIZE says that this is one of {count} processes, and {state.num_processes} met "
            f"at {where}: start them with {HOW}"
        )
    # They wait for each other for longer than they wait to meet.
    torch.distributed.distributed_c10d._set_pg_timeout(PATIENCE)


def send(work: Any) -> None:
    """Tell the others what is to be done."""
    from accelerate.utils import broadcast_object_list

    global _sent
    if size() > 1:
        join()
        broadcast_object_list([work])
    _sent = True


def receive() -> Any:
    """What the first process says is to be done; None: nothing."""
    from accelerate.utils import broadcast_object_list

    join()
    told: list[Any] = [None]
    broadcast_object_list(told)
    return told[0]


def together(lead: Callable[[], None], follow: Callable[[], None]) -> None:
    """Let the first process lead; if it ends without a word, the others are let go.

    Args:
        lead: what the first process does; it may `send` work.
        follow: what the others do, of what they `receive`.

    Raises:
        RequestError: the processes are no group of the size that the launcher says.
    """
    join()
    try:
        if is_first():
            try:
                lead()
            finally:
                if not _sent:
                    send(None)
        else:
            follow()
    finally:
        shutdown()


@contextlib.contextmanager
def one_process_at_a_time() -> Iterator[None]:
    """Processes of one machine one after the other, where each reads what it keeps a part of."""
    if not is_sharded():
        yield
        return
    turn, turns = (int(os.environ.get(f"LOCAL_{name}", "1")) for name in ("RANK", "WORLD_SIZE"))
    for _ in range(turn):
        torch.distributed.barrier()
    yield
    for _ in range(turns - turn):
        torch.distributed.barrier()


def shard(model: nn.Module, device: torch.device) -> None:
    """Keep this process's rows of every weight, on the device; whole weights are gathered in use.

    Each layer is gathered by itself: an element of an outermost list of modules.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(device.type, (size(),))
    inside: list[str] = []
    for name, module in model.named_modules():
        if isinstance(module, nn.ModuleList) and not any(name.startswith(x) for x in inside):
            inside.append(f"{name}.")
            for layer in module:
                fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)


def share(batch: list[int]) -> list[int]:
    """This process's part of a batch."""
    return batch[rank() :: size()]


def broadcast_int(number: int) -> int:
    """The first process's number, everywhere."""
    from accelerate.utils import broadcast_object_list

    if size() == 1:
        return number
    told = [number]
    broadcast_object_list(told)
    return int(told[0])


def mean(values: Tensor) -> Tensor:
    """The mean over all processes."""
    from accelerate.utils import reduce

    if size() == 1:
        return values
    over_all: Tensor = reduce(values, "mean")
    return over_all


def gathered(own: dict[str, Tensor]) -> dict[str, Tensor]:
    """Every process's tensors under `NAME.RANK`; of one process alone under their own names."""
    from accelerate.utils import gather_object

    if size() == 1:
        return own
    parts = gather_object([{name: tensor.cpu() for name, tensor in own.items()}])
    return {f"{name}.{i}": tensor for i, part in enumerate(parts) for name, tensor in part.items()}


def own_of(tensors: dict[str, Tensor], name: str) -> Tensor | None:
    """This process's part of what `gathered` returned."""
    return tensors.get(name if size() == 1 else f"{name}.{rank()}")


def shutdown() -> None:
    """Leave the group in order, at the very end."""
    if size() > 1 and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()

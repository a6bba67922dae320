"""A model one block at a time: many forward passes that all wait at the same block.

SparseGPT and Wanda prune a block knowing its inputs as the blocks before it, already pruned, make
them. What lies between blocks (embeddings, masks, position biases, an encoder's output handed to a
decoder) is the architecture's own business, so each pass runs the model's own code, in a thread of
its own that stops when it reaches a block. The block is computed here, for one pass after another;
only one block need be on the device, and one thread runs at any time.
"""

from __future__ import annotations

import contextlib
import copy
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from jdna_cli.errors import JdnaError

_FINISHED = object()


@dataclass(frozen=True)
class Block:
    """A module whose chosen matrices are treated together, and those matrices' modules by name."""

    name: str
    module: nn.Module
    chosen: dict[str, nn.Module]


def find(model: nn.Module, names: Sequence[str]) -> list[Block]:
    """The blocks that hold the parameters `names`, in the order of the model's modules.

    A block is an element of an outermost list of modules, or a module outside of any such list.
    """
    modules = dict(model.named_modules())
    chosen: dict[str, dict[str, nn.Module]] = {}
    for name in names:
        owner = name.rpartition(".")[0]
        chosen.setdefault(_block_name(modules, owner), {})[name] = modules[owner]
    ordered = [name for name in modules if name in chosen]
    return [Block(name, modules[name], chosen[name]) for name in ordered]


def _block_name(modules: dict[str, nn.Module], owner: str) -> str:
    parts = owner.split(".")
    for i in range(len(parts)):
        if isinstance(modules[".".join(parts[:i])], nn.ModuleList):
            return ".".join(parts[: i + 1])
    return owner


class _Enough(BaseException):
    """Ends a pass that has nothing more to tell."""


class _PausedForward(threading.Thread):
    """One forward pass, in steps: from block to block."""

    def __init__(self, run: Callable[[], object]) -> None:
        super().__init__(daemon=True)
        self._run = run
        self._told: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._asked: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.at: Block | None = None
        self.call: tuple[tuple[Any, ...], dict[str, Any]] = ((), {})
        self.valid: torch.Tensor | None = None  # (B, T): which tokens are not padding

    def run(self) -> None:
        """The thread: tells each block that it reaches, and in the end that it has ended."""
        found: Any = _FINISHED
        try:
            with torch.no_grad():
                self._run()
        except _Enough:
            pass
        except BaseException as error:
            found = error
        self._told.put(found)

    def wait_at(self, block: Block, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """In the thread: stop at a block until its output is known."""
        self._told.put((block, args, kwargs))
        answer = self._asked.get()
        if isinstance(answer, _Enough):
            raise answer
        return answer[0]

    def advance(self, output: Any = None, *, first: bool = False) -> None:
        """From outside: go on with a block's output, up to the next block or the end."""
        if first:
            self.start()
        else:
            self._asked.put((output,))
        told = self._told.get()
        if isinstance(told, BaseException):
            self.at = None
            raise told
        if told is _FINISHED:
            self.at = None
        else:
            self.at, *self.call = told

    def abandon(self) -> None:
        """End it where it is."""
        if self.at is not None:
            self._asked.put(_Enough())
            self._told.get()
            self.at = None
        if self.ident is not None:
            self.join()


class BlockWalker:
    """All passes of a model, from block to block."""

    def __init__(
        self,
        model: nn.Module,
        blocks: Sequence[Block],
        passes: Sequence[Callable[[], object]],
        device: torch.device,
    ) -> None:
        """Set up; blocks stay where they are until their turn, all else goes to the device."""
        self._model, self._blocks, self._device = model, list(blocks), device
        # A block that runs twice must not find what it kept of the first time.
        for module in model.modules():
            config: Any = getattr(module, "config", None)
            if hasattr(config, "use_cache"):
                config.use_cache = False
        self._passes = [_PausedForward(run) for run in passes]

    def __iter__(self) -> Iterator[tuple[Block, BlockTurn]]:
        """Each block once, on the device, with what can be done there."""
        left = {id(block): block for block in self._blocks}
        undo = self._take_over()
        try:
            self._spread()
            for one in self._passes:
                one.advance(first=True)
            while left:
                block = next((p.at for p in self._passes if p.at is not None), None)
                if block is None:
                    missing = next(iter(left.values()))
                    raise JdnaError(f"no calibration sample reaches {missing.name!r}")
                here = [p for p in self._passes if p.at is block]
                homes = {parameter: parameter.data for parameter in block.module.parameters()}
                home = next(iter(homes)).device
                block.module.to(self._device)
                step = BlockTurn(block, here, self, homes)
                if left.pop(id(block), None) is not None:
                    yield block, step
                # What comes after the last block, its own output and a head, nobody asks for.
                for one in here if left else ():
                    one.advance(step.output(one))
                # Nothing is fetched from the device: what was changed there came from here.
                for parameter, values in homes.items():
                    parameter.data = values
                block.module.to(home)
        finally:
            undo()
            for one in self._passes:
                one.abandon()

    def compute(self, block: Block, one: _PausedForward) -> Any:
        """What a block makes of a pass."""
        args, kwargs = one.call
        # Keys and values that it adds to a memory are not to be found there the second time.
        args = tuple(_own_memory(value) for value in args)
        kwargs = {name: _own_memory(value) for name, value in kwargs.items()}
        stopping = block.module.__dict__.pop("forward")
        try:
            with torch.no_grad():
                return block.module(*args, **kwargs)
        finally:
            block.module.forward = stopping

    def _spread(self) -> None:
        """Put what lies outside the blocks on the device."""
        inside = {id(m) for block in self._blocks for m in block.module.modules()}
        for module in self._model.modules():
            if id(module) in inside:
                continue
            for parameter in module.parameters(recurse=False):
                parameter.data = parameter.data.to(self._device)
            for name, buffer in module.named_buffers(recurse=False):
                setattr(module, name, buffer.to(self._device))

    def _take_over(self) -> Callable[[], None]:
        """Make every pass stop at every block; returns what undoes it."""

        def stopping(block: Block) -> Callable[..., Any]:
            return lambda *args, **kwargs: _this_pass().wait_at(block, args, kwargs)

        def note(module: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
            mask = kwargs.get("attention_mask")
            if mask is not None and mask.ndim == 2:
                _this_pass().valid = mask.bool()

        for block in self._blocks:
            block.module.forward = stopping(block)
        base: Any = self._model
        hook = base.base_model.register_forward_pre_hook(note, with_kwargs=True)

        def undo() -> None:
            hook.remove()
            for block in self._blocks:
                block.module.__dict__.pop("forward", None)

        return undo


def _own_memory(value: Any) -> Any:
    from transformers.cache_utils import Cache

    return copy.deepcopy(value) if isinstance(value, Cache) else value


def _this_pass() -> _PausedForward:
    thread = threading.current_thread()
    assert isinstance(thread, _PausedForward)
    return thread


class BlockTurn:
    """One block's turn: run it on all passes, as often as is wanted."""

    def __init__(
        self,
        block: Block,
        here: list[_PausedForward],
        walk: BlockWalker,
        homes: dict[nn.Parameter, torch.Tensor],
    ) -> None:
        self._block, self._here, self._walk, self._homes = block, here, walk, homes
        self._outputs: dict[int, Any] = {}

    def put(self, name: str, values: torch.Tensor) -> None:
        """Give one of the chosen matrices other values, which nobody may change afterwards.

        Args:
            name: of the parameter.
            values: of its shape, on the CPU.
        """
        parameter = self._block.chosen[name].get_parameter(name.rpartition(".")[2])
        parameter.data.copy_(values)
        if self._homes[parameter].device != parameter.device:
            self._homes[parameter] = values.to(parameter.dtype)

    def observe(self, see: Callable[[str, torch.Tensor], None], *, keep: bool) -> None:
        """Run the block on every pass, and show the inputs of its chosen matrices.

        Args:
            see: called with a parameter's name and its module's inputs (tokens, in); the same
                object where several are given the same.
            keep: whether the outputs are those that the passes go on with, whatever becomes of
                the block's weights afterwards.
        """
        current: list[_PausedForward] = []
        calls: list[str] = []  # of chosen matrices in this pass
        last: list[Any] = [None, 0, None]  # inputs as they were given, their state, and their rows
        first: list[str] = []  # in the first one

        def shown(name: str) -> Callable[..., None]:
            def hook(module: nn.Module, args: tuple[torch.Tensor, ...]) -> None:
                calls.append(name)
                (inputs,), valid = args, current[0].valid
                if last[0] is not inputs or last[1] != inputs._version:
                    masked = valid is not None and inputs.shape[:-1] == valid.shape
                    rows = inputs[valid] if masked else inputs.reshape(-1, inputs.shape[-1])
                    last[:] = [inputs, inputs._version, rows]
                see(name, last[2])
                # Each once, in the first pass as in this one: the rest tells nothing more.
                if not keep and calls == first and len(calls) == len(hooks) == len(set(calls)):
                    raise _Enough

            return hook

        hooks = [m.register_forward_pre_hook(shown(n)) for n, m in self._block.chosen.items()]
        try:
            for one in self._here:
                current[:] = [one]
                calls.clear()
                with contextlib.suppress(_Enough):
                    output = self._walk.compute(self._block, one)
                    if keep:
                        self._outputs[id(one)] = output
                first, last[:] = first or list(calls), [None, 0, None]
        finally:
            for hook in hooks:
                hook.remove()

    def output(self, one: _PausedForward) -> Any:
        """What the pass goes on with: the kept output, or that of the block as it is now."""
        if id(one) in self._outputs:
            return self._outputs.pop(id(one))
        return self._walk.compute(self._block, one)

"""The state of torch that a caller may have changed: how models compute and are made whatever it is.

Autocast, inference mode, the default type and device and the random state belong to the caller. They are
left alone, and no number depends on them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import init
from torch.overrides import TorchFunctionMode

from mfimage.errors import UsageError

Given = ParamSpec("Given")
Result = TypeVar("Result")

_FILLED: set[Any] = {torch.empty, torch.zeros, torch.ones, torch.eye, torch.rand, torch.randn}
_PLACED: set[Any] = _FILLED | {torch.tensor, torch.as_tensor, torch.arange, torch.full}
_REFILLED: set[Any] = {
    init.uniform_, init.normal_, init.kaiming_uniform_, init.kaiming_normal_, init.xavier_uniform_,
    init.xavier_normal_, init.trunc_normal_, init.orthogonal_, Tensor.uniform_, Tensor.normal_,
}  # fmt: skip
_DRAWN: set[Any] = _REFILLED | {torch.rand, torch.randn}

DRAWS: ContextVar[torch.Generator | None] = ContextVar("draws", default=None)  # of this thread's training


@contextmanager
def drawing(seed: int, device: torch.device, globally: bool = False) -> Iterator[None]:
    """Let our own layers draw from a generator of this thread, whatever other threads draw.

    With `globally` torch's global random state, of which layers of others draw, is seeded too; it is left as
    it was.
    """
    token = DRAWS.set(torch.Generator(device).manual_seed(seed))
    try:
        with torch.random.fork_rng([device] if device.type == "cuda" else [], enabled=globally):
            if globally:
                torch.manual_seed(seed)
            yield
    finally:
        DRAWS.reset(token)


def plainly(function: Callable[Given, Result]) -> Callable[Given, Result]:
    """Make a function compute outside autocast and inference mode, whatever its caller is in.

    Autocast would round what must be inverted or summed exactly, and in inference mode there are no
    derivatives. A method of a module that is being trained keeps the training's autocast.
    """

    @wraps(function)
    def call(*args: Given.args, **kwargs: Given.kwargs) -> Result:
        rounded = [device for device in ("cpu", "cuda") if torch.is_autocast_enabled(device)]
        inference = torch.is_inference_mode_enabled()
        if not (rounded or inference):
            return function(*args, **kwargs)
        plain: Callable[..., Result] = function
        given: tuple[Any, ...] = args
        named: dict[str, Any] = kwargs
        if given and isinstance(given[0], nn.Module) and given[0].training:
            rounded = []
        with ExitStack() as stack:
            for device in rounded:
                stack.enter_context(torch.autocast(device, enabled=False))
            if inference:
                stack.enter_context(torch.inference_mode(False))
                stack.enter_context(torch.no_grad())  # leaving inference mode turns gradients on
                given = tuple(map(_usable, given))
                named = {name: _usable(value) for name, value in named.items()}
            return plain(*given, **named)

    return call


def _usable(value: Any) -> Any:
    """A tensor of inference mode as one that may be differentiated."""
    return value.clone() if isinstance(value, Tensor) and value.is_inference() else value


class Making(TorchFunctionMode):
    """While it is entered, modules are made in float32 on the CPU, with random numbers of their own.

    This thread alone is concerned, and the global random state is neither read nor changed.

    Args:
        generator: Of the first weights.
        most: In the place of a generator: weights are not allocated, they have shapes alone, and UsageError
            is raised as soon as they would hold more numbers than this.
    """

    def __init__(self, generator: torch.Generator | None = None, most: int | None = None) -> None:
        super().__init__()
        self.generator, self.most, self.made = generator, most, 0

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = dict(kwargs or {})
        if self.most is not None and func in _REFILLED:  # there is nothing to fill
            return args[0] if args else given["tensor"]
        if func in _DRAWN:
            given["generator"] = self.generator
        if func not in _PLACED:
            return func(*args, **given)
        typed = given.get("dtype") is not None
        if func in _FILLED:
            given["dtype"] = given.get("dtype") or torch.float32
        nowhere = self.most is not None and func in _FILLED
        given["device"] = "meta" if nowhere else given.get("device") or "cpu"
        made = func(*args, **given)
        self.made += made.numel()
        if self.most is not None and self.made > self.most:
            raise UsageError("it makes a model of more numbers than the file of weights holds")
        return made.float() if made.dtype == torch.float64 and not typed else made

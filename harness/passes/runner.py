"""What the runners of both paradigms share: a network on its device, in its number format, compiled or not."""

from __future__ import annotations

from typing import Any

import torch

from harness.data.normaliser import Normaliser
from harness.errors import NonFiniteOutput, UserError
from harness.method import PoseProtocol, Predictor
from harness.passes.number_format import number_format

__all__ = ["Runner", "bad_output"]


class Runner:
    """A network with what its forward needs around it. UserError for a runtime that it does not have."""

    def __init__(
        self,
        predictor: Predictor,
        protocol: PoseProtocol,
        *,
        device: str = "cpu",
        dtype: str = "float32",
        runtime: str = "eager",
    ) -> None:
        self.device, self.protocol = torch.device(device), protocol
        self.normalise = Normaliser(protocol, self.device)
        self._number_format = number_format(dtype, device)
        if isinstance(predictor, torch.nn.Module):
            predictor.to(self.device).eval()
        elif runtime == "compile":
            raise UserError(
                "only torch networks can be compiled", where=type(predictor).__name__, hint="runtime: eager"
            )
        self.predictor: Any = predictor
        self.compiled = runtime == "compile"
        self._predict = torch.compile(predictor.predict) if self.compiled else predictor.predict


def bad_output(where: str, person: int = 0) -> NonFiniteOutput:
    """The error of a network that gave nan or inf."""
    hint = "check the weights file and the number format (dtype)"
    error = NonFiniteOutput("the network's output holds nan or inf", where=where, hint=hint)
    error.person = person
    return error

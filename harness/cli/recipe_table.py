"""What `train --dry-run` prints: everything that a training is made of, and what departs from its source."""

from __future__ import annotations

import json
from typing import Any

from rich.console import Console
from rich.table import Table

from harness.method import Variant
from harness.train.recipes import describe, flat
from harness.train.settings import Settings

__all__ = ["parameter_groups", "show"]

_PROTOCOL = ("codec", "box_padding", "box_cleaning", "colour", "mean", "std")


def show(variant: Variant, name: str, settings: Settings, as_json: bool) -> None:
    """The recipe with the network's parameter groups, as tables or JSON."""
    from harness.train.network import check_input_size

    size = settings.input_size or variant.input_size
    check_input_size(variant, settings.recipe, size)
    protocol = variant.protocol.applying(variant.paradigm)
    plain: dict[str, Any] = {
        "variant": variant.name,
        "recipe": name,
        **describe(settings.recipe),
        "input_size": list(size),
        "build": settings.build,
        "input": {field: protocol[field] for field in _PROTOCOL if field in protocol},
    }
    if variant.paradigm == "one-stage":
        plain.pop("target")  # heatmaps of regions are a matter of the network
    plain.pop("betas" if settings.recipe.optimiser == "sgd" else "momentum")
    groups = parameter_groups(variant, settings)
    if as_json:
        print(json.dumps({**plain, "parameter_groups": groups}, indent=2))
        return
    console, differs = Console(), plain.pop("differs")
    console.print(_fields(f"{variant.title}, recipe {name}", plain))
    console.print(_groups(groups))
    console.print("Departs from its source:" if differs else "Departs from its source in nothing.")
    for line in differs:
        console.print(f"- {line}", markup=False)


def parameter_groups(variant: Variant, settings: Settings) -> list[dict[str, Any]]:
    """Learning rate, weight decay, tensors (with their names) and parameters of each optimiser group, by a network
    without memory."""
    import torch

    from harness.train.optimiser import optimiser

    assert variant.build is not None
    with torch.device("meta"):
        network: Any = variant.build(
            num_joints=17, input_size=settings.input_size or variant.input_size, **settings.build
        )
    names = {parameter: name for name, parameter in network.named_parameters()}
    return [
        {
            "lr": group["lr"],
            "weight_decay": group["weight_decay"],
            "tensors": len(group["params"]),
            "parameters": sum(p.numel() for p in group["params"]),
            "names": [names[p] for p in group["params"]],
        }
        for group in optimiser(network, settings.recipe).param_groups
    ]


def _fields(title: str, plain: dict[str, Any]) -> Table:
    table = Table(title=title, title_justify="left", show_header=False)
    for field, value in flat(plain).items():
        if value not in ("", None, []):
            table.add_row(field, ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value))
    return table


def _groups(groups: list[dict[str, Any]]) -> Table:
    table = Table(title="parameter groups", title_justify="left")
    for column in ("learning rate", "weight decay", "tensors", "parameters"):
        table.add_column(column, justify="right")
    for group in groups:
        table.add_row(
            f"{group['lr']:.4g}", f"{group['weight_decay']:g}", str(group["tensors"]), f"{group['parameters']:,}"
        )
    return table

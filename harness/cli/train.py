"""The verb `train`: one variant, one recipe, one data set -> weights and a state to go on from."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console
from rich.table import Table

from harness import provenance
from harness.data import coco
from harness.errors import DataError, SuiteError, UserError, unknown_name
from harness.method import Variant, find_variant
from harness.sources import synthetic_folder
from harness.train.recipes import Recipe, describe, with_epochs

Precision = Literal["float32", "bfloat16"]

if TYPE_CHECKING:
    from harness.train.loop import TrainResult

__all__ = ["train"]


def train(
    method: Annotated[str, typer.Argument(help="Variant, as `paretopose methods` lists them.")],
    data: Annotated[str, typer.Option(help="coco=ROOT, or synthetic (made on first use).")] = "synthetic",
    recipe: Annotated[str, typer.Option(help="official or quick; default: official where there is one.")] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the recipe; train nothing.")] = False,
    out: Annotated[Path | None, typer.Option(help="Folder; default results/train/METHOD-SEED.")] = None,
    seed: Annotated[int, typer.Option(help="Of the weights, the order, the augmentation.", min=0)] = 0,
    epochs: Annotated[int | None, typer.Option(help="Another length; milestones in proportion.", min=1)] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1; auto takes a GPU where there is one.")] = "auto",
    workers: Annotated[int, typer.Option(help="Processes that prepare crops; 0: none.", min=0)] = 1,
    precision: Annotated[Precision, typer.Option(help="Of the forward pass.")] = "float32",
    resume: Annotated[bool, typer.Option(help="Go on from the newest state in OUT.")] = True,
    init: Annotated[Path | None, typer.Option(help="Weights to start from, a pretrained trunk for instance.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Train a variant; writes METHOD.safetensors, log.jsonl and resumable states."""
    variant = find_variant(method)
    name, chosen = _recipe(variant, recipe)
    if epochs is not None:
        chosen = with_epochs(chosen, epochs)
    if dry_run:
        _print_recipe(variant, name, chosen, as_json)
        return
    folder = out or Path("results/train") / f"{variant.name}-{seed}"
    facts = {"recipe_name": name, "command": provenance.command()}
    options: dict[str, Any] = {"out": folder, "seed": seed, "device": _device(device), "workers": workers}
    result = _train(variant, chosen, _dataset(data), init, facts, precision=precision, resume=resume, **options)
    _print_result(result, as_json)


def _recipe(variant: Variant, name: str) -> tuple[str, Recipe]:
    if not variant.recipes:
        raise UserError(f"{variant.name} has no training recipe", hint="`paretopose methods` lists what can be trained")
    name = name or ("official" if "official" in variant.recipes else next(iter(variant.recipes)))
    if name not in variant.recipes:
        what, hint = unknown_name(f"recipe of {variant.name}", name, variant.recipes)
        raise SuiteError(what, hint=hint)
    return name, variant.recipes[name]


def _dataset(text: str) -> coco.Dataset:
    """The training split that --data names. DataError where the standard COCO layout is not there."""
    kind, _, path = text.partition("=")
    if text == "synthetic":
        root = synthetic_folder("train")
    elif kind == "coco" and path:
        root = Path(path).expanduser()
    else:
        raise SuiteError(f"--data {text}", expected="coco=ROOT or synthetic")
    annotations, images = root / "annotations" / "person_keypoints_train2017.json", root / "train2017"
    for needed in (annotations, images):
        if not needed.exists():
            raise DataError("no COCO training set", where=str(root), expected=f"{needed.relative_to(root)} below it")
    return coco.load(annotations, images, name=f"{kind}_train2017")


def _device(name: str) -> str:
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise UserError(f"--device {name}: no GPU is usable here", hint="--device cpu")
    return name


def _train(
    variant: Variant, recipe: Recipe, dataset: coco.Dataset, init: Path | None, facts: dict[str, str], **options: Any
) -> TrainResult:
    """Build the network from the seed, start it from `init`, train it; `facts` go into the weights file."""
    import torch

    from harness.train import checkpoints, loop

    joints = dataset.skeleton.num_joints
    predictor, _ = checkpoints.open_variant(variant, None, num_joints=joints, seed=options["seed"])
    facts = {**facts, "data_name": dataset.name}
    if init is not None:
        report = checkpoints.load_into(predictor, variant, init, initialise=True)
        facts["init"] = f"{init.name} sha256:{report.sha256[:16]}"
        print(f"{init}: layout {report.layout}, {len(report.missing)} tensors keep random values", file=sys.stderr)
    assert isinstance(predictor, torch.nn.Module)
    return loop.train(predictor, variant, recipe, dataset, metadata=facts, **options)


def _print_recipe(variant: Variant, name: str, recipe: Recipe, as_json: bool) -> None:
    plain = {"variant": variant.name, "recipe": name, "input_size": list(variant.input_size), **describe(recipe)}
    if as_json:
        print(json.dumps(plain, indent=2))
        return
    differs = plain.pop("differs")
    table = Table(title=f"{variant.name}, recipe {name}", title_justify="left", show_header=False)
    for field, value in _flat(plain):
        table.add_row(field, value)
    console = Console()
    console.print(table)
    console.print("Departs from its source:" if differs else "Departs from its source in nothing.")
    for line in differs:
        console.print(f"- {line}", markup=False)


def _flat(plain: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    for field, value in plain.items():
        if isinstance(value, dict):
            rows += _flat(value, f"{field}.")
        elif value not in ("", None, []):
            text = ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
            rows.append((prefix + field, text))
    return rows


def _print_result(result: TrainResult, as_json: bool) -> None:
    plain = {
        "weights": str(result.weights),
        "epochs": result.epochs,
        "steps": result.steps,
        "persons": result.persons,
        "loss": result.loss,
        "images_per_second": result.images_per_second,
        "scores": dict(result.scores),
    }
    if as_json:
        print(json.dumps(plain, indent=2))
        return
    print(f"{result.weights}: {result.epochs} epochs over {result.persons} persons, loss {result.loss:.4g}")

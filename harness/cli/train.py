"""The verb `train`: one variant, one recipe, one data set -> weights and a state to go on from."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from harness import provenance, stopping
from harness.data import coco, sets
from harness.errors import DataError, SuiteError, UserError, unknown_name
from harness.method import Variant, find_variant
from harness.suite.sources import synthetic_folder
from harness.train.recipes import Precision, Recipe, with_epochs
from harness.train.settings import Settings, settled

if TYPE_CHECKING:
    from harness.train.loop import TrainResult

__all__ = ["train"]


def train(
    method: Annotated[str, typer.Argument(help="Variant, as `paretopose methods` lists them.")],
    data: Annotated[
        str, typer.Option(help="coco=ROOT, crowdpose=ROOT, mpii=ROOT, or synthetic (made on first use).")
    ] = "synthetic",
    recipe: Annotated[str, typer.Option(help="official, quick ...; default: official, of tiny ones quick.")] = "",
    set_: Annotated[
        list[str], typer.Option("--set", help="Build knob or recipe field: head=bilinear, target.sigma=3.")
    ] = [],  # noqa: B006
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the whole recipe; train nothing.")] = False,
    out: Annotated[Path | None, typer.Option(help="Folder; default results/train/METHOD-SEED.")] = None,
    seed: Annotated[int, typer.Option(help="Of the weights, the order, the augmentation.", min=0)] = 0,
    epochs: Annotated[int | None, typer.Option(help="Another length; milestones in proportion.", min=1)] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1; auto takes a GPU where there is one.")] = "auto",
    workers: Annotated[int, typer.Option(help="Processes that prepare samples; 0: none.", min=0)] = 1,
    precision: Annotated[
        Precision | None,
        typer.Option(help="Of the forward pass; default: that of `accelerate launch --mixed_precision`, else float32."),
    ] = None,
    accumulate: Annotated[
        int, typer.Option(help="Compute each batch in so many pieces, where it does not fit into memory.", min=1)
    ] = 1,
    sync_norms: Annotated[bool, typer.Option("--sync-norms", help="Batch norms over all GPUs.")] = False,
    validate_every: Annotated[int, typer.Option(help="AP every so many epochs and at the end; 0: never.", min=0)] = 0,
    save_every: Annotated[int | None, typer.Option(help="Steps between states; default: an epoch.", min=1)] = None,
    minutes: Annotated[float | None, typer.Option(help="Stop then; call again to go on.", min=0)] = None,
    resume: Annotated[bool, typer.Option(help="Go on from the newest state in OUT.")] = True,
    init: Annotated[Path | None, typer.Option(help="Weights to start from, a pretrained trunk for instance.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Train a variant; writes METHOD.safetensors, log.jsonl and resumable states.

    SIGTERM and Ctrl-C save a state after the step; the same command goes on from it.
    On several GPUs: `accelerate launch -m harness train METHOD ...` or `torchrun -m harness train METHOD ...`.
    """
    began = time.monotonic()
    variant = find_variant(method)
    name, chosen = _recipe(variant, recipe)
    settings = settled(variant, with_epochs(chosen, epochs) if epochs is not None else chosen, set_)
    if dry_run:
        from harness.cli.recipe_table import show

        show(variant, name, settings, as_json)
        _tell_of_random_trunk(settings, init)
        return
    from harness.train import processes
    from harness.train.loop import Options

    precision = precision or processes.launched_precision()
    group = processes.start(_device(device))
    with group.first_goes_ahead():  # it makes the synthetic set
        dataset = _dataset(data, "train")
        judges = _dataset(data, "val") if validate_every else None
    options = Options(
        device=str(group.device),
        workers=workers,
        precision=precision,
        accumulate=accumulate,
        sync_norms=sync_norms,
        validate=_validate(variant, judges, group.device, workers),
        validate_every=validate_every,
        save_every=save_every,
        stop_after=max(0.0, minutes * 60 - (time.monotonic() - began)) if minutes is not None else None,
        resume=resume,
    )
    folder = out or Path("results/train") / f"{variant.name}-{seed}"
    facts = {"recipe_name": name, "data_name": dataset.name, "command": provenance.command()}
    network = _network(variant, settings, dataset, seed, init, facts)
    from harness.train import loop

    with stopping.graceful():
        result = loop.train(
            network, variant, settings.recipe, dataset,
            out=folder, seed=seed, build=settings.build, metadata=facts, options=options,
        )  # fmt: skip
    if group.first:
        _print_result(result, as_json)


def _recipe(variant: Variant, name: str) -> tuple[str, Recipe]:
    if not variant.recipes:
        raise UserError(f"{variant.name} has no training recipe", hint="`paretopose methods` lists what can be trained")
    name = name or next(iter(variant.recipes))
    if name not in variant.recipes:
        what, hint = unknown_name(f"recipe of {variant.name}", name, variant.recipes)
        raise SuiteError(what, hint=hint)
    return name, variant.recipes[name]


_TITLES = {"crowdpose": "CrowdPose", "mpii": "MPII"}
_LAYOUTS = {
    "coco": ("annotations/person_keypoints_{}2017.json", "{}2017", {}),
    "synthetic": ("annotations/person_keypoints_{}2017.json", "{}2017", {}),
    "crowdpose": ("annotations/mmpose_crowdpose_{}.json", "images", {}),
    "mpii": ("annot/{}.json", "images", {"val": "valid"}),
}
"""by set: annotations and images below its root, and its own names of the splits"""


def _dataset(text: str, split: Literal["train", "val"]) -> coco.Dataset:
    """The split of what --data names. DataError where the standard layout of that set is not there."""
    kind, _, path = text.partition("=")
    if text == "synthetic":
        root = synthetic_folder(split)
    elif kind in _LAYOUTS and kind != "synthetic" and path:
        root = Path(path).expanduser()
    else:
        raise SuiteError(f"--data {text}", expected="coco=ROOT, crowdpose=ROOT, mpii=ROOT or synthetic")
    file, folder, names = _LAYOUTS[kind]
    own = names.get(split, split)
    annotations, images, heads = root / file.format(own), root / folder.format(own), root / f"annot/gt_{own}.mat"
    for needed in (annotations, images):
        if not needed.exists():
            what = "training" if split == "train" else "validation"
            expected = f"{needed.relative_to(root)} below it"
            raise DataError(f"no {_TITLES.get(kind, 'COCO')} {what} set", where=str(root), expected=expected)
    if kind in ("crowdpose", "mpii"):
        scored = heads if kind == "mpii" and heads.is_file() else None
        return sets.load(annotations, images, heads=scored, name=f"{kind}_{own}")
    return coco.load(annotations, images, name=f"{kind}_{split}2017")


def _device(name: str) -> str:
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise UserError(f"--device {name}: no GPU is usable here", hint="--device cpu")
    return name


def _validate(variant: Variant, dataset: coco.Dataset | None, device: Any, workers: int) -> Any:
    if dataset is None:
        return None
    from harness.train.validation import validator

    return validator(variant, dataset, device=str(device), workers=workers)


def _network(
    variant: Variant, settings: Settings, dataset: coco.Dataset, seed: int, init: Path | None, facts: dict[str, str]
) -> Any:
    """The network with the random weights of the seed, started from `init`; `facts` gets what it started from."""
    from harness.train import checkpoints

    network, _ = checkpoints.open_variant(
        variant, None,
        num_joints=dataset.skeleton.num_joints, input_size=settings.input_size, seed=seed, **settings.build,
    )  # fmt: skip
    facts["init"] = f"random weights of seed {seed}"
    if init is not None:
        report = checkpoints.load_into(network, variant, init, initialise=True)
        facts["init"] = f"{init.name} sha256:{report.sha256[:16]}"
        print(f"{init}: layout {report.layout}, {len(report.missing)} tensors keep random values", file=sys.stderr)
        for note in report.notes:
            print(f"note: {note}", file=sys.stderr)
    _tell_of_random_trunk(settings, init)
    return network


def _tell_of_random_trunk(settings: Settings, init: Path | None) -> None:
    """Where the recipe is made for a pretrained trunk and `init` gives none."""
    if settings.recipe.trunk and init is None:
        print(
            f"the recipe starts from a pretrained trunk (layout {settings.recipe.trunk}), this command from random"
            " weights: --init FILE gives one",
            file=sys.stderr,
        )


def _print_result(result: TrainResult, as_json: bool) -> None:
    plain = {
        "done": result.done,
        "weights": str(result.weights) if result.done else None,
        "best": str(result.best) if result.best else None,
        "epochs": result.epochs,
        "steps": result.steps,
        "samples": result.samples,
        "loss": result.loss,
        "images_per_second": result.images_per_second,
        "scores": dict(result.scores),
    }
    if as_json:
        print(json.dumps(plain, indent=2))
    elif result.done:
        print(f"{result.weights}: {result.epochs} epochs over {result.samples} samples, loss {result.loss:.4g}")
    else:
        print(f"stopped after {result.steps} steps, loss {result.loss:.4g}: the same command goes on")

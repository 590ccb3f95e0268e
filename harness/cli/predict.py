"""`predict`: poses on photographs as COCO-format JSON and drawn pictures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from harness.errors import DataError, UserError

__all__ = ["predict"]

_IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"}


def predict(
    method: Annotated[str, typer.Argument(help="Variant, see `paretopose methods`.")],
    images: Annotated[list[Path], typer.Argument(help="Photographs, or folders of them.")],
    weights: Annotated[
        Path | None, typer.Option(help="Weights file; the tiny variants have theirs in the project.")
    ] = None,
    boxes: Annotated[
        Path | None,
        typer.Option(
            help="Person boxes of a top-down network: a COCO annotation or detection file. Without it a "
            "photograph is one box. One-stage networks need none."
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for predictions.json, results.json and the pictures.")] = Path(
        "results/predict"
    ),
    set_: Annotated[list[str], typer.Option("--set", help="Knob or protocol field: alpha=0.3, flip=false.")] = [],  # noqa: B006
    threshold: Annotated[
        float | None, typer.Option(help="Joints below this score are not drawn; default: 0.2, one-stage 0.05.")
    ] = None,
    person_threshold: Annotated[
        float, typer.Option(help="One-stage: persons below this score are in the files and not drawn.")
    ] = 0.5,
    tokens: Annotated[
        bool, typer.Option("--tokens", help="Also draw which regions were refined, and the pose before and after.")
    ] = False,
    device: Annotated[str, typer.Option(help="cpu, cuda ...")] = "cpu",
    batch: Annotated[int, typer.Option(min=1, help="Persons in one forward pass; one-stage: images of one size.")] = 16,
    workers: Annotated[int, typer.Option(min=0, help="Threads that read, crop and draw.")] = 2,
    as_json: Annotated[bool, typer.Option("--json", help="Print the predictions instead of a summary.")] = False,
) -> None:
    """Poses on photographs: COCO-format JSON and drawn pictures."""
    from harness.cli.run import TerminalProgress
    from harness.pictures.photographs import predict_photographs

    if boxes is not None and not boxes.is_file():
        raise DataError("there is no such boxes file", where=str(boxes))
    progress = TerminalProgress()
    written = predict_photographs(
        method, _files(images), weights=weights, boxes=boxes, out=out,
        assignments=set_, threshold=threshold, device=device, progress=progress, tokens=tokens,
        person_threshold=person_threshold, batch=batch, workers=workers,
    )  # fmt: skip
    if as_json:
        typer.echo(json.dumps(written.coco))
        return
    persons, photographs = len(written.coco["annotations"]), len(written.coco["images"])
    typer.echo(f"{persons} persons on {photographs} photographs: {written.file}, pictures beside it in {out}")


def _files(places: list[Path]) -> list[Path]:
    """The photographs among files and folders, in order; UserError when there is none."""
    files: list[Path] = []
    for place in places:
        if place.is_dir():
            files += sorted(p for p in place.iterdir() if p.suffix.lower() in _IMAGE_SUFFIXES)
        elif place.is_file():
            files.append(place)
        else:
            raise UserError("there is no such photograph or folder", where=str(place))
    if not files:
        raise UserError(
            "no photograph found",
            where=", ".join(map(str, places)),
            expected="files ending in .jpg, .png ...",
        )
    return files

"""The command `paretopose`: finds a verb, imports only its file, turns errors into one message and an exit code."""

from __future__ import annotations

import importlib
import sys
from typing import Any, NamedTuple

import typer
from typer.core import TyperGroup

from harness.errors import HarnessError, UserError

__all__ = ["app", "main"]


_UsageError: type[Any] = typer.BadParameter.__bases__[0]  # click's; newer versions of typer carry their own click


class _Verb(NamedTuple):
    module: str
    attribute: str  # a function, or a Typer app for a verb with sub-verbs
    help: str


# fmt: off
VERBS: dict[str, _Verb] = {
    "run": _Verb(
        "harness.cli.run", "run",
        "Measure what a suite file asks for and is missing; print the table, write the report.",
    ),
    "plan": _Verb(
        "harness.cli.run", "plan",
        "Show what `run` would do: cells, shared passes, minutes, disk. Runs nothing.",
    ),
    "report": _Verb(
        "harness.cli.report", "report",
        "Tables and figures from records: Markdown, LaTeX, CSV, PNG, SVG, PDF.",
    ),
    "choose": _Verb(
        "harness.cli.choose", "choose",
        "The best configurations within a budget of gmacs or milliseconds, from records.",
    ),
    "explain": _Verb(
        "harness.cli.explain", "explain",
        "Where a number comes from: code, weights, data, boxes, protocol, machine, command.",
    ),
    "evaluate": _Verb(
        "harness.cli.evaluate", "evaluate",
        "AP of a result file with intervals; --against another one: paired difference.",
    ),
    "gate": _Verb(
        "harness.cli.gate", "gate",
        "Has the candidate become worse than the baseline? Verdict for each metric, exit code.",
    ),
    "methods": _Verb("harness.cli.methods", "methods", "Every variant: parameters, gmacs, published figures."),
    "cost": _Verb(
        "harness.cli.cost", "cost",
        "Where the multiply-accumulates of a network are, under every convention.",
    ),
    "latency": _Verb("harness.cli.latency", "latency", "Milliseconds under a stated protocol, methods interleaved."),
    "forward": _Verb(
        "harness.cli.forward", "forward",
        "Raw outputs of a network for given arrays, to check a checkpoint.",
    ),
    "predict": _Verb("harness.cli.predict", "predict", "Poses on photographs: COCO-format JSON and drawn pictures."),
    "train": _Verb("harness.cli.train", "train", "Train a variant; writes safetensors and a resumable state."),
    "export": _Verb("harness.cli.export", "export", "A network as an ONNX file that gives the same numbers."),
    "weights": _Verb("harness.cli.weights", "app", "Look into checkpoint files and convert them."),
    "data": _Verb("harness.cli.data", "app", "Make the synthetic set; check a data set before hours are spent."),
    "store": _Verb("harness.cli.store", "app", "Bring in the records of another machine; free space."),
    "doctor": _Verb("harness.cli.doctor", "doctor", "What is missing on this machine, and how to get it."),
}
# fmt: on


class _LazyGroup(TyperGroup):
    """Imports the file of a verb when it is called, so that `--help` and verbs without networks stay quick."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: Any, name: str) -> Any:
        if name not in VERBS:
            return None
        verb = VERBS[name]
        if ctx.resilient_parsing or ctx.meta.get("listing"):
            return typer.main.get_command(_stub(name, verb.help))
        target = getattr(importlib.import_module(verb.module), verb.attribute)
        if not isinstance(target, typer.Typer):
            single = typer.Typer(add_completion=False)
            single.command(name, help=verb.help)(target)
            target = single
        command = typer.main.get_command(target)
        command.help, command.name = verb.help, name
        return command

    def format_help(self, ctx: Any, formatter: Any) -> None:
        ctx.meta["listing"] = True
        super().format_help(ctx, formatter)


def _stub(name: str, text: str) -> typer.Typer:
    """A command that only carries its name and help, for the listing."""
    stub = typer.Typer(add_completion=False)
    stub.command(name, help=text)(lambda: None)
    return stub


app = typer.Typer(cls=_LazyGroup, no_args_is_help=True, pretty_exceptions_enable=False, add_completion=True)


@app.callback()
def _root(
    debug: bool = typer.Option(False, "--debug", help="Show the traceback of an error."),
) -> None:
    """Accuracy against cost for human pose estimation, as numbers that can be trusted."""


def main() -> None:
    """Entry point; the exit code of a HarnessError is its own."""
    debug = "--debug" in sys.argv
    if debug:
        sys.argv.remove("--debug")
    try:
        sys.exit(app(prog_name="paretopose", standalone_mode=False))
    except _UsageError as error:
        error.show()
        sys.exit(UserError.exit_code)
    except (typer.Abort, KeyboardInterrupt):
        print("stopped", file=sys.stderr)
        sys.exit(130)
    except HarnessError as error:
        if debug:
            raise
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except Exception as error:  # a fault of ours must not look like a verdict: exit 1 is a regression
        if debug:
            raise
        print(f"error: {type(error).__name__}: {error}\n  to do: --debug shows where", file=sys.stderr)
        sys.exit(HarnessError.exit_code)


if __name__ == "__main__":
    main()

"""A YAML file -> plain values, with the line of every key, so that an error can say where it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from harness.errors import SuiteError, unknown_name

__all__ = ["Fault", "Marked", "named_value", "override", "parse_value", "read", "validate"]

Path_ = tuple[str | int, ...]
Model = TypeVar("Model", bound=BaseModel)
_MOST_BYTES = 1_000_000
_MOST_NODES = 100_000  # a few nested aliases can expand to billions of nodes
_MOST_DIGITS = 40
_LONGEST_KEY = 200
_KEYS = "the README's section 'Suite files' lists every key"
_KINDS: Mapping[type, Sequence[str]] = {
    yaml.ScalarNode: ("str", "int", "float", "bool", "null", "merge"),
    yaml.SequenceNode: ("seq",),
    yaml.MappingNode: ("map",),
}


class Fault(ValueError):
    """What a validator finds: `place` is the key below its own where it is to be shown, `hint` what to do."""

    def __init__(self, what: str, place: Path_ = (), hint: str = "") -> None:
        super().__init__(what)
        self.place, self.hint = place, hint


class Marked(dict[str, Any]):
    """A mapping read from a file; `lines` maps the path of each key or item to its line (from 1)."""

    source: str = ""
    lines: Mapping[Path_, int] = {}

    def where(self, path: Path_ = ()) -> str:
        """`file:line` of the key at `path`, or of the nearest one above it."""
        for end in range(len(path), -1, -1):
            if path[:end] in self.lines:
                return f"{self.source}:{self.lines[path[:end]]}"
        return self.source


def read(path: Path) -> Marked:
    """The mapping in a YAML file. SuiteError for a missing, malformed or oversized one; nothing is executed."""
    try:
        with path.open("rb") as stream:
            data = stream.read(_MOST_BYTES + 1)
        text = data.decode("utf-8")
    except (OSError, ValueError) as error:
        raise SuiteError(f"cannot read the suite: {error}", where=str(path), hint="see suites/ for examples") from error
    if len(data) > _MOST_BYTES:
        raise SuiteError(f"more than {_MOST_BYTES:,} bytes", where=str(path), expected="a file that people can read")
    root, value = _parse(text, str(path))
    if not isinstance(value, dict):
        raise SuiteError("a suite is a mapping of keys", where=f"{path}:1", expected="name:, data:, methods:, ...")
    marked = Marked(value)
    marked.source = str(path)
    lines: dict[Path_, int] = {}
    assert root is not None
    _mark(root, (), lines)
    marked.lines = lines
    return marked


def _parse(text: str, where: str) -> tuple[yaml.Node | None, Any]:
    """The tree of a YAML text with its lines, and its plain values."""
    try:
        loader = yaml.SafeLoader(text)
        root = loader.get_single_node()
        if root is None:
            return None, None
        if _weight(root, {}) > _MOST_NODES:
            raise SuiteError("aliases expand to more than 100,000 values", where=where, hint="write them out")
        _check(root, where, set())
        return root, loader.construct_document(root)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        raise SuiteError(f"not YAML: {getattr(error, 'problem', error)}", where=f"{where}{line}") from error
    except RecursionError as error:
        raise SuiteError("values are nested too deeply", where=where) from error
    except (ValueError, OverflowError) as error:  # a number that is none
        raise SuiteError(f"not YAML: {error}", where=where) from error


def _check(node: yaml.Node, where: str, seen: set[int]) -> None:
    """SuiteError, with the line, for all but plain texts, numbers, lists and mappings, and for a key that is twice."""
    if id(node) in seen:
        return
    seen.add(id(node))
    kind, line = node.tag.removeprefix("tag:yaml.org,2002:"), f"{where}:{node.start_mark.line + 1}"
    if kind not in _KINDS.get(type(node), ()):
        hint = "put it in quotes" if kind == "timestamp" else ""
        raise SuiteError(f"a value of type {node.tag[:100]}", where=line, expected="plain values", hint=hint)
    if kind in ("int", "float") and len(node.value) > _MOST_DIGITS:
        raise SuiteError(f"a number of {len(node.value)} digits", where=line)
    if isinstance(node, yaml.MappingNode):
        _check_keys(node, where)
    for _, _, value in _children(node):
        _check(value, where, seen)


def _check_keys(node: yaml.MappingNode, where: str) -> None:
    seen: set[str] = set()
    for key, _ in node.value:
        line = f"{where}:{key.start_mark.line + 1}"
        if not isinstance(key, yaml.ScalarNode) or len(key.value) > _LONGEST_KEY:
            raise SuiteError("a key that is no word", where=line)
        if key.value in seen:
            raise SuiteError(f"the key '{key.value}' is there twice", where=line)
        seen.add(key.value)
        _check(key, where, set())


def _children(node: yaml.Node) -> list[tuple[str | int, yaml.Node, yaml.Node]]:
    """(key or index, node that carries the line, value) of a mapping or sequence node."""
    if isinstance(node, yaml.MappingNode):
        # a key that is no word is refused later; its text could be as long as all its aliases together
        return [(key.value if isinstance(key, yaml.ScalarNode) else "?", key, value) for key, value in node.value]
    if isinstance(node, yaml.SequenceNode):
        return [(index, value, value) for index, value in enumerate(node.value)]
    return []


def _weight(node: yaml.Node, known: dict[int, int]) -> int:
    """How many values a node expands to; a long text counts as several."""
    if id(node) not in known:
        known[id(node)] = _MOST_NODES  # a cycle counts as too many
        own = len(node.value) // 100 if isinstance(node, yaml.ScalarNode) else 0
        known[id(node)] = 1 + own + sum(_weight(value, known) for _, _, value in _children(node))
    return known[id(node)]


def _mark(node: yaml.Node, path: Path_, lines: dict[Path_, int]) -> None:
    for key, marked, value in _children(node):
        lines[(*path, key)] = marked.start_mark.line + 1
        _mark(value, (*path, key), lines)


def named_value(pair: str, option: str, expected: str) -> tuple[str, str]:
    """The two sides of `NAME=VALUE` as given to `option`; SuiteError when one is missing."""
    name, sign, text = pair.partition("=")
    if not sign or not name:
        raise SuiteError(f"{option} {pair}", expected=expected)
    return name, text


def override(values: Marked, assignments: Sequence[str]) -> None:
    """Apply `key.path=value` in place; the value is read as YAML, an integer segment is a list index."""
    for assignment in assignments:
        key, text = named_value(assignment, "--set", "key.path=value, for example protocol.flip=false")
        *parents, last = key.split(".")
        place: Any = values
        for segment in parents:
            place = _descend(place, segment, assignment)
        if isinstance(place, list):
            _descend(place, last, assignment)
            place[int(last)] = parse_value(text, f"--set {assignment}")
        else:
            place[last] = parse_value(text, f"--set {assignment}")


def parse_value(text: str, where: str) -> Any:
    """A value given on the command line, read as YAML; SuiteError when it is none."""
    try:
        return _parse(text, "")[1]
    except SuiteError as error:
        raise SuiteError(f"'{text[:200]}' is no value", where=where, expected="a number, a word, [a, list]") from error


def _descend(place: Any, segment: str, assignment: str) -> Any:
    if isinstance(place, list):
        if not segment.isdigit() or int(segment) >= len(place):
            raise SuiteError(f"--set {assignment}: no item {segment}", expected=f"0 to {len(place) - 1}")
        return place[int(segment)]
    if place.get(segment) is None or isinstance(place.get(segment), bool):
        place[segment] = {}
    if not isinstance(place[segment], dict | list):
        raise SuiteError(f"--set {assignment}: '{segment}' holds a plain value", expected="a mapping or a list")
    return place[segment]


def validate(model: type[Model], values: Marked) -> Model:
    """`values` as `model`; every fault is listed with file:line, unknown keys with the near ones."""
    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        faults = [_describe(model, values, fault) for fault in error.errors()]
        hints = [getattr(_raised(fault), "hint", "") or _KEYS for fault in error.errors()]
        raise SuiteError("\n".join(dict.fromkeys(faults)), hint="; ".join(dict.fromkeys(hints))) from None


def _describe(model: type[BaseModel], values: Marked, fault: Any) -> str:
    path: Path_ = ()
    raised = _raised(fault)
    for segment in (*fault["loc"], *getattr(raised, "place", ())):
        if (*path, segment) in values.lines or not _is_branch(segment):
            path = (*path, segment)
    where = values.where(path)
    if fault["type"] == "extra_forbidden":
        what, hint = unknown_name("key", str(path[-1]), _keys_at(model, path[:-1]))
        return f"{where}: {what}. {hint}"
    key = f"{'.'.join(map(str, path))}: " if path else ""
    return f"{where}: {key}{fault['msg'] if raised is None else raised}"


def _raised(fault: Any) -> Exception | None:
    """What a validator of ours raised; pydantic's own message begins with words about itself."""
    error = fault.get("ctx", {}).get("error")
    return error if isinstance(error, Exception) else None


def _is_branch(segment: str | int) -> bool:
    """Pydantic adds the name of the tried type of a union to the path; such a segment is no key of the file."""
    return isinstance(segment, str) and (
        segment[:1].isupper() or segment in ("bool", "str", "int", "float") or "[" in segment
    )


def _keys_at(model: type[BaseModel], path: Path_) -> list[str]:
    """The field names that are allowed at `path` of `model`."""
    current: type[BaseModel] = model
    for segment in path:
        if isinstance(segment, int):
            continue
        found = _model_of(current.model_fields[segment].annotation) if segment in current.model_fields else None
        if found is None:
            return []
        current = found
    return list(current.model_fields)


def _model_of(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    pick: Callable[[Any], type[BaseModel] | None] = _model_of
    return next((found for inner in getattr(annotation, "__args__", ()) if (found := pick(inner))), None)

"""What a benchmark runs, as a TOML file and as frozen dataclasses: data, models, methods, metrics.

Everything is checked when the file is read; an error names the key, the value, and what is allowed there.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Mapping
from dataclasses import asdict, field, fields
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import ConfigDict, Field, JsonValue, StrictBool, StrictFloat, StrictInt, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from captum_vit.errors import InputError, OptionError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

STRICT = ConfigDict(extra="forbid")
Kind = TypeVar("Kind")


@dataclass(frozen=True, config=STRICT)
class DataSpec:
    """Which samples: a reader of `quantus_metrics.benchmark.data` by name, and its options."""

    use: str
    options: dict[str, JsonValue] = field(default_factory=dict)


@dataclass(frozen=True, config=STRICT)
class ModelSpec:
    """A model: ``timm:NAME``, ``hf:PATH`` or ``demo:digits``; ``name`` is what tables call it.

    ``head`` is what its outputs are where its configuration lacks it: ``"labels"``, each with a probability of its
    own (`captum_vit.MultiLabel`), or ``"logit"``, one for two classes (`captum_vit.TwoClasses`).
    """

    name: str
    load: str
    checkpoint: str | None = None
    pretrained: StrictBool = True
    head: Literal["auto", "labels", "logit"] = "auto"


@dataclass(frozen=True, config=STRICT)
class MethodSpec:
    """A method of `captum_vit.METHODS`, or PLUS(...) or SkipPLUS(...) of one, with its options.

    ``grid`` lists values of options, of which those are taken that are best on other samples: see `ChooseSpec`.
    """

    name: str
    use: str = ""
    options: dict[str, JsonValue] = field(default_factory=dict)
    grid: dict[str, Annotated[list[JsonValue], Field(min_length=1)]] = field(default_factory=dict)

    @property
    def method(self) -> str:
        """The name in METHODS; that of the table unless ``use`` is another."""
        return self.use or self.name


@dataclass(frozen=True, config=STRICT)
class MetricSpec:
    """A metric of this package, or ``quantus.NAME`` of Quantus, with options of its constructor."""

    name: str
    use: str = ""
    options: dict[str, JsonValue] = field(default_factory=dict)

    @property
    def metric(self) -> str:
        """The class; that of the table unless ``use`` is another."""
        return self.use or self.name


@dataclass(frozen=True, config=STRICT)
class ChooseSpec:
    """What options are chosen by that a method has a grid of: a metric, on samples that `Spec.data` does not have."""

    data: DataSpec
    metric: MetricSpec


UNITS = ("ms", "MiB")
"""What maps cost is always measured; so these may stand where a printed number names its metric."""


@dataclass(frozen=True, config=STRICT)
class Published:
    """A number that the paper printed; its metric is one of the spec, or of `UNITS`."""

    model: str
    method: str
    metric: str
    value: StrictFloat


@dataclass(frozen=True, config=STRICT)
class Spec:
    """A benchmark: every model x every method x every metric on the same data.

    ``batch_size`` is part of what is run: samples are worked on in these groups whatever the number of
    processes, so that the numbers do not depend on it. ``precision`` is that of the weights, or ``bfloat16-mixed``
    or ``float16-mixed``: float32 weights under autocast. ``resize`` is how pictures become
    inputs: ``model`` as the model's configuration has it, mostly with a crop; ``squash`` the whole picture at the
    model's height and width, as the protocol of Chefer et al. does, with masks by nearest pixels.
    """

    title: str
    data: DataSpec
    model: list[ModelSpec]
    method: list[MethodSpec]
    metric: list[MetricSpec]
    source: str = ""
    note: str = ""
    seed: StrictInt = 0
    batch_size: Annotated[StrictInt, Field(gt=0)] = 16
    precision: Literal["float32", "float64", "bfloat16", "float16", "bfloat16-mixed", "float16-mixed"] = "float32"
    resize: Literal["model", "squash"] = "model"
    choose: ChooseSpec | None = None
    published: list[Published] = field(default_factory=list)

    def __post_init__(self) -> None:
        for kind in ("model", "method", "metric"):
            names = [part.name for part in getattr(self, kind)]
            if not names:
                raise ValueError(f"{kind}: at least one [[{kind}]] is wanted")
            if twice := sorted({name for name in names if names.count(name) > 1}):
                raise ValueError(f"{kind}: the name {twice[0]!r} is used twice; names must differ")
        if self.choose is None and (grids := [part.name for part in self.method if part.grid]):
            raise ValueError(f"choose: the data and the metric by which to choose from the grid of {grids[0]!r}")
        if self.choose is not None and not any(part.grid for part in self.method):
            raise ValueError("choose: a method with a `grid` of values to choose from")
        for number in self.published:
            for kind in ("model", "method", "metric"):
                known = [part.name for part in getattr(self, kind)]
                if getattr(number, kind) not in [*known, *(UNITS if kind == "metric" else ())]:
                    raise ValueError(f"published: no {kind} {getattr(number, kind)!r}; there are {', '.join(known)}")

    @property
    def hash(self) -> str:
        """What the numbers depend on, in twelve digits: not titles, notes and printed numbers."""
        return hash_of(self)


def hash_of(spec: Any) -> str:
    """A digest of a spec's dataclass without its titles, notes and printed numbers, in twelve digits."""
    words = ("title", "source", "note", "published")
    facts = {key: value for key, value in asdict(spec).items() if key not in words}
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:12]


def read_spec(path: str | Path) -> Spec:
    """The spec in a TOML file.

    Raises:
        InputError: no such file, or not TOML.
        OptionError: a key that is missing, unknown, or has a value that is not allowed.
    """
    return spec_of(read_toml(path, "examples/tables"), str(path))


def read_toml(path: str | Path, examples: str) -> dict[str, Any]:
    """The tables in a TOML file; an error names the folder of examples.

    Raises:
        InputError: no such file, or not TOML.
    """
    path, wanted = Path(path), "A TOML file with a spec."
    if not path.is_file():
        raise InputError(wanted, f"{str(path)!r}, which is no file", f"one of those in {examples}.")
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(wanted, f"{str(path)!r} ({error})", f"a file like those in {examples}.") from error


def spec_of(tables: dict[str, Any], where: str = "spec") -> Spec:
    """The spec in parsed TOML.

    Raises:
        OptionError: a key that is missing, unknown, or has a value that is not allowed.
    """
    return checked(Spec, _PARTS, tables, where)


def checked(kind: type[Kind], parts: Mapping[str, Any], tables: dict[str, Any], where: str) -> Kind:
    """Parsed TOML as a dataclass; ``parts`` are the dataclasses of its tables, by key.

    Raises:
        OptionError: a key that is missing, unknown, or has a value that is not allowed.
    """
    try:
        return TypeAdapter(kind).validate_python(tables)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"][:8])) or "the file"
        wanted = first["msg"].removeprefix("Value error, ")
        hint = _known(first, parts.get(str(first["loc"][0]), kind) if len(first["loc"]) > 1 else kind)
        raise OptionError(f"{where}, key {key!r}: {wanted}.", _shown(first["input"]), hint) from error


def write_spec(spec: Spec) -> str:
    """The TOML of a spec; reading it back gives an equal spec."""
    import tomli_w

    return tomli_w.dumps(_without_none(asdict(spec)))


def _without_none(table: Any) -> Any:
    """TOML has no null: what is None is left out."""
    if isinstance(table, dict):
        return {key: _without_none(value) for key, value in table.items() if value is not None}
    return [_without_none(value) for value in table] if isinstance(table, list) else table


def _shown(value: Any) -> str:
    try:
        text = repr(value)
    except RecursionError:
        return "tables in tables, too many"
    return text if len(text) <= 80 else text[:77] + "..."


_PARTS = {
    "data": DataSpec, "model": ModelSpec, "method": MethodSpec, "metric": MetricSpec, "choose": ChooseSpec,
    "published": Published,
}  # fmt: skip


def _known(error: Any, part: Any) -> str:
    """For a key that is not known or missing: those that are allowed in this part."""
    if error["type"] == "invalid-json-value":
        return "a text, a number, true or false, or a list or table of these; a date as a text."
    if error["type"] not in ("unexpected_keyword_argument", "missing"):
        return "a value of that kind; examples/tables holds specs that run."
    return "one of the keys " + ", ".join(each.name for each in fields(part))

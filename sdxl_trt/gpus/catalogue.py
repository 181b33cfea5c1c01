"""The catalogue's files: facts of each GPU, from which bandwidth and rates are computed."""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import resources

from sdxl_trt.decode import DecodeError, decode
from sdxl_trt.gpus.model import ARCHITECTURES, HALF_RATE_FORMS, Gpu

FILES = ("geforce.toml", "workstation.toml", "datacenter.toml", "soc.toml")
SEEN = ("opened", "quoted", "memory")


@dataclass(frozen=True, kw_only=True)
class Source:
    """A document."""

    title: str
    place: str
    seen: str
    """One of `SEEN`; sources.toml says what each means."""

    def __post_init__(self) -> None:
        if self.seen not in SEEN:
            raise ValueError(f"seen {self.seen!r} is none of {', '.join(SEEN)}")

    def __str__(self) -> str:
        return f"{self.title}, {self.place} ({self.seen})"


@dataclass(frozen=True, kw_only=True)
class Row:
    """What is written down of one GPU. Where two fields exclude each other, the vendor's figure is the second."""

    name: str
    aliases: tuple[str, ...] = ()
    memory_gb: int
    bus_bits: int | None = None
    gbit_s: float | None = None
    """Of each bit of the bus."""
    bandwidth_gb_s: float | None = None
    sms: int
    boost_mhz: int | None = None
    """Highest of the range where there is one."""
    fp16_tflops: float | None = None
    """Dense, accumulated in fp32."""
    tensor_rate: float = 1.0
    """Part of the architecture's rate that this model's tensor cores are held to."""
    int8_tops: float | None = None
    """Dense, where it is not twice fp16."""
    sources: tuple[str, ...] = ()
    """Names from sources.toml, in place of the series'."""
    from_memory: tuple[str, ...] = ()
    """The fields above that no document at hand spoke for."""
    note: str = ""

    def __post_init__(self) -> None:
        bus, rate = self.bus_bits is not None, self.gbit_s is not None
        if bus != rate or bus == (self.bandwidth_gb_s is not None):
            raise ValueError("give either bus_bits and gbit_s or bandwidth_gb_s")
        if (self.boost_mhz is None) == (self.fp16_tflops is None):
            raise ValueError("give either boost_mhz or fp16_tflops")
        if not 0 < self.tensor_rate <= 1:
            raise ValueError(f"tensor_rate is {self.tensor_rate}, not in 0 to 1")
        for field in self.from_memory:
            if getattr(self, field, None) is None:
                raise ValueError(f"from_memory names {field!r}, which the row does not give")


@dataclass(frozen=True, kw_only=True)
class Series:
    """GPUs of one generation and form."""

    title: str
    brand: str
    form: str
    sm: int
    sources: tuple[str, ...]
    from_memory: tuple[str, ...] = ()
    note: str = ""
    gpus: dict[str, Row]

    def __post_init__(self) -> None:
        if self.sm not in ARCHITECTURES:
            raise ValueError(f"sm {self.sm} is none of {', '.join(map(str, ARCHITECTURES))}")


def load_gpus() -> dict[str, Gpu]:
    """The catalogue by key, in the order of its files."""
    return dict(_load())


@functools.cache
def _load() -> dict[str, Gpu]:
    sources = parse_sources(_read("sources.toml"))
    return {key: gpu for file in FILES for key, gpu in parse_gpus(_read(file), sources).items()}


def _read(file: str) -> str:
    return resources.files("sdxl_trt.gpus").joinpath(file).read_text(encoding="utf-8")


def parse_sources(text: str) -> dict[str, Source]:
    """Read documents in TOML, one table per document. Raises as `parse_gpus`."""
    return {name: decode(Source, table, where=name) for name, table in tomllib.loads(text).items()}


def parse_gpus(text: str, sources: Mapping[str, Source]) -> dict[str, Gpu]:
    """Read GPUs in TOML, one table per series.

    Raises:
        DecodeError: a field is unknown, missing, mistyped or out of range; says which of which GPU.
        tomllib.TOMLDecodeError: not TOML.
    """
    gpus: dict[str, Gpu] = {}
    for name, table in tomllib.loads(text).items():
        series = decode(Series, table, where=name)
        for key, row in series.gpus.items():
            if key in gpus:
                raise DecodeError(f"{name}.{key}: stands in another series too")
            try:
                gpus[key] = _gpu(key, row, series, _cited(row.sources or series.sources, sources))
            except ValueError as error:
                raise DecodeError(f"{name}.{key}: {error}") from error
    return gpus


def _cited(names: Iterable[str], sources: Mapping[str, Source]) -> tuple[Source, ...]:
    for name in names:
        if name not in sources:
            raise ValueError(f"unknown source {name!r}")
    return tuple(sources[name] for name in names)


def _gpu(key: str, row: Row, series: Series, cited: tuple[Source, ...]) -> Gpu:
    """The GPU of a row, with what follows from it."""
    architecture = ARCHITECTURES[series.sm]
    fp16acc, derivation = _fp16_rate(row, architecture.fma)
    fp32acc = fp16acc
    if series.form in HALF_RATE_FORMS:
        fp32acc, derivation = fp16acc / 2, f"{derivation}, half of it with fp32 accumulation"
    int8 = row.int8_tops or (2 * fp16acc if architecture.int8 else None)
    return Gpu(
        key=key,
        name=f"{series.brand} {row.name}",
        aliases=row.aliases,
        series=series.title,
        sm=series.sm,
        architecture=architecture.name,
        form=series.form,
        memory_gb=row.memory_gb,
        bandwidth_gb_s=row.bandwidth_gb_s or round((row.bus_bits or 0) * (row.gbit_s or 0) / 8, 1),
        sms=row.sms,
        boost_mhz=row.boost_mhz,
        fp16_fp32acc_tflops=round(fp32acc, 2),
        fp16_fp16acc_tflops=round(fp16acc, 2),
        fp8_tflops=round(2 * fp32acc, 2) if architecture.fp8 else None,
        int8_tops=round(int8, 2) if int8 else None,
        derivation=derivation,
        source="; ".join(map(str, cited)),
        from_memory=tuple(dict.fromkeys(series.from_memory + row.from_memory)),
        note=" ".join(note.strip() for note in (row.note, series.note) if note),
    )


def _fp16_rate(row: Row, fma: int) -> tuple[float, str]:
    """10^12 operations per second with fp16 accumulation, and where they are from."""
    if row.fp16_tflops is not None:
        return row.fp16_tflops, "fp16 as the vendor prints it, other types from it"
    mhz = row.boost_mhz or 0
    rate = f" x {row.tensor_rate:g}" if row.tensor_rate != 1 else ""
    return (
        row.sms * fma * 2 * mhz * row.tensor_rate / 1e6,
        f"{row.sms} SMs x {fma} FMA x 2 x {mhz / 1000:g} GHz{rate}",
    )

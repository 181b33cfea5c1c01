"""The serving benchmark: its load, its padded batches, and its simulation, in which nobody is lost or starved."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from numpy_step import TOKENS, NumpyStep
from step_requests import HEIGHT, WIDTH, make_request, straight

from benchmarks import serve, serve_simulated
from benchmarks.serving.comparing import WAYS, Run, aims, beside
from benchmarks.serving.estimates import Estimate
from benchmarks.serving.figures import FAIRNESS, OCCUPANCY, RATE, Served, figures, jain, latency
from benchmarks.serving.load import BURST, CLIENTS, GREEDY, SHORT, Arrival, Asked, beside_greedy, deck, poisson
from benchmarks.serving.plot import Panel, latency_plot
from benchmarks.serving.simulate import StepLevel, serve_batches
from benchmarks.serving.tuning import Measured, tune
from benchmarks.serving.turns import Gather
from benchmarks.serving.ways import OneAtATime, RequestLevel, denoise
from benchmarks.serving.ways import StepLevel as RealStepLevel
from sdxl_trt.runtime.device import HostDevice
from sdxl_trt.runtime.loop import Loop
from sdxl_trt.runtime.noise import TorchGenerator
from sdxl_trt.runtime.serve.scheduler import PATIENCE
from sdxl_trt.spec import ModelSpec

SMALL, LARGE = (96, 96), (128, 128)
SVG = "{http://www.w3.org/2000/svg}"
SHORTEST = Asked(steps=1, guided=False, size=SMALL)
LONGEST = Asked(steps=30, guided=True, size=LARGE)


@dataclass(frozen=True, kw_only=True)
class Linear:
    """A device on which every row takes as long, and nothing else takes time."""

    slots: int = 4
    row: float = 0.01

    def step(self, rows: int, size: tuple[int, int]) -> float:
        return self.row * rows

    def begin(self, asked: Asked) -> float:
        return 0.0

    def finish(self, size: tuple[int, int]) -> float:
        return 0.0

    def alone(self, asked: Asked) -> float:
        return self.row * asked.rows * asked.steps


DEVICE = Linear()
CARDS = deck((SMALL, LARGE))
MEAN = float(np.mean([DEVICE.alone(card) for card in CARDS]))


def at(moment: float, asked: Asked = SHORTEST, client: str = "ann", number: int = 0) -> Arrival:
    return Arrival(number=number, at=moment, asked=asked, client=client)


def numbered(arrivals: Sequence[Arrival]) -> list[Arrival]:
    return [replace(each, number=number) for number, each in enumerate(sorted(arrivals, key=lambda each: each.at))]


def step_level(arrivals: Sequence[Arrival]) -> Served:
    return StepLevel(DEVICE, (SMALL, LARGE))(arrivals)


def ways() -> dict[str, Callable[[Sequence[Arrival]], Served]]:
    return {
        "one at a time": partial(serve_batches, DEVICE, gather=Gather(slots=1)),
        "request-level": partial(serve_batches, DEVICE, gather=Gather(slots=4, window=0.2)),
        "step-level": step_level,
    }


def test_requests_come_as_a_poisson_process_does() -> None:
    """Gaps of mean 1/rate and of as large a deviation; counts of seconds whose variance is their mean."""
    moments = np.array([each.at for each in poisson(CARDS, 4.0, 4000, seed=3)])
    gaps = np.diff(moments, prepend=0.0)
    assert gaps.min() >= 0
    assert gaps.mean() == pytest.approx(1 / 4, rel=0.05)
    assert gaps.std() / gaps.mean() == pytest.approx(1, rel=0.05)
    counts = np.bincount(moments.astype(int))[:-1]
    assert counts.var() / counts.mean() == pytest.approx(1, rel=0.15)


def test_a_seed_gives_the_same_requests_and_another_others() -> None:
    for make in (poisson, beside_greedy):
        assert make(CARDS, 4.0, 100, seed=1) == make(CARDS, 4.0, 100, seed=1)
        assert make(CARDS, 4.0, 100, seed=1) != make(CARDS, 4.0, 100, seed=2)


def test_every_run_of_a_deck_asks_for_the_same_work() -> None:
    """A third of it short and without guidance, all sizes as often, whatever the order."""
    arrivals = poisson(CARDS, 1.0, 2 * len(CARDS), seed=5)
    assert Counter(each.asked for each in arrivals) == dict.fromkeys(CARDS, 2)
    assert sum(card.short for card in CARDS) * 3 == len(CARDS)
    assert all(card.short == (not card.guided) for card in CARDS)
    assert {card.steps for card in CARDS if card.short} == set(SHORT)
    assert max(card.steps for card in CARDS) == 30
    assert {each.client for each in arrivals} == set(CLIENTS)
    assert [each.number for each in arrivals] == list(range(len(arrivals)))


def test_the_greedy_client_makes_half_of_the_requests_in_bursts() -> None:
    arrivals = beside_greedy(CARDS, 4.0, 8 * BURST, seed=1)
    greedy = Counter(each.at for each in arrivals if each.client == GREEDY)
    assert set(greedy.values()) == {BURST}
    assert greedy.total() * 2 == len(arrivals)
    assert [each.at for each in arrivals] == sorted(each.at for each in arrivals)


def test_a_padded_batch_keeps_all_rows_and_gives_the_pictures_of_single_runs(toy_model: ModelSpec) -> None:
    engine = NumpyStep(toy_model)
    loop = Loop(engine, HostDevice(), slots=3, height=HEIGHT, width=WIDTH, tokens=TOKENS)
    plans = [(1, 5, True), (2, 2, False), (3, 3, True)]
    found = denoise(loop, [make_request(seed, steps, guided=guided) for seed, steps, guided in plans])
    assert engine.rows == [[0, 0, 1, 2, 2]] * 5
    assert loop.free == 3
    for (seed, steps, guided), latents in zip(plans, found, strict=True):
        wanted, _ = straight(make_request(seed, steps, guided=guided), TorchGenerator(seed))
        np.testing.assert_array_equal(latents, wanted)


def test_a_batch_is_of_one_size_and_waits_until_it_is_full_or_its_window_is_over() -> None:
    gather = Gather(slots=2, window=1.0)
    first, other, second = at(0.0), at(0.1, LONGEST), at(0.2)
    assert gather([], 0.0) == []
    assert gather([first, other], 0.9) == []
    assert gather([first, other], 1.0) == [first]
    assert gather([first, other, second, at(0.3)], 0.3) == [first, second]
    guided = at(0.2, Asked(steps=9, guided=True, size=SMALL))
    assert Gather(slots=2)([first, guided], 0.2) == [first, guided]
    assert Gather(slots=2, apart=True)([first, guided], 0.2) == [first]


def test_a_simulated_batch_takes_as_long_as_its_longest_with_all_rows() -> None:
    """And what comes meanwhile waits for its end."""
    short, long = Asked(steps=2, guided=False, size=LARGE), LONGEST
    arrivals = numbered([at(0.0, long), at(0.0, short), at(0.1, short)])
    served = serve_batches(DEVICE, arrivals, Gather(slots=2))
    assert served.finished == pytest.approx([30 * 0.03, 30 * 0.03, 30 * 0.03 + 2 * 0.01])
    assert (served.steps, served.rows) == (32, 30 * 3 + 2)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("load", [0.5, 0.9, 1.5])
def test_every_request_ends_once_and_none_before_its_steps_can_be_done(way: str, load: float) -> None:
    arrivals = poisson(CARDS, load / MEAN, 200, seed=7)
    served = ways()[way](arrivals)
    assert len(served.finished) == len(arrivals)
    assert all(took >= DEVICE.alone(each.asked) - 1e-9 for took, each in zip(served.latencies, arrivals, strict=True))
    work = sum(each.asked.rows * each.asked.steps for each in arrivals)
    assert served.rows >= work if way == "request-level" else served.rows == work
    assert max(served.finished) >= served.rows * DEVICE.row - 1e-9
    assert ways()[way](arrivals) == served


def test_one_at_a_time_waits_as_long_as_queueing_theory_says() -> None:
    """Pollaczek and Khinchine: λ·E[S²] / (2 − 2ρ), at 0.7 of the capacity."""
    arrivals = poisson(CARDS, 0.7 / MEAN, 12_000, seed=2)
    served = serve_batches(DEVICE, arrivals, Gather(slots=1))
    times = np.array([DEVICE.alone(each.asked) for each in arrivals])
    waited = np.array(served.latencies) - times
    rate = len(arrivals) / arrivals[-1].at
    wanted = rate * (times**2).mean() / (2 * (1 - rate * times.mean()))
    assert waited.mean() == pytest.approx(wanted, rel=0.15)


def test_a_long_request_is_overtaken_for_a_bounded_time_by_however_many_short_ones() -> None:
    """Of L seconds of work, by those alone that come at most PATIENCE · L after it; more come than can be done."""
    brief = Asked(steps=8, guided=False, size=SMALL)
    own, every = DEVICE.alone(LONGEST), 0.8 * DEVICE.alone(brief)
    stream = [at(every * i, brief, f"client {i}") for i in range(1, round(2 * PATIENCE * own / every))]
    served = StepLevel(DEVICE, (SMALL, LARGE))(numbered([at(0.0, LONGEST, "patient"), *stream]))
    ended = served.finished[0]
    overtook = [each.at for each, moment in zip(stream, served.finished[1:], strict=True) if moment < ended]
    assert max(overtook) <= PATIENCE * own
    assert max(overtook) > 0.7 * PATIENCE * own, "the bound was not put to the test"


def test_a_client_with_one_request_is_not_starved_by_one_with_a_hundred() -> None:
    """It comes when a third of them is done, and waits for as much of the others as it brings itself at most."""
    each = Asked(steps=4, guided=True, size=LARGE)
    come = 33 * DEVICE.alone(each)
    for asked in (LONGEST, each):
        arrivals = numbered([*(at(0.0, each, GREEDY) for _ in range(100)), at(come, asked, "modest")])
        served = StepLevel(DEVICE, (LARGE,))(arrivals)
        ended = served.finished[-1]
        assert sum(come < moment < ended for moment in served.finished) <= DEVICE.alone(asked) / DEVICE.alone(each) + 2
        assert max(served.finished) > 2 * ended
        assert serve_batches(DEVICE, arrivals, Gather(slots=1)).finished[-1] > 2 * ended


def test_short_requests_are_answered_sooner_step_by_step_and_nothing_is_lost_for_it() -> None:
    arrivals = poisson(CARDS, 0.8 / MEAN, 400, seed=1)
    run = Run(
        load=0.8, greedy=False, served={way: serve(arrivals) for way, serve in ways().items()}, alone=DEVICE.alone
    )
    found = aims(run)
    assert [aim.bound for aim in found] == [3.0, 0.99, 2.0, 0.99]
    assert all(aim.met for aim in found), "\n".join(map(str, found))


def test_figures_are_those_of_the_latencies() -> None:
    arrivals = numbered([at(0.0, SHORTEST, "a"), at(1.0, SHORTEST, "b"), at(2.0, LONGEST, "b")])
    served = Served(arrivals=arrivals, finished=[2.0, 2.0, 8.0], steps=32, rows=64)
    found = figures(served, lambda _: 1.0)
    assert (found[latency(50, "short")], found[latency(50, "all")]) == (1.5, 2.0)
    assert found[latency(95, "all")] == pytest.approx(5.6)
    assert (found[RATE], found[OCCUPANCY]) == (3 / 8, 2.0)
    assert served.slowdowns(lambda _: 1.0) == {"a": 2.0, "b": 3.5}
    assert found[FAIRNESS] == pytest.approx(jain([2.0, 3.5]))
    assert jain([3.0, 3.0, 3.0]) == pytest.approx(1)
    assert jain([1.0, 0.0, 0.0, 0.0]) == pytest.approx(1 / 4)


def test_ratios_say_how_many_times_as_soon_and_as_much() -> None:
    arrivals = numbered([at(0.0, SHORTEST, "a"), at(0.0, SHORTEST, GREEDY)])
    took = dict(zip(WAYS, ([6.0, 6.0], [4.0, 4.0], [2.0, 2.0]), strict=True))
    served = {way: Served(arrivals=arrivals, finished=ends, steps=1, rows=2) for way, ends in took.items()}
    rows = beside(Run(load=0.8, greedy=True, served=served, alone=lambda _: 1.0))
    assert [row.median for row in rows[:4]] == [3.0, 3.0, 2.0, 2.0]
    assert [(row.who, row.what, row.samples) for row in rows[-2:]] == [
        ("step-level", "0.8×, greedy: slowdown, modest", (2.0,)),
        ("step-level", "0.8×, greedy: slowdown, greedy", (2.0,)),
    ]


def test_request_level_batching_is_given_its_best() -> None:
    """Where rows cost nothing beside a step, full batches that wait are best; where each costs, small ones."""
    arrivals = poisson(CARDS, 0.8 / MEAN, 300, seed=4)
    rest = dict.fromkeys((SMALL, LARGE), 0.0)
    flat, steep = (
        Measured(slots=4, rest=rest, steps={size: {rows: MEAN * cost(rows) for rows in range(1, 9)} for size in rest})
        for cost in (lambda _: 1 / 6, lambda rows: rows / 28)
    )
    best = tune(flat, arrivals, MEAN)
    assert best.best.slots == 4
    assert min(best.tried.values()) == best.tried[str(best).partition("0.8×: ")[2].rstrip(".")]
    assert tune(steep, arrivals, MEAN).best == Gather(slots=2, window=0.0, apart=True)


def test_estimates_are_near_what_was_published() -> None:
    """A picture of 30 guided steps at 1024² on an A100 and an H100 (NVIDIA's card of SDXL for TensorRT)."""
    picture = Asked(steps=30, guided=True, size=(1024, 1024))
    for gpu, seconds in (("a100", 2.742), ("h100", 1.471)):
        assert Estimate.of(gpu, 4).alone(picture) == pytest.approx(seconds, rel=0.25)
    for gpu in serve_simulated.GPUS:
        device = Estimate.of(gpu, 4)
        gain = 4 * device.step(2, (1024, 1024)) / device.step(8, (1024, 1024)) - 1
        assert 0.0 < gain < 0.14, gpu


def test_the_simulation_has_all_loads_and_the_arithmetic_in_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("REQUESTS", 30), ("GPUS", ("h200",)), ("LOADS", (0.5, 0.8))):
        monkeypatch.setattr(serve_simulated, name, value)
    report = serve_simulated.measure()
    assert not report.timed
    assert any("Estimated" in note for note in report.notes)
    for name, found in report.details.items():
        assert [(run["load"], run["greedy"]) for run in found["runs"]] == [(0.5, False), (0.8, False), (0.8, True)]
        assert all(set(run["ways"]) == set(WAYS) for run in found["runs"])
        for arithmetic in found["arithmetic"].values():
            assert arithmetic["seconds of a step by its rows"][2] > 0, name


def test_the_plot_has_every_figure_inside_and_larger_ones_higher() -> None:
    lines = {way: (0.05 * factor, 0.5 * factor, 40.0) for way, factor in zip(WAYS, (3, 2, 1), strict=True)}
    root = ElementTree.fromstring(latency_plot("a & b", (0.3, 0.8, 1.5), [Panel(name="<x>", lines=lines)] * 2))
    _, _, width, height = map(float, root.attrib["viewBox"].split())
    groups = list(root.iter(f"{SVG}g"))
    assert len(groups) == 2
    for group in groups:
        x, y = map(float, group.attrib["transform"][len("translate(") : -1].split())
        dots = [(x + float(dot.attrib["cx"]), y + float(dot.attrib["cy"])) for dot in group.iter(f"{SVG}circle")]
        assert len(dots) == 9
        assert all(0 < across < width and 0 < down < height for across, down in dots)
        assert all(dots[i][1] > dots[i + 1][1] > dots[i + 2][1] for i in (0, 3, 6))
        assert dots[0][1] < dots[3][1] < dots[6][1]


def test_real_engines_serve_every_request_in_each_way(demo_bundle: Path) -> None:
    sizes = ((64, 64), (96, 96))
    cards = [
        Asked(steps=steps, guided=guided, size=size) for steps, guided in ((1, False), (3, True)) for size in sizes
    ]
    arrivals = poisson(cards, 40.0, 8, seed=1)
    one, several, service = (way(demo_bundle, sizes) for way in (OneAtATime, RequestLevel, RealStepLevel))
    alone = serve.measure_alone(one, cards, 1)
    assert set(alone.seconds) == set(cards)
    work = sum(each.asked.rows * each.asked.steps for each in arrivals)
    for served in (one(arrivals), several(arrivals, Gather(slots=2)), service(arrivals)):
        assert len(served.finished) == len(arrivals)
        assert min(served.latencies) > 0
        assert served.rows == work or (served.rows > work and served.steps < work)
    assert service.service.drain(30)

"""What is believed of hardware before anything is measured on it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.hardware.datasheets import design_power_mw
from cluster.hardware.identify import hardware_class
from cluster.scheduler.plan import Demand, Offer, make_plan
from cluster.scheduler.policy import Policy
from cluster.scheduler.priors import prior_profile
from cluster.scheduler.profiles import Profile, ProfileBook
from cluster.scheduler.request import OperatingPoint, Performance, StandbyCost, Usage
from cluster.types import Precision, model_key
from un0 import DEFAULT_MODEL, load_model
from un0.config import ModelConfig
from un0.work import images_flops

GPU_NAMES = [
    "NVIDIA B200", "NVIDIA H200", "NVIDIA H200 NVL", "NVIDIA H100 80GB HBM3", "NVIDIA H100 PCIe",
    "NVIDIA H100 NVL", "NVIDIA A100-SXM4-40GB", "NVIDIA A100 80GB PCIe", "NVIDIA L40S",
    "NVIDIA L4", "NVIDIA A10G", "NVIDIA A10", "Tesla V100-SXM2-16GB", "Tesla V100-PCIE-16GB",
    "Tesla T4",
]  # fmt: skip
WORK = 1.36  # GFLOP of an image of an n = 4096 model


def prior(hardware: str, precision: Precision = "fp32", gflop: float = WORK) -> Profile:
    return prior_profile(hardware, "rev/fp32", gflop, batch_size=256, precision=precision)


def performance(hardware: str, precision: Precision = "fp32") -> Performance:
    return prior(hardware, precision).curve[0]


@given(
    hardware=st.one_of(st.sampled_from([*GPU_NAMES, "cpu", "cpu: AMD EPYC x2"]), st.text()),
    precision=st.sampled_from(["fp32", "bf16", "fp16"]),
    gflop=st.floats(1e-3, 1e3),
)
def test_a_prior_is_usable_and_bounded_whatever_the_hardware(
    hardware: str, precision: Precision, gflop: float
) -> None:
    profile = prior(hardware, precision, gflop)
    (point,) = profile.curve
    assert (profile.hardware, point.quality, point.samples) == (hardware, "estimated", 0)
    assert point.low_j is not None
    assert point.high_j is not None
    # Wide: a factor of several to either side.
    assert 0 < 3 * point.low_j < point.energy_per_image_j < point.high_j / 3
    standby = profile.standby
    assert 0 < standby.idle_w < point.power_w
    assert standby.load_s > 0
    assert standby.load_j > 0


def test_images_per_s_follow_the_work_and_the_datasheet() -> None:
    twice = prior("NVIDIA L4", gflop=2 * WORK).curve[0]
    assert twice.images_per_s == pytest.approx(performance("NVIDIA L4").images_per_s / 2)
    order = ["Tesla T4", "NVIDIA L4", "NVIDIA A100-SXM4-40GB", "NVIDIA H100 80GB HBM3"]
    rates = [performance(name, "fp16").images_per_s for name in order]
    assert rates == sorted(rates)
    # 989 of 312 TFLOP/s
    assert rates[3] / rates[2] == pytest.approx(989 / 312)
    # Three products of halves for one in fp32; tensor cores are what multiplies either.
    assert performance(order[3], "fp32").images_per_s == pytest.approx(rates[3] / 3)
    assert rates[3] < performance(order[3], "fp8").images_per_s
    assert (
        performance(order[3], "fp8").images_per_s < performance(order[3], "fp8-full").images_per_s
    )


@pytest.mark.parametrize(
    ("gflop", "precision", "measured", "joules"),
    [
        (0.0891, "fp32", 800e3, 0.835e-3), (0.0891, "bf16", 1.99e6, 0.328e-3),
        (0.0891, "fp8-full", 2.12e6, 0.263e-3), (1.104, "fp32", 148e3, 4.88e-3),
        (1.104, "bf16", 417e3, 1.66e-3), (1.104, "fp8-full", 652e3, 1.06e-3),
        (19.89, "fp32", 10.1e3, 68.5e-3), (19.89, "bf16", 30.3e3, 22.5e-3),
        (19.89, "fp8-full", 52.0e3, 13.4e-3),
    ],
)  # fmt: skip
def test_what_an_h100_did_is_within_its_prior(
    gflop: float, precision: Precision, measured: float, joules: float
) -> None:
    """docs/gpu.md."""
    point = prior("NVIDIA H100 80GB HBM3", precision, gflop).curve[0]
    usual = point.images_per_s
    assert usual / 3 <= measured <= usual * 0.7 / 0.3
    assert point.low_j is not None
    assert point.high_j is not None
    assert point.low_j <= joules <= point.high_j


def test_every_listed_gpu_has_its_own_power() -> None:
    for name in GPU_NAMES:
        design_mw = design_power_mw(name)
        assert design_mw is not None
        assert performance(name).power_w == pytest.approx(0.75 * design_mw / 1e3)


def test_a_gpu_without_bf16_gains_nothing_by_it() -> None:
    for name in ("Tesla T4", "Tesla V100-SXM2-16GB"):
        assert performance(name, "bf16") == performance(name, "fp32")
        assert performance(name, "fp16").images_per_s > performance(name, "fp32").images_per_s


def test_a_cpu_counts_by_its_threads() -> None:
    one, four = performance("cpu: AMD EPYC x1"), performance("cpu: AMD EPYC x4")
    assert four.images_per_s == pytest.approx(4 * one.images_per_s)
    assert four.energy_per_image_j == pytest.approx(one.energy_per_image_j)
    here = prior(hardware_class(None, 3))
    assert here.hardware.endswith(" x3")
    assert here.standby.idle_w < 10  # watts of some threads, not of a GPU


def test_unknown_hardware_is_used_when_it_is_all_there_is_and_learned_from() -> None:
    hardware = "the machines in the basement"
    known = prior(hardware)
    book = ProfileBook([known])
    demand = Demand(known.model, "energy", 1.0, 1000, patient=False)
    offers = {demand.key: [Offer(known, 3, 0)]}
    plan = make_plan([demand], offers, Policy())
    assert plan.nodes(hardware, known.model) >= 1
    point = known.curve[0].point
    book.observe(hardware, known.model, point, Usage(500, 5.0, 20_000, "measured_counter"))
    (profile,) = book.changed()
    learned = profile.of("png").curve[0]
    assert learned.quality == "measured_counter"
    assert learned.samples == 1


def test_a_measured_rival_inside_the_bounds_goes_first() -> None:
    """An estimate that may or may not be better than what was measured has to wait."""
    guess = prior("NVIDIA L4")
    watts = guess.curve[0].power_w
    slower = guess.curve[0].images_per_s / 2
    measured = Profile(
        "measured", guess.model, StandbyCost(10, 1, 0.001),
        (Performance(OperatingPoint(256), slower, watts, "measured_counter", samples=9),),
    )  # fmt: skip
    demand = Demand(guess.model, "energy", slower / 10, 10**6, patient=False)
    offers = {demand.key: [Offer(guess, 1, 1), Offer(measured, 1, 1)]}
    plan = make_plan([demand], offers, Policy())
    assert [rival.hardware for rival in plan.rivals[demand.key]] == ["measured", "NVIDIA L4"]


def test_the_work_of_an_image_is_that_of_its_products_and_convolutions() -> None:
    config = ModelConfig(
        n=4096, n_cond=1, num_classes=10, num_blocks=3, num_steps=10, solver="euler",
        parameterization="standard", relativization="absolute", encoding="sin_cos",
    )  # fmt: skip
    # 0.672 of the dynamics and 0.683 of the decoder
    assert images_flops(config).plain / 1e9 == pytest.approx(1.355, rel=0.01)
    assert 0 < images_flops(load_model(DEFAULT_MODEL).config).plain / 1e9 < 1


def test_a_model_key_tells_revision_and_precision() -> None:
    assert model_key("abc", "bf16") == "abc/bf16"

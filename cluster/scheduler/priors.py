from cluster.scheduler.profiles import Profile
from cluster.scheduler.terms import *


def prior_profile(hardware: str, model: str, gflop_per_image: float) -> Profile:
    return Profile(
        hardware,
        model,
        Standing(10, 5, 50),
        (Performance(OperatingPoint(64), 1000.0, 20.0, "estimated", 0.005, 0.08),),
    )

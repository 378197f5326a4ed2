"""Fixed-step solvers over a tuple of tensors; only the last state is kept."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from un0.config import Solver

State = tuple[Tensor, Tensor]
Velocity = Callable[[Tensor, Tensor], State]


def integrate(velocity: Velocity, state: State, num_steps: int, dt: float, solver: Solver) -> State:
    """Advance ``state`` by ``num_steps`` steps of length ``dt`` and return the last state."""
    step = _euler_step if solver == "euler" else _rk4_38_step
    for _ in range(num_steps):
        state = step(velocity, state, dt)
    return state


def _add(state: State, *terms: tuple[float, State]) -> State:
    theta, phi = state
    for weight, (dtheta, dphi) in terms:
        theta = theta + weight * dtheta
        phi = phi + weight * dphi
    return theta, phi


def _euler_step(velocity: Velocity, state: State, dt: float) -> State:
    return _add(state, (dt, velocity(*state)))


def _rk4_38_step(velocity: Velocity, state: State, dt: float) -> State:
    """Kutta's 3/8 rule (Kutta 1901), which torchdiffeq calls ``rk4``; not the classic tableau."""
    k1 = velocity(*state)
    k2 = velocity(*_add(state, (dt / 3, k1)))
    k3 = velocity(*_add(state, (-dt / 3, k1), (dt, k2)))
    k4 = velocity(*_add(state, (dt, k1), (-dt, k2), (dt, k3)))
    return _add(state, (dt / 8, k1), (3 * dt / 8, k2), (3 * dt / 8, k3), (dt / 8, k4))

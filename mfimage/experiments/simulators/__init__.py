"""Data whose manifold and density are known."""

from mfimage.experiments.simulators.collider import Collider
from mfimage.experiments.simulators.images import Generated, Rendered
from mfimage.experiments.simulators.lorenz import Lorenz
from mfimage.experiments.simulators.simulator import Simulator
from mfimage.experiments.simulators.surfaces import Sphere, Surface

__all__ = ["Collider", "Generated", "Lorenz", "Rendered", "Simulator", "Sphere", "Surface"]

import math

import pytest
import torch

from mfimage.experiments.simulators.events import (
    azimuth,
    boost,
    four_vector,
    invariant_mass,
    massless,
    pseudorapidity,
    to_rest_frame,
    transverse_momentum,
    two_body_decay,
    wrap,
)


def close(a, b, scale=1.0):
    torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9 * scale)


@pytest.fixture
def coordinates(generator):
    """pT, η, φ, m of 100 particles."""
    u = torch.rand(4, 100, generator=generator, dtype=torch.float64)
    return 20 + 300 * u[0], 6 * u[1] - 3, math.tau * u[2] - math.pi, 50 + 100 * u[3]


@pytest.fixture
def particles(coordinates):
    return four_vector(*coordinates)


def test_four_vectors_are_on_shell(particles, coordinates):
    energy, momentum, mass = particles[:, 0], particles[:, 1:], coordinates[3]
    close(energy.square(), momentum.square().sum(1) + mass.square(), 1e6)


def test_four_vectors_give_their_coordinates_back(particles, coordinates):
    pt, eta, phi, mass = coordinates
    close(transverse_momentum(particles), pt)
    close(pseudorapidity(particles), eta)
    close(azimuth(particles), phi)
    close(invariant_mass(particles), mass)


def test_pseudorapidity_is_that_of_the_polar_angle(particles):
    theta = torch.atan2(transverse_momentum(particles), particles[:, 3])
    close(pseudorapidity(particles), -(theta / 2).tan().log())


def test_massless_particles_have_no_mass(particles):
    assert (invariant_mass(massless(particles[:, 1:])) < 1e-4).all()  # a root of rounding, of 1000 GeV


def test_degenerate_momenta_stay_finite():
    p = torch.tensor([[1.0, 0, 0, 0], [1, 0, 0, 5], [0, 0, 0, -5], [-3, 4, 1e30, 1]], dtype=torch.float64)
    for value in (invariant_mass(p), pseudorapidity(p), azimuth(p), boost(p, p), to_rest_frame(p, p)):
        assert value.isfinite().all()
    assert invariant_mass(p).tolist() == [1, 0, 0, 0]


def test_a_particle_rests_in_its_own_frame(particles, coordinates):
    rest = to_rest_frame(particles, particles)
    close(rest[:, 0], coordinates[3])
    close(rest[:, 1:], torch.zeros(100, 3, dtype=torch.float64), 1e3)


def test_boosts_keep_every_product_and_undo_each_other(particles):
    frame, other = particles.roll(1, 0), particles.roll(2, 0)
    metric = torch.tensor([1.0, -1, -1, -1], dtype=torch.float64)
    moved, other_moved = boost(particles, frame), boost(other, frame)
    before, after = (particles * metric * other).sum(1), (moved * metric * other_moved).sum(1)
    close(after / before, torch.ones_like(before), 1e2)
    assert (moved - particles).abs().max() > 10
    close(to_rest_frame(moved, frame), particles, 1e3)


def test_a_boost_along_the_beam_is_the_textbook_one():
    beta = 0.6
    frame = torch.tensor([[1.0, 0, 0, beta]], dtype=torch.float64)
    p = torch.tensor([[5.0, 1, 2, 3]], dtype=torch.float64)
    gamma = 1 / math.sqrt(1 - beta**2)
    expected = [[gamma * (5 + beta * 3), 1, 2, gamma * (3 + beta * 5)]]
    close(boost(p, frame), torch.tensor(expected, dtype=torch.float64))


def test_decays_are_back_to_back_at_rest_and_conserve_momentum(particles, coordinates, generator):
    eta, phi = torch.randn(2, 100, generator=generator, dtype=torch.float64)
    first, second = two_body_decay(particles, eta, phi)
    close(first + second, particles, 1e3)
    for daughter in (first, second):
        close(daughter[:, 0], daughter[:, 1:].norm(dim=1), 1e2)
    a, b = to_rest_frame(first, particles), to_rest_frame(second, particles)
    close(a[:, 1:], -b[:, 1:], 1e3)
    close(a[:, 0], coordinates[3] / 2, 1e2)
    close(pseudorapidity(a), eta, 1e2)
    close(azimuth(a), phi, 1e2)


def test_angles_are_wrapped_to_one_turn():
    angles = torch.tensor([0.0, 3, 4, -4, 7, 100, -math.pi], dtype=torch.float64)
    wrapped = wrap(angles)
    assert ((wrapped >= -math.pi) & (wrapped < math.pi)).all()
    close(torch.polar(torch.ones_like(angles), wrapped), torch.polar(torch.ones_like(angles), angles))

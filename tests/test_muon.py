import pytest
import torch

from mfimage.muon import Muon, orthogonalised


@pytest.mark.parametrize("shape", [(5, 40), (40, 5), (16, 16)])
def test_updates_are_nearly_orthogonal_and_in_the_singular_directions(shape, generator):
    matrix = torch.randn(*shape, generator=generator)
    found = orthogonalised(matrix)
    u, _, vh = torch.linalg.svd(matrix, full_matrices=False)
    inside = u.mT @ found @ vh.mT
    assert ((inside.diagonal() > 0.6) & (inside.diagonal() < 1.3)).all()
    assert (inside - inside.diagonal().diag()).abs().max() < 1e-4
    torch.testing.assert_close(orthogonalised(1e3 * matrix), found, rtol=1e-4, atol=1e-4)
    assert torch.equal(orthogonalised(0 * matrix), torch.zeros(shape))


def test_a_direction_that_dwarfs_the_others_does_not_drown_them(generator):
    target = torch.randn(8, 8, generator=generator)
    scales = torch.logspace(0, -3, 8)

    def error(make):
        weight = torch.nn.Parameter(torch.zeros(8, 8))
        optimiser = make([weight])
        for step in range(400):
            for group in optimiser.param_groups:
                group["lr"] = 0.05 * (1 - step / 400)
            optimiser.zero_grad()
            ((weight - target) * scales).square().sum().backward()
            optimiser.step()
        return float((weight - target).detach().square().mean())

    assert error(lambda weights: Muon(weights, 0.05, 0.0)) < 0.1 * error(
        lambda weights: torch.optim.SGD(weights, 0.05)
    )


def test_kernels_are_updated_as_matrices_and_untouched_without_a_gradient(generator):
    kernel = torch.nn.Parameter(torch.randn(5, 3, 2, 2, generator=generator))
    other, before = torch.nn.Parameter(torch.ones(2, 2)), kernel.detach().clone()
    optimiser = Muon([kernel, other], 0.1)
    gradient = torch.randn(5, 3, 2, 2, generator=generator)
    (kernel * gradient).sum().backward()
    optimiser.step()
    expected = 0.99 * before - 0.1 * orthogonalised(1.95 * gradient.flatten(1)).view_as(kernel)
    torch.testing.assert_close(kernel.detach(), expected)
    assert torch.equal(other.detach(), torch.ones(2, 2))


def test_what_draws_an_image_keeps_the_shares_of_brightness_and_colour(generator):
    kernel = torch.nn.Parameter(torch.zeros(3, 8, 3, 3))
    brightness, colour = (
        torch.randn(8, 3, 3, generator=generator),
        torch.randn(3, 8, 3, 3, generator=generator),
    )
    gradient = brightness + 0.01 * colour
    (kernel * gradient).sum().backward()
    Muon([kernel], 0.1).step()
    difference = (kernel[0] - kernel[1]).detach().norm() / kernel.detach().mean(0).norm()
    assert difference < 0.03
    torch.testing.assert_close(kernel.detach().flatten(1).norm(dim=1), torch.full((3,), 0.2))


def test_vectors_are_refused():
    with pytest.raises(ValueError, match="two dimensions"):
        Muon([torch.nn.Parameter(torch.ones(3))], 0.1)

import torch

from mfimage.models.layers import ActNorm, AffineCoupling


def test_actnorm_initialise_standardises_and_leaves_dead_features_alone():
    x = torch.randn(500, 3, 2, 2) * torch.tensor([0.3, 5.0, 0.0]).view(3, 1, 1) + 2
    norm = ActNorm(3)
    norm.initialise(x, floor=0.1)
    y, _ = norm(x)
    torch.testing.assert_close(y.mean((0, 2, 3)), torch.zeros(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(y.std((0, 2, 3))[:2], torch.ones(2), atol=1e-3, rtol=0)
    assert y[:, 2].abs().max() < 1e-3
    assert norm.log_scale.exp().min() >= 0.0999


def test_affine_scale_is_bounded():
    coupling = AffineCoupling(torch.nn.Linear(1, 2))
    with torch.no_grad():
        for parameter in coupling.parameters():
            parameter.fill_(100.0)
    assert coupling(torch.ones(1, 1), torch.ones(1, 1))[1].abs().max() <= 1

import pytest
import torch

import mfimage

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


def test_a_model_trained_on_the_gpu_says_the_same_on_the_cpu(tmp_path):
    images = mfimage.load("fashion-mini", "train").subset(range(2000))
    config = mfimage.Config(dim=8, steps=50, density_steps=50, every=25)
    model = mfimage.train(images, tmp_path / "run", config, device="cuda")
    x = images.batch(range(64))
    on_gpu = model.project(x.cuda()).detach().cpu(), model.log_prob(x.cuda()).detach().cpu()
    drawn = model.sample(8, torch.Generator().manual_seed(0)).cpu()
    model = mfimage.from_pretrained(tmp_path / "run")
    torch.testing.assert_close(model.project(x).detach(), on_gpu[0], atol=1e-3, rtol=0)
    torch.testing.assert_close(model.log_prob(x).detach(), on_gpu[1], atol=0.05, rtol=1e-3)
    torch.testing.assert_close(model.sample(8, torch.Generator().manual_seed(0)), drawn, atol=1e-2, rtol=0)
    assert mfimage.denoise(x.cuda(), model.cuda()).device.type == "cuda"

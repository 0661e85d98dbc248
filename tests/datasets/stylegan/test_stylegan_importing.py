import formulas
import networks
import numpy as np
import pytest
import torch

from mfimage.datasets.stylegan import Generator, import_network, load_generator, save_generator
from mfimage.errors import ModelError


@pytest.fixture
def write(tmp_path):
    def write(content, protocol=4):
        path = tmp_path / "network.pkl"
        path.write_bytes(networks.dumps(content, protocol))
        return path

    return write


def values(part):
    return {
        k: v.detach().double().numpy()
        for k, v in (part.state["_parameters"] | part.state["_buffers"]).items()
    }


def affine(part):
    p, state = values(part), part.state
    return float(state["weight_gain"]) * p["weight"], float(state["bias_gain"]) * p["bias"]


def layer(part):
    """The parameters of a layer as the formulas name them, with the scales of training applied."""
    p = values(part)
    p["style_weight"], p["style_bias"] = affine(part.state["_modules"]["affine"])
    if "weight_gain" in part.state:
        p["weight"] = p["weight"][:, :, 0, 0] * float(part.state["weight_gain"])
    else:
        p |= {"noise": p["noise_const"], "strength": p["noise_strength"]}
    return p


def reference(network, z, label=None, psi=1.0, cutoff=99, limit=np.inf):
    """The image of one z, by the formulas, from the tensors of the pickle."""
    mapping, synthesis = (network.state["_modules"][name] for name in ("mapping", "synthesis"))
    w = formulas.second_moment(z)
    layers = dict(mapping.state["_modules"])
    if label is not None:
        weight, bias = affine(layers.pop("embed"))
        w = np.concatenate([w, formulas.second_moment(weight @ label + bias)])
    for part in layers.values():
        weight, bias = affine(part)
        w = formulas.activation(weight @ w + bias, np.inf)
    mean = values(mapping)["w_avg"]
    x, image, used = None, None, 0
    for block in synthesis.state["_modules"].values():
        parts = block.state["_modules"]
        x = values(block)["const"] if x is None else x
        for name in ("conv0", "conv1", "torgb"):
            if name not in parts:
                continue
            style = mean + psi * (w - mean) if used < cutoff else w
            if name == "torgb":
                colours = formulas.colour(x, style, layer(parts[name]), limit)
                image = colours if image is None else formulas.upsample(image) + colours
            else:
                x = formulas.convolution(x, style, layer(parts[name]), name == "conv0", limit)
                used += 1
    return image


@pytest.mark.parametrize("labels", [0, 3])
@pytest.mark.parametrize("truncation", [(1.0, None), (0.5, None), (0.3, 2)])
def test_the_images_of_a_pickle_are_those_of_the_formulas(labels, truncation, write, generator):
    content = networks.snapshot(labels=labels, limit=2.5)
    ours = import_network(write(content))
    z = torch.randn(3, 5, generator=generator)
    label = torch.eye(3) if labels else None
    images = ours.synthesis.raw(ours.mapping(z, label, *truncation)).numpy()
    psi, cutoff = truncation
    for k in range(3):
        wanted = reference(
            content["G_ema"], z[k].double().numpy(), np.eye(3)[k] if labels else None, psi, cutoff or 99, 2.5
        )
        assert np.abs(images[k] - wanted).max() < 1e-5


@pytest.mark.parametrize(
    ("widths", "channels", "limit"), [((4,), 3, None), ((4, 3, 2), 1, None), ((2, 2, 2, 2), 3, 256)]
)
def test_every_resolution_kind_of_colour_and_bound_is_read(widths, channels, limit, write):
    content = networks.network(widths=widths, channels=channels, limit=limit)
    ours = import_network(write(content))
    z = np.linspace(-1, 1, 5)
    image = ours.synthesis.raw(ours.mapping(torch.tensor(z[None], dtype=torch.float32)))[0].numpy()
    assert image.shape == (channels, 2 * 2 ** len(widths), 2 * 2 ** len(widths)) == ours.shape
    assert np.abs(image - reference(content, z, limit=limit or np.inf)).max() < 2e-5


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_the_moving_average_is_taken_else_the_generator(protocol, write):
    content = networks.snapshot()
    average = import_network(write(content, protocol)).fingerprint()
    assert average == import_network(write(networks.network(), protocol)).fingerprint()
    del content["G_ema"]
    trained = import_network(write(content, protocol)).fingerprint()
    assert trained == import_network(write(networks.network(seed=99))).fingerprint() != average


def test_a_saved_generator_comes_back(write, tmp_path, generator):
    ours = import_network(write(networks.snapshot(labels=2)))
    save_generator(ours, tmp_path / "out.safetensors")
    back = load_generator(tmp_path / "out.safetensors")
    z, label = torch.randn(2, 5, generator=generator), torch.eye(2)
    assert back.architecture == ours.architecture
    assert back.fingerprint() == ours.fingerprint()
    assert torch.equal(back(z, label), ours(z, label))
    assert isinstance(back, Generator)


def broken(change):
    content = networks.snapshot()
    change(content["G_ema"].state)
    return content


def deeper(state, *names):
    for name in names:
        state = state["_modules"][name].state
    return state


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s["_modules"].pop("mapping"), "only StyleGAN2 is read"),
        (lambda s: s.pop("z_dim"), "KeyError: 'z_dim'"),
        (lambda s: s.update(img_resolution=48), "power of two"),
        (lambda s: s.update(img_resolution=16), "not a StyleGAN2 generator"),
        (lambda s: s.update(z_dim=10**9), "from 1 to 65536"),
        (lambda s: s.update(z_dim=10**600), "from 1 to 65536"),
        (lambda s: s.update(z_dim=10**5000), "LONG4"),
        (lambda s: s.update(z_dim=7), "has shape"),
        (lambda s: s.update(w_dim=60_000), "its sizes need"),
        (lambda s: s.update(w_dim=-1), "from 1 to 65536"),
        (lambda s: s.update(img_channels=4), "1 or 3 channels"),
        (lambda s: s.update(c_dim="many"), "not a StyleGAN2 generator"),
        (lambda s: s["_modules"].update(synthesis=3), "not nested"),
        (lambda s: deeper(s, "synthesis", "b8").update(architecture="resnet"), "without skip outputs"),
        (lambda s: deeper(s, "synthesis", "b8", "conv0").update(activation="relu"), "activation or bound"),
        (lambda s: deeper(s, "synthesis", "b8", "conv0").update(conv_clamp=3), "activation or bound"),
        (lambda s: deeper(s, "synthesis", "b8", "torgb").update(conv_clamp=3), "activation or bound"),
        (lambda s: deeper(s, "synthesis", "b4", "torgb").update(conv_clamp=None), "activation or bound"),
        (lambda s: deeper(s, "synthesis", "b4", "conv1").update(act_gain=1.0), "another gain than √2"),
        (
            lambda s: deeper(s, "synthesis", "b8", "conv0").update(act_gain=np.float64(2.0)),
            "b8.conv0.act_gain",
        ),
        (lambda s: deeper(s, "synthesis", "b8", "conv0").update(act_gain=float("nan")), "another gain"),
        (lambda s: deeper(s, "synthesis", "b8", "conv0").pop("act_gain"), "KeyError: 'act_gain'"),
        (lambda s: deeper(s, "synthesis", "b4", "conv1").update(up=2), "enlarges or is noised otherwise"),
        (lambda s: deeper(s, "synthesis", "b4", "conv1").update(use_noise=False), "noised otherwise"),
        (
            lambda s: deeper(s, "synthesis", "b8", "conv0", "affine").update(activation="lrelu"),
            "styles or labels go through an activation",
        ),
        (
            lambda s: deeper(s, "synthesis", "b8", "torgb", "affine").update(activation="relu"),
            "styles or labels go through an activation",
        ),
        (lambda s: deeper(s, "mapping").update(num_ws=7), "of 7 styles"),
        (
            lambda s: deeper(s, "synthesis", "b8")["_buffers"].update(resample_filter=torch.ones(2, 2)),
            "filter",
        ),
        (lambda s: deeper(s, "mapping")["_buffers"].pop("w_avg"), "mapping.mean is missing"),
        (lambda s: deeper(s, "mapping", "fc0").update(weight_gain=float("nan")), "non-finite"),
        (
            lambda s: deeper(s, "mapping")["_parameters"].update(extra=torch.ones(1)),
            "mapping.extra is unknown",
        ),
        (lambda s: deeper(s, "mapping")["_modules"].update(self=networks.Part("X")), None),
    ],
)
def test_another_network_is_an_error_that_names_it(change, message, write):
    path = write(broken(change))
    if message is None:
        import_network(path)
        return
    with pytest.raises(ModelError, match=message) as caught:
        import_network(path)
    assert str(path) in str(caught.value)


def test_a_network_inside_itself_ends(write):
    content = networks.network()
    content.state["_modules"]["mapping"].state["_modules"]["again"] = loop = networks.Part("Loop")
    for k in range(40):
        loop.state["_modules"]["again"] = loop = networks.Part(f"Loop{k}")
    with pytest.raises(ModelError, match="not nested"):
        import_network(write(content))


@pytest.mark.parametrize("content", [{}, [], None, 3, {"G_ema": None}, {"G_ema": {}}, ("a", "b", "c")])
def test_a_pickle_without_a_network_says_so(content, write):
    with pytest.raises(ModelError, match="no generator in it"):
        import_network(write(content))


def test_a_damaged_safetensors_file_is_an_error(write, tmp_path):
    path = tmp_path / "out.safetensors"
    save_generator(import_network(write(networks.network())), path)
    content = path.read_bytes()
    for changed in (
        content[:-7],
        content.replace(b"mfimage-stylegan2", b"mfimage-stylegan9"),
        content.replace(rb"\"z_dim\": 5", rb"\"z_dim\": 6"),
        content.replace(rb"\"z_dim\": 5", rb"\"z_dim\": x"),
        content.replace(rb"\"z_dim\": 5", rb"\"y_dim\": 5"),
        content.replace(rb"\"w_dim\": 6", rb"\"w_dim\": -"),
    ):
        assert changed != content
        path.write_bytes(changed)
        with pytest.raises(ModelError, match=r"damaged|not a generator|does not fit"):
            load_generator(path)

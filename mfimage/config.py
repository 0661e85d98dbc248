"""What a user chooses: names, how files are read, the settings of a training, presets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from mfimage.errors import UsageError
from mfimage.model_config import SETTLED, KindName, ModelConfig
from mfimage.noise import Gaussian, Noise, parse_noise
from mfimage.settings import check_fields, check_number, check_range, from_json, is_number

AlgorithmName = Literal[
    "m-flow", "m-flow-a", "m-flow-s", "m-flow-ot", "me-flow", "me-flow-a", "me-flow-s", "free-form",
    "denoising", "pie", "af", "fom", "pae", "pca",
]  # fmt: skip
BudgetName = Literal["quick", "paper"]
PresetName = Literal["default", "demo"]

MOST = {
    **dict.fromkeys(("steps", "density_steps", "warmup", "patience", "every", "validation"), 2**53),
    "batch_size": 2**24,
    "dim": 2**16,
    "size": 2**14,
}
TIME = 600.0  # seconds of a training where nothing is said
NOISE_AWARE = ("m-flow", "me-flow")  # algorithms whose chart can learn to remove noise
# Algorithms by the names that `compare` takes.
BASELINES: dict[str, AlgorithmName] = {"pca": "pca", "ae": "pae", "af": "af", "pie": "pie"}
NOISE = (0.0, 0.5)  # the range of its σ that they learn where none is given


@dataclass(frozen=True)
class Reading:
    """How image files are read.

    Args:
        max_bad: Largest share of unreadable files, in [0, 1], that is skipped rather than an error.
        max_pixels: Images with more pixels are not decoded, and count as bad.
        value_range: Values of black and white in arrays, and in image files deeper than 8 bits. Without it
            integers scale by their type's maximum, and floats must lie in [0, 1].
        verify: Read shards whole when they are opened, and compare them with their recorded hashes; without
            it only those whose size or time is new.
    """

    max_bad: float = 0.05
    max_pixels: int = 64_000_000
    value_range: tuple[float, float] | None = None
    verify: bool = False

    def __post_init__(self) -> None:
        check_fields(self, above_zero=("max_pixels",), shares=("max_bad",))
        if self.value_range is not None:
            check_range(self.value_range)


@dataclass(frozen=True)
class Config:
    """Everything `train` needs beside the images; a run's config.json holds one.

    What is None is decided from the data when a training begins, and then stands in its run.

    Args:
        dim: Dimension d of the manifold; without it what principal components of the images suggest.
        size: Images are resized and cropped to size × size; without it they are taken as they are.
        channels: 1 grey, 3 colour; without it what the images have.
        time: Seconds that the whole training may take; 600 without steps. Its phases have fixed shares, and
            what one leaves over goes to the next.
        steps: Optimiser steps of the manifold phase (reconstruction), in the place of time.
        density_steps: Optimiser steps of the density phase (likelihood on fixed codes); half of steps
            without it.
        batch_size: Images a step, over all processes together; this, lr and weight_decay are those of the
            objectives, of which phases take multiples (`algorithms.Phase`).
        lr: Peak learning rate of AdamW in all phases but that of the density, before a cosine to 0; what
            removes noise is trained by Muon at 5 times it.
        density_lr: The same in the density phase.
        warmup: Steps of the linear rise to the peak learning rate.
        clip: Largest norm of the gradient of the loss, which is summed over pixels.
        weight_decay: AdamW's, of matrices and kernels; without it the more the fewer images there are.
        ema: Share of the past in the moving average of the weights, a step, that is kept as the model; 0
            keeps the weights themselves.
        patience: Validations without a better one that end a phase; 0 never does.
        precision: no is float32; bf16 has conditioner networks in bfloat16, everything else in float32.
            Without it bf16 for images on a CPU that multiplies matrices in it (AMX), float32 elsewhere.
        algorithm: What is built and by which objectives it is trained; the README has a table.
        flip: Whether images are mirrored left to right at random in training; without it where that serves
            images held out.
        shift: Pixels by which images are shifted at random in training at most, and hundredths by which they
            are scaled; without it by how many images there are.
        noise: Standard deviation of the Gaussian noise that af, pie and denoising add to the data in
            training; 0 means 0.1 for denoising, none elsewhere. For m-flow and me-flow of images a range
            (low, high): the chart also learns to remove noise whose σ is drawn from it; or another noise
            by its text, as poisson:10-100: see `mfimage.noise`. See `settled`.
        weight: Of the squared error beside the likelihood, where one objective holds both.
        scandal: α, the weight of the joint score's error, where the data give a score; 0 leaves it out.
        classes: Whether the class of each image is learned too, from its codes, so that samples of one can be
            asked for; the images' folders, or the labels of their set, are the classes.
        nested: Whether the first k codes are to be a manifold of their own, for every k: half of the images
            of a step are drawn from so many of theirs alone.
        sharp: Whether a network learns, against a discriminator, to draw samples as sharp as the images.
        every: Steps between validations, checkpoints and pictures; without it they come after 1, 2, 4 and
            8 % of a phase, and then every 4 %.
        validation: Images that watch the error, to keep the best: of the split valid where there is one
            beside test, else held out of the training split, at most a tenth.
        seed: Of the initial weights, the batches and the samples.
        model: Settings of `ModelConfig` that differ from its defaults.
    """

    dim: int | None = None
    size: int | None = None
    channels: Literal[1, 3] | None = None
    time: float | None = None
    steps: int | None = None
    density_steps: int | None = None
    batch_size: int = 64
    lr: float = 3e-3
    density_lr: float = 6e-3
    warmup: int = 100
    clip: float = 200.0
    weight_decay: float | None = None
    ema: float = 0.998
    patience: int = 8
    precision: Literal["no", "bf16"] | None = None
    algorithm: AlgorithmName = "m-flow"
    flip: bool | None = None
    shift: float | None = None
    noise: float | tuple[float, float] | str | None = None
    weight: float = 1000.0
    scandal: float = 0.0
    classes: bool = False
    nested: bool = False
    sharp: bool = False
    every: int | None = None
    validation: int = 1000
    seed: int = 0
    model: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.channels not in (None, 1, 3):
            raise UsageError(f"channels must be 1 (grey), 3 (colour) or null, not {self.channels!r}")
        above_zero = ("dim", "size", "time", "batch_size", "every", "validation", "lr", "density_lr", "clip")
        check_fields(self, above_zero, shares=("ema",), most=MOST)
        if self.time is not None and self.steps is not None:
            raise UsageError("time and steps both say how long to train: choose one")
        if self.density_steps is not None and self.steps is None:
            raise UsageError("density_steps goes with steps; without them the clock decides")
        self._check_noise()
        if self.seed >= 2**63:
            raise UsageError(f"seed must lie below 2^63, not {self.seed}")
        if not isinstance(self.model, Mapping) or set(self.model) & SETTLED:
            raise UsageError(
                "model must hold settings of ModelConfig other than shape, dim, kind and context (and "
                f"noise_aware, which a range of noise sets), not {self.model!r}"
            )
        shape = (2,) if self.model.get("chart_context") else (3, 64, 64)
        from_json(ModelConfig, {"shape": shape, "dim": 1, **self.model})  # bad for any data: bad now

    def _check_noise(self) -> None:
        """Check the noise, and write what is Gaussian as its σ, or the range of it."""
        aware = self.algorithm in NOISE_AWARE
        if isinstance(self.noise, str):
            object.__setattr__(self, "noise", _settled_noise(self.noise, aware))
        noise = 0.0 if self.noise is None else self.noise
        if isinstance(noise, tuple):
            if len(noise) != 2 or not all(map(is_number, noise)) or not 0 <= noise[0] < noise[1]:
                raise UsageError(f"noise must be a number or a range 0 ≤ low < high, not {noise!r}")
        elif not isinstance(noise, str):
            check_number("noise", noise)
        if not aware and isinstance(noise, tuple | str):
            what = "a range of noise" if isinstance(noise, tuple) else f"noise {noise}"
            raise UsageError(f"{what} is for {' and '.join(NOISE_AWARE)}, not for {self.algorithm}")

    @property
    def noise_aware(self) -> bool:
        """Whether noise is a range, or not Gaussian: the chart learns to remove it."""
        return isinstance(self.noise, tuple | str)

    @property
    def noise_model(self) -> Noise:
        """The noise that the chart learns to remove."""
        if isinstance(self.noise, str):
            return parse_noise(self.noise)
        return Gaussian(self.noise if isinstance(self.noise, tuple) else (self.sigma, self.sigma))

    @property
    def sigma(self) -> float:
        """The noise where it is one number, else 0."""
        return self.noise if isinstance(self.noise, int | float) else 0.0

    def settled(self, images: bool) -> Config:
        """Decide what was left open: charts of images learn to remove noise, nothing else has any."""
        noise = NOISE if images and self.algorithm in NOISE_AWARE else 0.0
        return replace(self, noise=noise) if self.noise is None else self

    @property
    def seconds(self) -> float | None:
        """What the whole training may take; None where it goes by steps."""
        return (self.time or TIME) if self.steps is None else None

    def model_config(
        self,
        shape: tuple[int, ...],
        kind: KindName = "manifold-flow",
        context: int = 0,
        classes: tuple[str, ...] = (),
    ) -> ModelConfig:
        """Complete the architecture with the shape of the data, and what the algorithm builds."""
        if self.dim is None:
            raise UsageError("dim is not decided yet: `train` decides it from the data")
        given = {"shape": shape, "dim": self.dim, "kind": kind, "context": context, "classes": classes}
        own = {"noise_aware": self.noise_aware, "nested": self.nested, "sharp": self.sharp}
        return from_json(ModelConfig, {**given, **own, **self.model})

    def allows(self, settled: Config) -> bool:
        """Whether settings are these, with what is None here decided."""
        open_ = replace(self, model={**settled.model, **self.model})
        pairs = [(mine, getattr(settled, name)) for name, mine in vars(open_).items()]
        return self.seconds == settled.seconds and all(mine in (None, theirs) for mine, theirs in pairs)

    def longer(self, **changes: Any) -> Config:
        """Return a copy with more steps, density_steps or time; UsageError for anything else."""
        if "model" in changes:  # what it leaves out was decided from the data
            changes["model"] = {**self.model, **changes["model"]}
        given = {name: value for name, value in changes.items() if value not in (None, getattr(self, name))}
        own = [name for name in ("steps", "density_steps", "time") if getattr(self, name) is not None]
        for name, value in given.items():
            if name not in own:
                raise UsageError(
                    f"a resumed run keeps its settings, {name} among them; this one can only be given more "
                    f"{' and '.join(own)}"
                )
            if value < getattr(self, name):
                planned = f"{getattr(self, name):g}{' s' if name == 'time' else ''}"
                raise UsageError(f"{name} can only grow: the run was planned for {planned}")
        return replace(self, **given)

    def with_(self, **changes: Any) -> Config:
        """Return a copy in which the settings given that are not None replace the old.

        Steps alone take the place of a time, and a time alone that of steps.
        """
        given = {name: value for name, value in changes.items() if value is not None}
        if "steps" in given:
            given = {"time": None, **given}
        elif "time" in given:
            given = {"steps": None, "density_steps": None, **given}
        return replace(self, **given)


def _settled_noise(text: str, aware: bool) -> float | tuple[float, float] | str:
    """Read the text of noise: Gaussian is a number or a range, but one σ that a chart shall learn."""
    noise = parse_noise(text)
    if not isinstance(noise, Gaussian):
        return str(noise)
    low, high = noise.sigma
    if low < high:
        return low, high
    return str(noise) if aware and low and ":" in text else low


presets: dict[PresetName, Config] = {
    "default": Config(),
    # Three minutes of the bundled clothes on a CPU.
    "demo": Config(dim=32, time=180.0),
}

import math
import signal

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from mfimage.checkpoints import Snapshots
from mfimage.errors import DivergedError, Interrupted, UsageError
from mfimage.fit import fit, make_accelerator, quickest_precision, shuffled
from mfimage.schedule import Schedule

SOLUTION = torch.tensor([[2.0, -1.0, 0.5]])
SCHEDULE = Schedule(100, 0.05, warmup=5, every=10)


class Problem:
    """Least squares with an exact solution, minimised in a directory."""

    def __init__(self, directory, stop_at=None, number=signal.SIGINT, seed=1):
        generator = torch.Generator().manual_seed(0)
        self.x = torch.randn(64, 3, generator=generator)
        self.y = self.x @ SOLUTION.T + 0.3
        torch.manual_seed(seed)
        self.module = torch.nn.Linear(3, 1)
        self.snapshots = Snapshots(directory, "phase")
        self.rows = shuffled(64, 8, 0)
        self.stop_at, self.number = stop_at, number

    def loss(self, module, rows):
        return (module(self.x[rows]) - self.y[rows]).square().mean()

    def batch(self, step):
        if step == self.stop_at:
            signal.raise_signal(self.number)
        return self.rows(step)

    @torch.no_grad()
    def validate(self):
        return float(self.loss(self.module, torch.arange(64)))

    def fit(self, schedule=SCHEDULE, **changes):
        parts = {"loss": self.loss, "batches": self.batch, "validate": self.validate} | changes
        AcceleratorState._reset_state(reset_partial_state=True)  # tests before may have had another device
        accelerator = Accelerator(cpu=True)
        return fit(self.module, schedule=schedule, snapshots=self.snapshots, accelerator=accelerator, **parts)

    def weights(self):
        return torch.cat([p.detach().flatten().clone() for p in self.module.parameters()])


def untimed(progress):
    """A progress without what the clock said."""
    return {
        k: v for k, v in vars(progress).items() if k not in ("seconds", "mark_seconds", "watched", "pace")
    }


def test_least_squares_are_solved(tmp_path):
    problem, records = Problem(tmp_path), []
    progress = problem.fit(Schedule(300, 0.1, warmup=5, every=50), report=lambda p, r: records.append(r))
    torch.testing.assert_close(problem.module.weight.detach(), SOLUTION, atol=1e-3, rtol=0)
    assert problem.validate() < 1e-5
    assert (progress.step, progress.best) == (300, problem.validate())
    assert len(records) == 300
    assert set(records[0]) == {"loss", "grad_norm", "lr", "images_per_second"}
    assert [i + 1 for i, record in enumerate(records) if "validation" in record] == [
        50,
        100,
        150,
        200,
        250,
        300,
    ]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_run_that_was_interrupted_and_resumed_equals_an_unbroken_one_bit_for_bit(tmp_path, number):
    unbroken, again = Problem(tmp_path / "a"), Problem(tmp_path / "b")
    assert untimed(unbroken.fit()) == untimed(again.fit())
    assert torch.equal(unbroken.weights(), again.weights())

    stopped = Problem(tmp_path / "c", stop_at=49, number=number)
    with pytest.raises(Interrupted, match=r"saved step 50 as .*phase-00000050.safetensors$") as e:
        stopped.fit()
    assert e.value.exit_code == 128 + number
    resumed, steps = Problem(tmp_path / "c", seed=2), []  # whose own weights are forgotten
    progress = resumed.fit(report=lambda p, r: steps.append(p.step))
    assert steps == list(range(51, 101))
    assert untimed(progress) == untimed(again.fit())  # which is finished, and only restores
    assert torch.equal(resumed.weights(), unbroken.weights())


def test_handlers_are_put_back(tmp_path):
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    Problem(tmp_path).fit()
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_a_signal_during_the_last_step_is_not_lost(tmp_path):
    problem = Problem(tmp_path, stop_at=99)
    with pytest.raises(Interrupted, match="saved step 100"):
        problem.fit()


def test_a_signal_after_the_last_step_was_saved_is_not_lost(tmp_path):
    def interrupt_at_the_end(progress, record):
        if progress.step == 100:
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(Interrupted, match="saved step 100"):
        Problem(tmp_path).fit(report=interrupt_at_the_end)


def test_a_second_signal_is_not_held_back(tmp_path):
    def interrupt_twice(step):
        if step == 3:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
        return torch.arange(8)

    with pytest.raises(KeyboardInterrupt):
        Problem(tmp_path).fit(batches=interrupt_twice)


def test_the_weights_of_the_best_validation_are_the_ones_that_stay(tmp_path):
    problem, seen = Problem(tmp_path), {}
    errors = iter([5.0, 3.0, 1.0, 2.0, 4.0])

    def remember(progress, record):
        seen[progress.step] = problem.weights()

    progress = problem.fit(Schedule(40, 0.05, every=10), validate=lambda: next(errors), report=remember)
    assert (progress.best, progress.best_step) == (1.0, 20)
    assert torch.equal(problem.weights(), seen[20])
    assert not torch.equal(seen[20], seen[40])


def test_weights_that_never_get_better_stay_as_they_began(tmp_path):
    problem, errors = Problem(tmp_path), iter([1.0, 2.0, 3.0])
    start = problem.weights()
    problem.fit(Schedule(20, 0.05, every=10), validate=lambda: next(errors))
    assert torch.equal(problem.weights(), start)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_non_finite_loss_stops_before_it_reaches_the_weights(tmp_path, bad):
    problem, seen = Problem(tmp_path), {}

    def loss(module, rows):
        return problem.loss(module, rows) * (bad if torch.is_grad_enabled() and len(seen) == 27 else 1)

    def remember(progress, record):
        seen[progress.step] = problem.weights()

    with pytest.raises(DivergedError, match=r"at step 27 \(batch 27: 8 rows, values") as caught:
        problem.fit(loss=loss, report=remember)
    assert caught.value.exit_code == 5
    assert f"The last good checkpoint is {tmp_path / 'phase-00000020.safetensors'}" in str(caught.value)
    assert torch.equal(problem.weights(), seen[27])
    assert problem.snapshots.newest().name == "phase-00000020.safetensors"


def test_a_non_finite_validation_is_not_saved(tmp_path):
    errors = iter([3.0, 2.0, math.nan])
    problem = Problem(tmp_path)
    with pytest.raises(DivergedError, match=r"validation error nan after step 20\. .*phase-00000010"):
        problem.fit(validate=lambda: next(errors))
    assert problem.snapshots.newest().name == "phase-00000010.safetensors"


def test_a_model_that_is_broken_from_the_start_says_that_nothing_was_saved(tmp_path):
    with pytest.raises(DivergedError, match=r"validation error nan after step 0\. .*nothing was saved"):
        Problem(tmp_path).fit(validate=lambda: math.nan)


def test_no_steps_leave_everything_as_it_was(tmp_path):
    problem = Problem(tmp_path / "none")
    assert problem.fit(Schedule(0, 0.05)).step == 0
    assert not (tmp_path / "none").exists()


def test_gradients_are_clipped(tmp_path):
    records = []
    problem = Problem(tmp_path)
    problem.fit(Schedule(1, 0.05, warmup=1, clip=1e-9), report=lambda p, r: records.append(r))
    assert records[0]["grad_norm"] > 0.1  # the norm before clipping is what is told
    optimiser = torch.optim.AdamW(problem.module.parameters())
    problem.snapshots.restore(problem.module, optimiser)
    assert all(0 < state["exp_avg"].norm() < 1e-9 for state in optimiser.state.values())


@pytest.mark.parametrize("warmup", [1, 10])
def test_steps_are_as_long_as_the_schedule_says(tmp_path, warmup):
    problem = Problem(tmp_path)
    start = problem.weights()
    problem.fit(Schedule(1, 0.05, warmup=warmup), validate=iter([2.0, 1.0]).__next__)
    moved = (
        problem.weights() - start
    ).abs()  # the first step of Adam is the learning rate, whatever the slope
    torch.testing.assert_close(moved, torch.full((4,), 0.05 / warmup), rtol=1e-3, atol=0)


def test_the_schedule_warms_up_and_falls_as_a_cosine():
    schedule = Schedule(steps=100, lr=2.0, warmup=10)
    rates = [schedule.lr_at(step) for step in range(101)]
    assert rates[0] == pytest.approx(0.2)
    assert rates[4] == pytest.approx(2.0 * 0.5 * 0.5 * (1 + math.cos(0.04 * math.pi)))
    assert rates[50] == pytest.approx(1.0)
    assert rates[100] == pytest.approx(0.0)
    assert rates[:10] == sorted(rates[:10])
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert max(rates) <= 2.0


def test_schedules_without_warm_up_or_steps_are_defined():
    assert Schedule(10, 1.0, warmup=0).lr_at(0) == 1.0
    assert Schedule(0, 1.0).lr_at(0) == pytest.approx(0.01)


@pytest.mark.parametrize(("count", "size"), [(12, 4), (10, 4), (7, 7), (5, 3)])
def test_every_epoch_is_a_permutation_of_its_own(count, size):
    rows = shuffled(count, size, seed=3)
    order = torch.cat([rows(step) for step in range(4 * count)])
    epochs = order[: len(order) // count * count].view(-1, count)
    assert all(sorted(epoch.tolist()) == list(range(count)) for epoch in epochs)
    assert len({tuple(epoch.tolist()) for epoch in epochs}) > 1


def test_batches_depend_on_seed_and_step_alone():
    first, second = shuffled(50, 8, seed=1), shuffled(50, 8, seed=1)
    forwards = {step: first(step) for step in range(40)}
    assert all(torch.equal(second(step), forwards[step]) for step in reversed(range(40)))
    assert not torch.equal(shuffled(50, 8, seed=2)(0), forwards[0])


def test_neighbouring_seeds_share_no_epoch():
    epochs = {tuple(shuffled(20, 20, seed)(step).tolist()) for seed in range(5) for step in range(5)}
    assert len(epochs) == 25


@pytest.mark.parametrize("seed", [2**62, 2**63 - 1])
def test_great_seeds_work(seed):
    assert sorted(shuffled(6, 6, seed)(10).tolist()) == list(range(6))


@pytest.mark.parametrize("world", [2, 4])
def test_processes_divide_the_batch_between_them(world):
    whole = shuffled(30, 8, seed=5)
    ranks = [shuffled(30, 8, 5, rank, world) for rank in range(world)]
    for step in range(10):
        parts = [rank(step) for rank in ranks]
        assert {len(part) for part in parts} == {8 // world}
        assert torch.equal(torch.stack(parts, 1).flatten(), whole(step))


@pytest.mark.parametrize(
    ("amx", "images", "device", "expected"),
    [
        (True, True, "cpu", "bf16"),
        (True, False, "cpu", "no"),
        (True, True, "cuda", "no"),
        (False, True, "cpu", "no"),
    ],
)
def test_images_train_in_bfloat16_where_the_cpu_multiplies_in_it(monkeypatch, amx, images, device, expected):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": amx}, raising=False)
    assert quickest_precision(images, torch.device(device)) == expected


def test_an_older_torch_that_cannot_tell_trains_in_float32(monkeypatch):
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert quickest_precision(True, torch.device("cpu")) == "no"


def test_a_device_is_taken_by_its_number_and_by_nobody_after():
    assert make_accelerator("cpu:0").device == torch.device("cpu:0")
    assert make_accelerator("cpu").device == torch.device("cpu")


@pytest.mark.parametrize(
    ("device", "words"),
    [
        ("mps", "device mps: has no float64, in which volumes are computed; take cpu"),
        ("meta", "device meta: training runs on auto, cpu, cuda or cuda:N"),
        ("tpu", "device tpu: PyTorch has none of this name here"),
        ("cuda:99", "device cuda:99: PyTorch has none of this name here"),
    ],
)
def test_a_device_that_cannot_train_is_refused(device, words):
    with pytest.raises(UsageError, match=words):
        make_accelerator(device)

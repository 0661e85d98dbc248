import math
import signal

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from mfimage.checkpoints import Snapshots
from mfimage.errors import Interrupted
from mfimage.fit import fit
from mfimage.schedule import MARKS, Average, Progress, Schedule


class Clock:
    """A clock that goes on by what is done, and not by itself."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


class Walk:
    """A module of one number and one matrix that are pulled to 1, by a clock of `second` a step."""

    def __init__(self, directory, second=0.5, watching=0.25, stop_at=None):
        self.module = torch.nn.Linear(2, 1)
        with torch.no_grad():
            for parameter in self.module.parameters():
                parameter.fill_(0.0)
        self.snapshots, self.clock = Snapshots(directory, "walk"), Clock()
        self.second, self.watching, self.stop_at = second, watching, stop_at
        self.records, self.seen = [], []

    def batch(self, step):
        self.clock.now += self.second * (1 + (step % 8) / 8)  # an uneven machine
        if step == self.stop_at:
            signal.raise_signal(signal.SIGINT)
        return torch.ones(4, 2) * (1 + step % 3)

    def validate(self):
        self.clock.now += self.watching
        self.seen.append(self.weights())
        return self.error()

    def error(self):
        return float((self.weights() - 1).square().sum())

    def weights(self):
        return torch.cat([p.detach().flatten().clone() for p in self.module.parameters()])

    def fit(self, schedule, **changes):
        AcceleratorState._reset_state(reset_partial_state=True)
        options = {"validate": self.validate, "clock": self.clock, "report": self.note} | changes
        parts = {"snapshots": self.snapshots, "accelerator": Accelerator(cpu=True)}
        return fit(self.module, self.loss, self.batch, schedule=schedule, **parts, **options)

    @staticmethod
    def loss(module, x):
        return (module(x) - x.sum(1, keepdim=True) - 1).square().mean()

    def note(self, progress, record):
        self.records.append((progress.step, progress.seconds, record))


def validated(walk):
    return [step for step, _, record in walk.records if "validation" in record]


def test_by_steps_validations_come_early_and_then_every_25th_of_a_phase(tmp_path):
    walk = Walk(tmp_path)
    walk.fit(Schedule(200, 0.01))
    assert validated(walk) == [2, 4, 8, *range(16, 201, 8)]
    short = Walk(tmp_path / "short")
    short.fit(Schedule(3, 0.01))
    assert validated(short) == [1, 2, 3]


def test_by_the_clock_a_phase_ends_with_its_time(tmp_path):
    walk = Walk(tmp_path)
    progress = walk.fit(Schedule(None, 0.01, warmup=1, seconds=200.0))
    assert 198 < progress.seconds < 201.5
    assert progress.ended
    shares = [seconds / 200 for step, seconds, record in walk.records if "validation" in record]
    assert len(shares) > 15
    assert all(any(0 <= share - mark < 0.02 for mark in MARKS) for share in shares[2:-1])
    rates = [record["lr"] for _, _, record in walk.records]
    assert rates[0] == pytest.approx(0.01, rel=1e-4)
    assert rates[-1] < 1e-4
    for (_, seconds, record), (_, _, following) in zip(walk.records, walk.records[1:], strict=False):
        expected = 0.005 * (1 + math.cos(math.pi * min(1, seconds / 200)))
        assert following["lr"] == pytest.approx(expected, abs=0.0005)
        assert record["lr"] > 0


def test_validations_take_at_most_a_tenth_of_the_time(tmp_path):
    walk = Walk(tmp_path, watching=5.0)
    walk.fit(Schedule(None, 0.01, seconds=200.0))
    assert 2 < len(walk.seen) * 5.0 <= 0.1 * 200 + 3 * 5.0  # besides the first and the last


@pytest.mark.parametrize("stop_at", [3, 40, 150])
def test_by_the_clock_a_resumed_phase_equals_an_unbroken_one_bit_for_bit(tmp_path, stop_at):
    schedule = Schedule(None, 0.01, warmup=5, seconds=200.0, ema=0.9, weight_decay=0.05)
    unbroken = Walk(tmp_path / "a")
    ended = unbroken.fit(schedule)
    stopped = Walk(tmp_path / "b", stop_at=stop_at)
    with pytest.raises(Interrupted):
        stopped.fit(schedule)
    resumed = Walk(tmp_path / "b")
    progress = resumed.fit(schedule)
    assert vars(progress) == pytest.approx(vars(ended))
    assert torch.equal(resumed.weights(), unbroken.weights())
    assert [r["lr"] for _, _, r in stopped.records + resumed.records] == [
        r["lr"] for _, _, r in unbroken.records
    ]


def test_more_time_or_steps_go_on_with_a_phase_that_had_ended(tmp_path):
    once = Walk(tmp_path)
    assert once.fit(Schedule(20, 0.01)).step == 20
    again = Walk(tmp_path)
    assert again.fit(Schedule(20, 0.01)).step == 20
    assert not again.records
    longer = Walk(tmp_path)
    assert longer.fit(Schedule(40, 0.01)).step == 40
    assert longer.records[0][0] == 21
    assert longer.records[0][2]["lr"] == pytest.approx(Schedule(40, 0.01).lr_at(20))


def test_a_phase_ends_when_it_does_not_get_better_but_not_in_its_first_fifth(tmp_path):
    errors = iter([5.0, 1.0, *[2.0] * 100])
    walk = Walk(tmp_path)
    progress = walk.fit(Schedule(100, 0.01, every=2, patience=3), validate=lambda: next(errors))
    assert (progress.step, progress.best_step, progress.stale, progress.ended) == (20, 2, 9, True)
    late = iter([5.0, *[4.0 - 0.01 * i for i in range(20)], *[9.0] * 100])
    walk = Walk(tmp_path / "late")
    progress = walk.fit(Schedule(100, 0.01, every=2, patience=3), validate=lambda: next(late))
    assert (progress.step, progress.best_step) == (46, 40)


def test_what_does_not_compare_is_never_impatient(tmp_path):
    errors = iter(range(1000))
    walk = Walk(tmp_path)
    schedule = Schedule(100, 0.01, every=2, patience=3)
    assert walk.fit(schedule, validate=lambda: next(errors), keep_best=False).step == 100


def test_the_average_is_validated_and_kept_and_the_weights_go_on(tmp_path):
    plain, averaged = Walk(tmp_path / "plain"), Walk(tmp_path / "averaged")
    plain.fit(
        Schedule(40, 0.05, warmup=1, every=1),
        validate=lambda: plain.validate() * 0 + 1 / (1 + len(plain.seen)),
    )
    average = torch.zeros(3)
    expected = []
    for t, weights in enumerate(plain.seen):
        beta = 0.0 if t == 0 else min(0.9, (1 + t) / (10 + t))
        average = beta * average + (1 - beta) * weights
        expected.append(average)
    averaged.fit(
        Schedule(40, 0.05, warmup=1, every=1, ema=0.9),
        validate=lambda: averaged.validate() * 0 + 1 / (1 + len(averaged.seen)),
    )
    torch.testing.assert_close(torch.stack(averaged.seen), torch.stack(expected))
    torch.testing.assert_close(averaged.weights(), expected[-1])


def test_the_average_starts_with_the_weights_where_a_checkpoint_has_none():
    module = torch.nn.Linear(2, 1)
    average = Average(module, 0.9)
    with torch.no_grad():
        module.weight.fill_(3.0)
    average.load({})
    assert average.tensors["weight"].tolist() == [[3.0, 3.0]]
    assert Average(module, 0.0).tensors == {}


def test_only_matrices_decay(tmp_path):
    walk = Walk(tmp_path)
    with torch.no_grad():
        walk.module.weight.fill_(1.0)
        walk.module.bias.fill_(1.0)
    walk.fit(Schedule(1, 0.1, warmup=1, weight_decay=0.5), validate=iter([2.0, 1.0]).__next__)
    moved = Walk(tmp_path / "plain")
    with torch.no_grad():
        moved.module.weight.fill_(1.0)
        moved.module.bias.fill_(1.0)
    moved.fit(Schedule(1, 0.1, warmup=1), validate=iter([2.0, 1.0]).__next__)
    change = walk.weights() - moved.weights()
    torch.testing.assert_close(change, torch.tensor([-0.05, -0.05, 0.0]))


def test_by_the_clock_the_warm_up_takes_a_twentieth_at_most():
    schedule = Schedule(None, 2.0, warmup=100, seconds=10.0)
    assert schedule.lr_at(0, 0.0) == pytest.approx(0.02)
    assert schedule.lr_at(3, 0.025) == pytest.approx(1.0, rel=0.01)
    assert schedule.lr_at(4, 0.05) == pytest.approx(2.0, rel=0.01)
    assert schedule.lr_at(100, 0.01) == pytest.approx(2.0, rel=0.01)
    assert Schedule(1000, 2.0, warmup=100).lr_at(60) == pytest.approx(1.22, rel=0.02)


def test_an_ended_schedule_is_done():
    assert Schedule(0, 1.0).done(Progress()) == 1
    assert Schedule(None, 1.0, seconds=0.0).done(Progress()) == 1
    assert Schedule(10, 1.0).done(Progress(step=5)) == 0.5

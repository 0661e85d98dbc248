import torch

from mfimage.eval.metrics import rank_and_condition


def test_rank_and_condition_of_known_metrics():
    gram = torch.stack([torch.diag(torch.tensor([4.0, 1.0, 9.0])), torch.diag(torch.tensor([1.0, 0.0, 4.0]))])
    rank, condition = rank_and_condition(gram.double())
    assert rank.tolist() == [3, 2]
    assert condition.tolist() == [3, torch.inf]

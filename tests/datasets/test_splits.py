import pytest

from mfimage.datasets.splits import (
    choose,
    class_folders,
    divide_paths,
    divide_rows,
    drawn_rows,
    held_out,
    named_split,
    validation_rows,
)
from mfimage.errors import DataError


def split_paths(paths, split, name):
    return [paths[row] for row in choose(divide_paths(paths), split, name)]


def split_indices(count, split, name):
    return list(choose(divide_rows(count), split, name))


MANY = [f"cats/{i}.png" for i in range(2000)]


def test_hold_out_is_a_fixed_tenth():
    test = split_paths(MANY, "test", "x")
    assert 150 < len(test) < 250
    assert sorted(test + split_paths(MANY, "train", "x")) == sorted(MANY)
    assert split_paths(MANY, "all", "x") == MANY
    assert split_paths(MANY[:1000], "test", "x") == [path for path in test if path in MANY[:1000]]


def test_no_release_moves_images():
    assert split_indices(40, "test", "x") == [i for i in range(40) if held_out(str(i))] == [0, 7, 9, 10, 33]
    assert split_indices(40, "all", "x") == list(range(40))
    assert split_indices(40, "train", "x") == [i for i in range(40) if i not in [0, 7, 9, 10, 33]]


@pytest.mark.parametrize("around", ["", "data-set/"])
def test_folders_of_these_names_are_the_splits(around):
    paths = [
        around + path for path in ("Train/1.png", "train/a/2.png", "val/3.png", "test/4.png", "more/5.png")
    ]
    assert split_paths(paths, "train", "x") == paths[:2]
    for name in ("val", "valid", "validation"):
        assert split_paths(paths, name, "x") == paths[2:3]
    assert split_paths(paths, "test", "x") == paths[3:4]
    assert split_paths(paths, "all", "x") == paths


@pytest.mark.parametrize(
    ("train", "other", "split"),
    [
        ("training", "testing", "test"),
        ("Training", "Validation", "valid"),
        ("train", "dev", "valid"),
        ("train", "evaluation", "test"),
        ("train_images", "test_images", "test"),
        ("images-training", "images-val", "valid"),
        ("train", "Test Set", "test"),
    ],
)
@pytest.mark.parametrize("around", ["", "data/v2/"])
def test_splits_have_many_names(around, train, other, split):
    paths = [f"{around}{folder}/a/{i}.png" for folder in (train, other) for i in range(20)]
    assert split_paths(paths, "train", "x") == paths[:20]
    assert split_paths(paths, split, "x") == paths[20:]
    assert set(class_folders(paths)) == {"a"}


def test_one_folder_of_many_words_is_a_class():
    assert list(divide_paths(["test_tubes/1.png", "cats/2.png"])) == ["train", "test", "all"]
    assert class_folders(["test_tubes/1.png", "cats/2.png"]) == ["test_tubes", "cats"]


def test_classes_may_hold_the_folders_of_splits():
    paths = [
        f"{kind}/{split}/{i}.png" for kind in ("cats", "dogs") for split in ("train", "test") for i in (1, 2)
    ]
    assert split_paths(paths, "train", "x") == [*paths[:2], *paths[4:6]]
    assert split_paths(paths, "test", "x") == [*paths[2:4], *paths[6:]]
    assert class_folders(paths) == ["cats"] * 4 + ["dogs"] * 4


def test_only_the_top_counts():
    with pytest.raises(DataError, match="there are train, test, all"):
        split_paths(["cats/valid/1.png", "dogs/valid/2.png"], "valid", "x")


def test_missing_split_names_those_there_are():
    with pytest.raises(DataError, match="x: has no split 'valid'; there are train, test, all"):
        split_paths(MANY, "valid", "x")
    with pytest.raises(DataError, match="there are train, all"):
        split_paths(["train/1.png"], "test", "x")
    with pytest.raises(DataError, match="there are train, test, all"):
        split_indices(10, "dev", "x")


def test_empty_split_says_so():
    with pytest.raises(DataError, match=r"nothing falls into the split 'test' \(train 1, test 0, all 1\)"):
        split_paths([next(path for path in MANY if not held_out(path))], "test", "x")


@pytest.mark.parametrize(
    ("path", "split"),
    [
        ("data/train-00000-of-00002.parquet", "train"),
        ("data/validation.parquet", "valid"),
        ("out/Test_3.parquet", "test"),
        ("val/0000.parquet", "valid"),
        ("data/training.parquet", "train"),
        ("eval/0.parquet", "test"),
        ("dev-0.parquet", "valid"),
        ("data/0.parquet", None),
    ],
)
def test_splits_in_the_names_of_files(path, split):
    assert named_split(path) == split


def test_classes_are_the_folders_below_the_splits():
    assert class_folders(["train/a/x/1.png", "train/b/2.png", "test/a/3.png"]) == ["a", "b", "a"]
    assert class_folders(["set/train/a/1.png", "set/test/b/2.png"]) == ["a", "b"]
    assert class_folders(["a/1.png", "b/2.png", "3.png"]) == ["a", "b", ""]
    assert class_folders(["set/1.png", "set/2.png"]) == ["", ""]


def test_those_that_watch_are_mixed_so_that_the_first_tell_of_all():
    learned, watching = validation_rows(1000, 100, 0)
    assert learned.tolist() == sorted({*range(1000)} - {*watching.tolist()})
    for rows in (watching, drawn_rows(1000, 100, 0)):
        assert len(set(rows.tolist())) == 100
        first = rows[:20]  # of a set in the order of its ten classes
        assert len(set((first // 100).tolist())) >= 7
    assert sorted(drawn_rows(5, 9, 0).tolist()) == [*range(5)]

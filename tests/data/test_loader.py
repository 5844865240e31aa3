import dataclasses
import itertools
import subprocess
import sys

import numpy as np
import pytest

from jaxlm.data import loader


@dataclasses.dataclass
class Numbers:
    """Examples that contain their own index."""

    size: int

    def __len__(self):
        return self.size

    def rows(self, indices, epochs):
        return {
            "index": indices,
            "epoch": epochs,
            "weights": np.ones((len(indices), 2), np.float32),
        }


def take(count, dataset, **options):
    batches = loader.Loader(dataset, **options)
    taken = list(itertools.islice(batches, count))
    batches.close()
    return taken


def assert_equal(got, want):
    assert len(got) == len(want)
    for a, b in zip(got, want):
        assert a.keys() == b.keys()
        for name in a:
            np.testing.assert_array_equal(a[name], b[name])


def test_each_epoch_is_another_permutation_of_all_examples():
    # 7 does not divide 20: batches lie across the ends of epochs
    batches = take(20, Numbers(20), batch_size=7, seed=3)
    indices = np.concatenate([b["index"] for b in batches]).reshape(7, 20)
    epochs = np.concatenate([b["epoch"] for b in batches]).reshape(7, 20)
    np.testing.assert_array_equal(epochs, np.arange(7)[:, None] + np.zeros((1, 20)))
    np.testing.assert_array_equal(np.sort(indices, axis=1), np.tile(np.arange(20), (7, 1)))
    assert len({tuple(order) for order in indices}) == 7


def test_the_order_is_that_of_the_seed():
    first, again, other, next_seed = (
        [b["index"].tolist() for b in take(8, Numbers(50), batch_size=10, seed=s)]
        for s in (0, 0, 7, 1)
    )
    assert first == again
    assert first != other
    # seed + 1 is not the same run begun one epoch later
    assert next_seed[:3] != first[5:]


def test_starting_at_an_example_continues_exactly():
    data = Numbers(13)
    whole = take(12, data, batch_size=4, seed=1)
    for step in (0, 1, 5, 11):
        assert_equal(take(12 - step, data, batch_size=4, seed=1, start=4 * step), whole[step:])
    # with another number of rows from there on
    [rest] = take(1, data, batch_size=20, seed=1, start=28)
    joined = {n: np.concatenate([b[n] for b in whole[7:]]) for n in rest}
    assert_equal([rest], [joined])


# one example: fewer than there are processes
@pytest.mark.parametrize("examples", [1, 17])
@pytest.mark.parametrize("processes", [1, 2, 3, 6])
def test_processes_together_read_the_global_batch(processes, examples):
    data = Numbers(examples)
    whole = take(5, data, batch_size=6, seed=2)
    split = [
        take(5, data, batch_size=6, seed=2, rows=rows) for rows in np.split(np.arange(6), processes)
    ]
    joined = [
        {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        for parts in zip(*split)
    ]
    assert_equal(joined, whole)


def test_any_rows_of_the_batch_may_be_read():
    rows = np.array([5, 0, 3])
    whole = loader.BatchAt(Numbers(17), 6, 2)(4)
    part = loader.BatchAt(Numbers(17), 6, 2, rows)(4)
    np.testing.assert_array_equal(part["index"], whole["index"][rows])


def test_a_distant_start_needs_no_replay():
    batches = loader.Loader(Numbers(10**9), batch_size=2, seed=0, start=2 * 10**12)
    first = next(batches)
    batches.close()
    assert_equal([first], [loader.BatchAt(Numbers(10**9), 2, 0)(10**12)])
    assert (first["epoch"] == 2 * 10**12 // 10**9).all()


def test_worker_processes_give_the_same_batches():
    data = Numbers(19)
    options = {"batch_size": 4, "seed": 1, "start": 12}
    assert_equal(take(6, data, workers=2, **options), take(6, data, **options))


def test_a_closed_loader_stops():
    batches = loader.Loader(Numbers(5), batch_size=2, seed=0)
    batches.close()
    batches.close()
    assert list(batches) == []


def test_an_empty_data_set_is_rejected():
    with pytest.raises(ValueError, match="no examples"):
        loader.Loader(Numbers(0), batch_size=2, seed=0)


def test_an_error_in_a_row_reaches_the_caller():
    class Broken(Numbers):
        def rows(self, indices, epochs):
            raise ValueError("row 3 is broken")

    batches = loader.Loader(Broken(5), batch_size=2, seed=0)
    with pytest.raises(ValueError, match="row 3 is broken"):
        next(batches)
    batches.close()


FORGOTTEN = """
import sys
sys.path.insert(0, {folder!r})
from test_loader import Numbers
from jaxlm.data import loader
if __name__ == "__main__":
    threads = loader.Loader(Numbers(9), batch_size=2, seed=0)
    processes = loader.Loader(Numbers(9), batch_size=2, seed=0, workers=1)
    print(next(threads)["index"].tolist() == next(processes)["index"].tolist())
"""


def test_an_unclosed_loader_does_not_block_exit(tmp_path):
    script = tmp_path / "forgotten.py"
    script.write_text(FORGOTTEN.format(folder=str(__file__).rsplit("/", 1)[0]))
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=300)
    assert (done.stdout, done.stderr, done.returncode) == ("True\n", "", 0)


def test_evaluation_reads_every_example_once_in_order():
    for size, batch in ((10, 4), (3, 8), (8, 4)):
        batches = list(loader.evaluation_batches(Numbers(size), batch))
        assert all(len(b["index"]) == batch for b in batches)
        real = np.concatenate([b["index"][b["valid"] > 0] for b in batches])
        np.testing.assert_array_equal(real, np.arange(size))


def test_evaluation_batches_are_the_same_for_any_number_of_processes():
    whole = list(loader.evaluation_batches(Numbers(10), 4))
    halves = [list(loader.evaluation_batches(Numbers(10), 4, rows)) for rows in ([0, 1], [2, 3])]
    joined = [{n: np.concatenate([a[n], b[n]]) for n in a} for a, b in zip(*halves)]
    assert_equal(joined, whole)


def test_a_limited_evaluation_is_a_fixed_sample_from_all_over_the_data():
    sample = list(loader.evaluation_batches(Numbers(100), 4, limit=5))
    seen = np.concatenate([b["index"] for b in sample])
    assert len(set(seen.tolist())) == 20
    assert seen.min() < 30 < 70 < seen.max()
    assert all(b["valid"].all() for b in sample)
    halves = [
        list(loader.evaluation_batches(Numbers(100), 4, rows, limit=5)) for rows in ([0, 1], [2, 3])
    ]
    assert_equal([{n: np.concatenate([a[n], b[n]]) for n in a} for a, b in zip(*halves)], sample)
    # a limit that the data do not reach changes nothing
    whole = list(loader.evaluation_batches(Numbers(10), 4))
    assert_equal(list(loader.evaluation_batches(Numbers(10), 4, limit=3)), whole)

"""Accounts that balance, and those that do not."""

import pytest

from jaxlm.refine.accounts import Amount, StageAccount, add_up, check


def _stage(name, came, left, edited=0, **dropped):
    stage = StageAccount(name, "paper", Amount(*came), Amount(*left), edited=edited, seconds=1.5)
    for rule, amount in dropped.items():
        stage.dropped[rule] = Amount(*amount)
    return stage


def test_tasks_add_up_and_survive_json():
    first = [_stage("read", (3, 30), (3, 30)), _stage("words", (3, 30), (1, 8), 2, short=(2, 20))]
    second = [_stage("read", (1, 5), (1, 5)), _stage("words", (1, 5), (0, 0), long=(1, 5))]
    second = [StageAccount.of_json(stage.as_json()) for stage in second]
    total = add_up([first, second])
    assert total[1].came == Amount(4, 35)
    assert total[1].as_json()["dropped"] == {
        "short": {"documents": 2, "bytes": 20},
        "long": {"documents": 1, "bytes": 5},
    }
    assert total[1].seconds == 3.0
    check(total, Amount(1, 8))


@pytest.mark.parametrize(
    ("stage", "written", "where"),
    [
        # a document is lost
        (_stage("words", (3, 30), (1, 10), short=(1, 10)), (1, 10), "stage words"),
        # bytes are lost
        (_stage("words", (3, 30), (2, 20), short=(1, 9)), (2, 20), "stage words"),
        # the stage saw less than was read
        (_stage("words", (2, 20), (2, 20)), (2, 20), "between read and words"),
        # a file was cut short
        (_stage("words", (3, 30), (3, 30)), (3, 29), "files that were written"),
    ],
)
def test_what_does_not_balance_is_an_error(stage, written, where):
    with pytest.raises(RuntimeError, match=where):
        check([_stage("read", (3, 30), (3, 30)), stage], Amount(*written))

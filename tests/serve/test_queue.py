"""The waiting line: who is next, and who has to go if it is full."""

import collections

import pytest

from jaxlm.serve.queue import FairQueue, Full, Job, Order


def order(client, jobs=1, kind="generate"):
    made = Order(client)
    made.jobs = [Job(made, kind, None, lambda result: None) for _ in range(jobs)]
    return made


def everything(job):
    return True


def test_clients_take_turns_and_one_clients_requests_keep_their_order():
    queue = FairQueue(100)
    many = [order("many") for _ in range(5)]
    for item in many:
        queue.put(item)
    few = order("few", 2)
    queue.put(few)
    popped = [queue.pop(everything) for _ in range(7)]
    clients = [job.order.client for job in popped]
    assert clients == ["many", "few", "many", "few", "many", "many", "many"]
    assert [job.order for job in popped if job.order.client == "many"] == many
    assert queue.pop(everything) is None
    assert len(queue) == 0


def test_whoever_has_fewer_running_is_next():
    queue = FairQueue(100)
    queue.put(order("a", 3))
    first, second = queue.pop(everything), queue.pop(everything)
    queue.put(order("b", 3))
    assert [queue.pop(everything).order.client for _ in range(2)] == ["b", "b"]
    queue.finish(first)
    queue.finish(second)
    # a has none running now, b two
    assert queue.pop(everything).order.client == "a"


def test_a_kind_that_does_not_fit_lets_others_pass():
    queue = FairQueue(100)
    queue.put(order("a", 1, "generate"))
    queue.put(order("b", 1, "score"))
    job = queue.pop(lambda job: job.kind == "score")
    assert job.order.client == "b"
    assert queue.pop(lambda job: job.kind == "score") is None
    assert len(queue) == 1


def test_a_full_queue_drops_the_newest_request_of_the_longest_line():
    queue = FairQueue(6)
    greedy = [order("greedy", 2) for _ in range(3)]
    for item in greedy:
        assert queue.put(item) == []
    with pytest.raises(Full):
        queue.put(order("greedy"))
    assert queue.put(order("modest")) == [greedy[2]]
    assert queue.put(order("modest")) == []
    assert len(queue) == 6
    # equally long lines: nobody has to go, and what was put back is all there
    assert queue.put(order("modest")) == [greedy[1]]
    with pytest.raises(Full):
        queue.put(order("third", 3))
    clients = collections.Counter(queue.pop(everything).order.client for _ in range(len(queue)))
    assert clients == {"greedy": 2, "modest": 3}


def test_a_request_that_has_started_is_not_dropped():
    queue = FairQueue(4)
    queue.put(order("greedy", 5 - 1))
    queue.pop(everything)
    with pytest.raises(Full):
        queue.put(order("modest", 2))
    assert queue.drain() == []
    waiting = order("modest")
    queue.put(waiting)
    assert queue.drain() == [waiting]
    assert len(queue) == 3


def test_nothing_is_kept_of_clients_that_have_left():
    queue = FairQueue(10)
    for i in range(50):
        item = order(f"client {i}", 2)
        queue.put(item)
        job = queue.pop(everything)
        queue.remove(item)
        queue.finish(job)
    assert len(queue) == 0
    assert not queue._waiting
    assert not queue._running
    assert not queue._served

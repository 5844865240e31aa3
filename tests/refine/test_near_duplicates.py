"""MinHash: signatures equal to datatrove's for the same shingles, and the promised chance to be found."""

import random

import numpy as np
import pytest

pytest.importorskip("datatrove")

from datatrove.data import Document
from datatrove.pipeline.base import PipelineStep
from datatrove.pipeline.dedup.minhash import MinhashDedupBuckets, MinhashDedupSignature

from jaxlm.refine.near_duplicates import DropNearDuplicates, Match, NearDuplicates, Sign

WORDS = [f"{a}{b}{c}" for a in "bcdfgklmnp" for b in "aeiou" for c in "bcdfgklmnprst"]


def _theirs(config):
    step = MinhashDedupSignature.__new__(MinhashDedupSignature)
    PipelineStep.__init__(step)
    step.config, step.num_hashes, step._parameters = (
        config,
        config.num_buckets * config.hashes_per_bucket,
        None,
    )
    return step


@pytest.mark.parametrize(("buckets", "hashes"), [(14, 8), (450, 20), (3, 5)])
def test_signatures_are_those_of_datatrove(tmp_path, buckets, hashes):
    settings = NearDuplicates(buckets=buckets, hashes=hashes)
    shingles = np.random.default_rng(0).integers(0, 1 << 64, (70, 1), np.uint64)
    ours = Sign(tmp_path, settings.config()).get_signature(shingles)
    assert ours == _theirs(settings.config()).get_signature(shingles)
    assert len(ours) == buckets
    assert len(ours[0]) == hashes


def test_shingles_ignore_what_datatrove_ignores(tmp_path):
    step = Sign(tmp_path, NearDuplicates().config())
    one = step.get_shingles("The cat, the dog; and 17 birds. 这是一个测试")
    two = step.get_shingles("the  CAT the\ndog and 99 birds 这是一个测试。")
    assert one.dtype == np.uint64
    assert one.shape[1] == 1
    np.testing.assert_array_equal(one, two)
    # every shingle has five words; ideographs are words
    assert len(step.get_shingles("a b c d")) == 0
    assert len(step.get_shingles("这是一个测试")) == 2


def _clusters(folder, documents, settings):
    settings.sign(folder).run(iter([Document(text=t, id=str(i)) for i, t in enumerate(documents)]))
    for bucket in range(settings.buckets):
        settings.match(folder).run(None, bucket, settings.buckets)
    settings.cluster(folder).run(None, 0, 1)
    rule = DropNearDuplicates(settings=settings, folder=folder).for_task(0)
    made = [Document(text="", id=str(i), metadata={"position": i}) for i in range(len(documents))]
    return [rule.check(document) for document in made], made


@pytest.mark.parametrize("memory", [1 << 29, 2000])
def test_pairs_are_those_of_datatrove(tmp_path, memory):
    rng = random.Random(1)
    settings = NearDuplicates(buckets=3, hashes=2)
    texts = [" ".join(rng.choices(WORDS, k=30)) for _ in range(40)]
    # three tasks; several copies of some documents, within and between them; documents without a shingle
    for task in range(3):
        chosen = [rng.choice(texts) for _ in range(30)] + ["too short"] * 3
        settings.sign(tmp_path).run(iter([Document(text=t, id="") for t in chosen]), task, 3)
    theirs = MinhashDedupBuckets(
        str(tmp_path / "signatures"), str(tmp_path / "theirs"), config=settings.config()
    )
    for bucket in range(3):
        Match(tmp_path, settings.config(), memory).run(None, bucket, 3)
        theirs.run(None, bucket, 3)
        name = f"{bucket:05d}_00.dups"
        ours = (tmp_path / "pairs" / name).read_bytes()
        assert ours == (tmp_path / "theirs" / name).read_bytes()
        assert len(ours) > 16 * 30


def test_pairs_are_found_as_often_as_promised(tmp_path):
    rng = random.Random(0)
    settings = NearDuplicates(buckets=20, hashes=4)
    texts, promised = [], []
    for _ in range(150):
        words = rng.choices(WORDS, k=60)
        other = list(words)
        for place in rng.sample(range(60), rng.randrange(1, 9)):
            other[place] = rng.choice(WORDS)
        texts += [" ".join(words), " ".join(other)]
        sets = [{tuple(w[i : i + 5]) for i in range(56)} for w in (words, other)]
        promised.append(settings.probability(len(sets[0] & sets[1]) / len(sets[0] | sets[1])))
    drops, _ = _clusters(tmp_path, texts, settings)
    found = [(drops[2 * i] is not None) + (drops[2 * i + 1] is not None) for i in range(150)]
    # never both
    assert set(found) <= {0, 1}
    expected, deviation = sum(promised), sum(p * (1 - p) for p in promised) ** 0.5
    assert 30 < expected < 120
    assert abs(sum(found) - expected) < 4 * deviation


def test_one_of_a_cluster_stays_and_knows_its_size(tmp_path):
    text = " ".join(WORDS[:80])
    texts = [text, " ".join(WORDS[80:160]), text, text + " end"]
    settings = NearDuplicates()
    drops, documents = _clusters(tmp_path, texts, settings)
    kept = [i for i, drop in enumerate(drops) if drop is None]
    assert len(kept) == 2
    assert 1 in kept
    sizes = [documents[i].metadata["minhash_cluster_size"] for i in kept]
    assert sorted(sizes) == [1, 3]
    gone = next(drop for drop in drops if drop is not None)
    assert (gone.rule, gone.value, gone.threshold) == (
        "near_duplicate",
        3,
        "similarity of about 0.72",
    )


@pytest.mark.parametrize("field", [{"buckets": 0}, {"hashes": 0}, {"ngram": 0}])
def test_settings_are_checked(field):
    with pytest.raises(ValueError, match=f"{next(iter(field))}=0"):
        NearDuplicates(**field)

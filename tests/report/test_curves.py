"""Which way a metric improves, as the curves mark its best value."""

import pytest

from jaxlm.report import curves


@pytest.mark.parametrize(
    ("lower", "names"),
    [
        (True, "loss class_loss perplexity word_perplexity iw_perplexity iw_word_perplexity"),
        (True, "neg_elbo iw_nll reconstruction bits_per_byte root_mean_squared_error"),
        (False, "accuracy class_accuracy f1 macro_precision bleu rouge1 exact_match pearson"),
        (None, "kl swap_loss active_units mutual_information distinct_samples"),
        (None, "tokens_per_text words_per_text analysed_texts best_f1_threshold"),
    ],
)
def test_the_best_value_is_marked_where_one_is_better(lower, names):
    for name in names.split():
        assert curves.lower_is_better(f"eval/{name}") is lower, name

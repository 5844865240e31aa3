"""Model architecture, independent of training and hardware.

Fields that are None are derived from the others by the properties at the end of the class, so that overriding one size
(`--model.dim 512`) also updates the sizes derived from it.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Literal, Self, cast, get_args

from jaxlm.config.rope import RopeScaling
from jaxlm.config.values import check_at_least, check_positive, check_values

Norm = Literal["layer_norm", "rms_norm", "rms_norm_plus_one"]
ActivationFunction = Literal["gelu", "gelu_tanh", "relu", "silu"]
Activation = Literal[
    "gelu",
    "gelu_tanh",
    "relu",
    "silu",
    "geglu",
    "geglu_tanh",
    "reglu",
    "swiglu",
    "swiglu_clamped",
]
Bias = Literal["norm", "qkv", "attn_out", "mlp", "router"]
ExtraNorm = Literal["embedding", "qk", "qk_whole", "qk_by_head", "relative", "final"]
NormPlace = Literal["pre", "post", "both", "out"]
RelativeScores = Literal["shared", "by_layer", "disentangled"]
RelativeTerm = Literal["content_to_position", "position_to_content"]

# gated activation -> the function applied to the gate
GATED: dict[str, ActivationFunction] = {
    "geglu": "gelu",
    "geglu_tanh": "gelu_tanh",
    "reglu": "relu",
    "swiglu": "silu",
    "swiglu_clamped": "silu",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class TransformerConfig:
    """Fields of the stack of blocks, common to all models; the defaults are a small GPT-2."""

    # number of token embeddings; None: taken from the tokenizer, rounded up to a multiple of 64
    vocab_size: int | None = None
    # model width D
    dim: int = 256
    # number of blocks L
    num_layers: int = 4
    # groups of consecutive layers that have the same parameters (ALBERT: 1); None: each layer has its own
    layer_groups: int | None = None
    # query heads N
    num_heads: int = 4
    # key/value heads K (grouped-query attention); None: num_heads
    num_kv_heads: int | None = None
    # head width H; None: dim / num_heads
    head_dim: int | None = None
    # MLP width F; None: 4 x dim, or 8/3 x dim rounded up to a multiple of 64 for a gated MLP
    mlp_dim: int | None = None
    # longest sequence of one document, in tokens
    max_len: int = 512

    # kind of norm
    norm: Norm = "layer_norm"
    # position of the norms: before each sub-layer (GPT-2, Llama), after its residual sum (BERT), before it and again
    # on its output (Gemma 2), or on its output alone (OLMo 2)
    norm_place: NormPlace = "pre"
    # added to the variance (layer norm) or the mean square (rms norm)
    norm_eps: float = 1e-5
    # norms besides those of `norm_place`: of the summed embeddings, before the first block; over each head's query and
    # key, with one scale for all heads (Qwen 3, Gemma 3), over all heads of a query or key together (OLMo 2), or over
    # each head's with a scale of its own and no bias (StableLM 2); of the vectors of relative positions (DeBERTa v3);
    # after the last block (pre-norm stacks need one)
    extra_norms: tuple[ExtraNorm, ...] = ("final",)
    # what the norm `embedding` normalises: the sum of a token's embeddings, or that of the token itself before others
    # are added to it
    embedding_norm: Literal["sum", "token"] = "sum"
    # a norm before the first block's attention; ModernBERT has none there, because its embeddings are normalised
    first_attn_norm: bool = True

    # learned: a table of max_len rows; sinusoidal: the 2017 Transformer's, sines in the first half of the dims;
    # sinusoidal_inclusive: tensor2tensor's, whose slowest frequency is 1 / 10000 (M2M100); rotary: of queries and keys;
    # relative: none but those of `relative_scores` (T5); alibi: a fixed bias that falls with the distance, by a slope
    # of each head (Press et al. 2021, 2108.12409), of decoders
    positions: Literal[
        "learned", "sinusoidal", "sinusoidal_inclusive", "rotary", "relative", "alibi", "none"
    ] = "learned"
    # row of the first token in the learned or sinusoidal table (BART, M2M100, OPT, RoBERTa: 2)
    position_offset: int = 0
    # what relative positions add to the scores. shared: a bias by bucket of distance for each head, the same in all
    # layers (T5; MPNet, besides learned positions); by_layer: each layer has its own (UMT5); disentangled: products of
    # queries and keys with vectors of the buckets (DeBERTa: He et al. 2020, 2006.03654). None: shared if
    # positions=relative
    relative_scores: RelativeScores | None = None
    # number of buckets of distances
    relative_buckets: int = 32
    # distances of at least this are in one bucket; disentangled: half of relative_buckets for a bucket each distance
    relative_max_distance: int = 128
    # disentangled: which products there are, of queries with vectors of positions and of such vectors with keys
    relative_terms: tuple[RelativeTerm, ...] = ("content_to_position", "position_to_content")
    # disentangled: whether vectors of positions have query and key projections of their own or those of the content
    relative_projections: Literal["own", "content"] = "content"
    # alibi: factor on the biases, and the dtype to which they are rounded (Falcon: 1 / sqrt(head_dim), bfloat16)
    alibi_scale: float = 1.0
    alibi_dtype: Literal["float32", "bfloat16"] = "float32"
    # base of the rotary wavelengths
    rope_theta: float = 10_000.0
    # base in local layers (Gemma 3, ModernBERT); None: rope_theta
    rope_local_theta: float | None = None
    # fraction of each head that is rotated (GPT-NeoX: 0.25)
    rope_fraction: float = 1.0
    # which dims of a head are rotated together: i and i + R/2 of the R rotated ones (Llama), or 2i and 2i + 1 (GPT-J)
    rope_pairs: Literal["halves", "neighbours"] = "halves"
    # which layers rotate their queries and keys, with rotary positions; cycled over the layers (SmolLM 3)
    rope_pattern: tuple[Literal["rotary", "none"], ...] = ("rotary",)
    # scaling of rotary positions for long texts; None: no scaling
    rope_scaling: RopeScaling | None = None

    # activation of the MLP; the gated ones (GeGLU, ReGLU, SwiGLU: Shazeer 2020, 2002.05202) are
    # function(x W_gate) * (x W_up) instead of function(x W_up)
    # swiglu_clamped (gpt-oss): g sigmoid(gain g) * (u + 1), g = x W_gate up to `limit`, u = x W_up within `limit` of 0
    activation: Activation = "gelu_tanh"
    swiglu_limit: float = 7.0
    swiglu_gain: float = 1.702
    # which parts have biases: layer norms (rms norms never have), the query, key and value projections, the output
    # projection of attention, the MLP or each expert, the router of experts; empty: none
    biases: tuple[Bias, ...] = ("norm", "qkv", "attn_out", "mlp")
    # number of experts (MLPs), of which a router selects some for each token; None: a single MLP
    num_experts: int | None = None
    # number of experts for each token
    experts_per_token: int = 2
    # probabilities of the experts, by which their outputs are weighted: over the selected ones (Mixtral), or over all,
    # so that those of the selected ones sum to less than 1 (Qwen 1.5 MoE)
    router_weights: Literal["selected", "all"] = "selected"
    # width of an MLP through which every token passes, besides the experts, weighted by a gate (Qwen 1.5 MoE)
    shared_expert_dim: int | None = None
    # layers with a single MLP in place of experts (Qwen's mlp_only_layers), from 0, and its width; None: mlp_dim
    dense_layers: tuple[int, ...] = ()
    dense_mlp_dim: int | None = None
    # in training, inputs of router and experts are multiplied by noise from 1 - router_jitter to 1 + router_jitter
    router_jitter: float = 0.0
    # weight of the load-balancing loss (Fedus et al. 2021, 2101.03961, section 2.2) of each layer, over the tokens of a
    # batch without padding, beside the mean loss of the task
    router_balance: float = 0.001
    # attention and MLP read the same input and are added together (GPT-NeoX)
    parallel_block: bool = False
    # in a parallel block: both read the input normalised once, by the norm of attention (GPT-J, Falcon)
    shared_norm: bool = False

    # local layers do not attend to keys at this distance or further away
    window: int | None = None
    # which layers are local when there is a window; cycled over the layers
    layer_pattern: tuple[Literal["local", "global"], ...] = ("local",)
    # scores are cap * tanh(scores / cap) (Gemma 2)
    attention_softcap: float | None = None
    # logits of the vocabulary are cap * tanh(logits / cap) (Gemma 2)
    logit_softcap: float | None = None
    # each head has a learned score that counts in the softmax like that of one more key, without a value (gpt-oss)
    attention_sinks: bool = False
    # factor on the scores; None: 1 / sqrt(head_dim) (GPT-Neo, T5: 1)
    attention_scale: float | None = None
    # embeddings times sqrt(dim) (the 2017 Transformer, Gemma)
    scale_embeddings: bool = False
    # factor on the embeddings, in place of sqrt(dim), and on the outputs of attention and MLP (Granite)
    embedding_scale: float = 1.0
    residual_scale: float = 1.0
    # one table for the input embedding and the output logits
    tie_embeddings: bool = True

    # dropout rate of attention outputs and MLP outputs, and of embeddings unless they have their own
    dropout: float = 0.0
    # dropout rate of attention probabilities
    attention_dropout: float = 0.0
    # dropout rate of embeddings; None: dropout
    embedding_dropout: float | None = None
    # standard deviation of the initial weights
    init_std: float = 0.02

    def __post_init__(self):
        self._check_choices()
        check_values(self, "model")
        for name in ("dim", "num_layers", "num_heads", "max_len"):
            _at_least(f"model.{name}", getattr(self, name), 1)
        _not_deeper(self, "num_layers")
        check_positive(
            self,
            "model.",
            "norm_eps",
            "init_std",
            "rope_theta",
            "rope_local_theta",
            "alibi_scale",
            "swiglu_gain",
            "attention_scale",
            "embedding_scale",
            "residual_scale",
        )
        check_at_least(self, "model.", 0, "router_balance")
        check_at_least(self, "model.", 1, "experts_per_token")
        if self.layer_groups is not None and (
            self.layer_groups < 1 or self.num_layers % self.layer_groups
        ):
            raise ValueError(
                f"model.layer_groups={self.layer_groups} does not divide model.num_layers={self.num_layers}"
            )
        _at_least("model.position_offset", self.position_offset, 0)
        if self.position_offset and self.positions in ("rotary", "relative", "alibi", "none"):
            raise ValueError(
                f"model.position_offset={self.position_offset} has no effect with "
                f"model.positions={self.positions}: leave it out"
            )
        self._check_relative()
        if self.distance_scores != "disentangled" and (
            self.relative_buckets < 4 or self.relative_max_distance <= self.relative_buckets // 2
        ):
            raise ValueError(
                f"model.relative_buckets={self.relative_buckets} must be at least 4, and its half below "
                f"model.relative_max_distance={self.relative_max_distance}"
            )
        optional = (
            "vocab_size",
            "num_kv_heads",
            "head_dim",
            "mlp_dim",
            "window",
            "shared_expert_dim",
            "dense_mlp_dim",
        )
        for name in optional:
            if getattr(self, name) is not None:
                _at_least(f"model.{name}", getattr(self, name), 1)
        if self.head_dim is None and self.dim % self.num_heads:
            raise ValueError(
                f"model.num_heads={self.num_heads} does not divide model.dim={self.dim}: "
                "change one of them, or set model.head_dim"
            )
        if self.num_heads % self.kv_heads:
            raise ValueError(
                f"model.num_kv_heads={self.kv_heads} does not divide model.num_heads={self.num_heads}"
            )
        if self.num_experts is not None:
            if not 1 <= self.experts_per_token <= self.num_experts:
                raise ValueError(
                    f"model.experts_per_token={self.experts_per_token} is not between 1 and "
                    f"model.num_experts={self.num_experts}"
                )
        elif self.shared_expert_dim is not None:
            raise ValueError(
                f"model.shared_expert_dim={self.shared_expert_dim} has no effect without model.num_experts"
            )
        elif self.experts_per_token != type(self).experts_per_token:
            raise ValueError(
                f"model.experts_per_token={self.experts_per_token} has no effect without model.num_experts"
            )
        self._check_dense_layers()
        if "router" in self.biases and self.num_experts is None:
            raise ValueError(
                f"model.biases={self.biases} has 'router', which has no effect without model.num_experts"
            )
        if self.swiglu_limit <= 0:
            raise ValueError(f"model.swiglu_limit={self.swiglu_limit} must be positive")
        if not 0 <= self.router_jitter < 1:
            raise ValueError(f"model.router_jitter={self.router_jitter} is not in [0, 1)")
        if not 0 < self.rope_fraction <= 1:
            raise ValueError(f"model.rope_fraction={self.rope_fraction} is not in (0, 1]")
        if self.positions == "rotary":
            self._check_rotary()
        for name in ("dropout", "attention_dropout", "embedding_dropout"):
            rate = getattr(self, name)
            if rate is not None and not 0 <= rate < 1:
                raise ValueError(f"model.{name}={rate} is not in [0, 1)")
        for name in ("attention_softcap", "logit_softcap"):
            cap = getattr(self, name)
            if cap is not None and cap <= 0:
                raise ValueError(f"model.{name}={cap} must be positive; leave it out for no cap")
        if self.parallel_block and self.norm_place == "post":
            raise ValueError(
                "model.parallel_block is not supported with model.norm_place=post: use pre or both"
            )
        if not self.first_attn_norm and (self.norm_place in ("post", "out") or self.shared_norm):
            raise ValueError(
                "model.first_attn_norm=False needs a norm before attention alone: leave it out with "
                f"model.norm_place={self.norm_place}, model.shared_norm={self.shared_norm}"
            )
        if self.shared_norm and not (self.parallel_block and self.norm_place in ("pre", "both")):
            raise ValueError(
                "model.shared_norm needs model.parallel_block and a norm before it (model.norm_place=pre or both)"
            )
        if self.scale_embeddings and self.embedding_scale != 1:
            raise ValueError(
                f"model.scale_embeddings and model.embedding_scale={self.embedding_scale} are two factors on the "
                "embeddings: leave one out"
            )
        if self.window is None and "global" in self.layer_pattern and len(self.layer_pattern) > 1:
            raise ValueError("model.layer_pattern mixes local and global layers: set model.window")

    def _check_dense_layers(self) -> None:
        """Checks which layers have no experts, and sorts them."""
        layers, count = tuple(sorted(set(self.dense_layers))), self.num_layers
        object.__setattr__(self, "dense_layers", layers)
        if layers and self.num_experts is None:
            raise ValueError(
                f"model.dense_layers={layers} has no effect without model.num_experts: no layer has experts"
            )
        if layers and not 0 <= layers[0] <= layers[-1] < count:
            raise ValueError(
                f"model.dense_layers={layers} must be layers from 0 to {count - 1}: model.num_layers={count}"
            )
        if len(layers) == count:
            raise ValueError(
                f"model.dense_layers={layers} are all layers: leave out model.num_experts instead"
            )
        if layers and self.layer_groups is not None:
            raise ValueError(
                f"model.dense_layers={layers} is not supported with model.layer_groups={self.layer_groups}"
            )
        if self.dense_mlp_dim is not None and not layers:
            raise ValueError(
                f"model.dense_mlp_dim={self.dense_mlp_dim} has no effect without model.dense_layers"
            )

    def _check_rotary(self) -> None:
        """Checks what rotary positions need."""
        scaling = self.rope_scaling
        if 2 * self.rotary_pairs > self.head_width:
            raise ValueError(
                f"rotary positions rotate pairs, but model.head_dim={self.head_width} is odd: use an even one, or set "
                "model.rope_fraction"
            )
        if self.rotary_dim % 2 and (self.rope_pairs != "halves" or scaling is not None):
            raise ValueError(
                f"model.head_dim={self.head_width} times model.rope_fraction={self.rope_fraction} is odd, which is "
                "supported with model.rope_pairs=halves and without model.rope_scaling alone"
            )
        if not self.rope_pattern or not set(self.rope_pattern) <= {"rotary", "none"}:
            raise ValueError(
                f"model.rope_pattern={self.rope_pattern!r} may contain only rotary and none, and must not be empty"
            )
        if scaling is not None and len(scaling.short_factor) not in (0, self.rotary_pairs):
            raise ValueError(
                f"model.rope_scaling.short_factor has {len(scaling.short_factor)} numbers, but a head has "
                f"{self.rotary_pairs} rotated pairs"
            )

    def _check_relative(self) -> None:
        """Checks the fields of scores by distance, most of which are for disentangled attention alone."""
        scores = self.relative_scores
        if scores not in (None, *get_args(RelativeScores)):
            raise ValueError(
                f"model.relative_scores={scores!r} is not one of {', '.join(get_args(RelativeScores))}"
            )
        if scores is not None and self.positions == "none":
            raise ValueError(
                f"model.relative_scores={scores} needs positions: use model.positions=relative instead of none"
            )
        if scores != "disentangled":
            if "relative" in self.extra_norms:
                raise ValueError(
                    "model.extra_norms has 'relative', which needs model.relative_scores=disentangled"
                )
            return
        has_norm = {"qk", "qk_whole", "qk_by_head"} & {*self.extra_norms}
        if self.positions == "rotary" or has_norm or self.kv_heads < self.num_heads:
            raise ValueError(
                "model.relative_scores=disentangled does not support model.positions=rotary, a norm of queries and "
                "keys, or fewer key heads than query heads"
            )
        if not self.relative_terms:
            raise ValueError(
                "model.relative_terms is empty: leave out model.relative_scores=disentangled"
            )
        buckets, longest = self.relative_buckets, self.relative_max_distance
        if buckets < 4 or buckets % 2 or longest < buckets // 2:
            raise ValueError(
                f"model.relative_buckets={buckets} must be even, at least 4, and its half at most "
                f"model.relative_max_distance={longest}"
            )

    def _check_choices(self) -> None:
        """Checks the names in `activation`, `biases` and the other lists of names, and sorts the lists."""
        if self.activation not in get_args(Activation):
            raise ValueError(
                f"model.activation={self.activation!r} is not one of {', '.join(get_args(Activation))}"
            )
        if not self.layer_pattern or not set(self.layer_pattern) <= {"local", "global"}:
            raise ValueError(
                f"model.layer_pattern={self.layer_pattern!r} may contain only local and global, and must not be empty"
            )
        lists = (("biases", Bias), ("extra_norms", ExtraNorm), ("relative_terms", RelativeTerm))
        for name, kind in lists:
            values, known = getattr(self, name), get_args(kind)
            if not isinstance(values, (tuple, list)) or len(set(values)) < len(values):
                raise ValueError(
                    f"model.{name}={values!r} is not a tuple of different values; known: {', '.join(known)}"
                )
            for value in values:
                if value not in known:
                    raise ValueError(
                        f"model.{name} has {value!r}, which is not one of {', '.join(known)}"
                    )
            if len({"qk", "qk_whole", "qk_by_head"} & set(values)) > 1:
                raise ValueError(
                    f"model.{name}={values!r} has two kinds of norms of queries and keys"
                )
            # a fixed order, so that equal models have equal configs
            ordered = tuple(
                value
                for value in known
                if value in values and (value != "norm" or self.norm == "layer_norm")
            )
            object.__setattr__(self, name, ordered)

    @property
    def is_gated(self) -> bool:
        """Whether the MLP has a gate."""
        return self.activation in GATED

    @property
    def activation_function(self) -> ActivationFunction:
        """The element-wise function of the activation, which in a gated MLP is applied to the gate."""
        return GATED.get(self.activation, cast("ActivationFunction", self.activation))

    @property
    def kv_heads(self) -> int:
        """Key/value heads K."""
        return self.num_kv_heads or self.num_heads

    @property
    def head_width(self) -> int:
        """Head width H."""
        return self.head_dim or self.dim // self.num_heads

    @property
    def distance_scores(self) -> RelativeScores | None:
        """What relative positions add to the scores."""
        return self.relative_scores or ("shared" if self.positions == "relative" else None)

    @property
    def score_scale(self) -> float:
        """Factor on the scores; each of the disentangled products counts as one more (He et al. 2020, equation 4)."""
        if self.attention_scale is not None:
            return self.attention_scale
        terms = len(self.relative_terms) if self.distance_scores == "disentangled" else 0
        return (self.head_width * (1 + terms)) ** -0.5

    @property
    def rotary_dim(self) -> int:
        """Number of dims of a head over which the frequencies are spread; an odd one rotates one dim more."""
        return int(self.head_width * self.rope_fraction)

    @property
    def rotary_pairs(self) -> int:
        """Number of rotated pairs of a head."""
        return -(-self.rotary_dim // 2)

    @property
    def mlp_width(self) -> int:
        """MLP width F."""
        if self.mlp_dim is not None:
            return self.mlp_dim
        return -(-8 * self.dim // (3 * 64)) * 64 if self.is_gated else 4 * self.dim

    def without_experts(self, mlp_dim: int) -> Self:
        """The config of blocks with a single MLP of this width in place of experts."""
        return dataclasses.replace(
            self,
            mlp_dim=mlp_dim,
            num_experts=None,
            shared_expert_dim=None,
            dense_layers=(),
            dense_mlp_dim=None,
            biases=tuple(x for x in self.biases if x != "router"),
        )

    @property
    def embedding_width(self) -> int:
        """Width E of the embeddings."""
        return self.dim

    @property
    def block_of_layer(self) -> tuple[int, ...]:
        """For each layer, the index of its block among those that have parameters of their own."""
        layers, groups = self.num_layers, self.layer_groups or self.num_layers
        return tuple(i * groups // layers for i in range(layers))

    @property
    def local_layers(self) -> tuple[bool, ...]:
        """For each layer, whether the window applies to it."""
        kinds = (self.layer_pattern[i % len(self.layer_pattern)] for i in range(self.num_layers))
        return tuple(self.window is not None and kind == "local" for kind in kinds)

    @property
    def rotary_layers(self) -> tuple[bool, ...]:
        """For each layer, whether it rotates queries and keys."""
        kinds = (self.rope_pattern[i % len(self.rope_pattern)] for i in range(self.num_layers))
        return tuple(self.positions == "rotary" and kind == "rotary" for kind in kinds)

    @property
    def rope_switch(self) -> int | None:
        """Tokens of the longest text with the first of two sets of frequencies (longrope): one token more, and the keys
        in a cache have to be computed anew; None: there are not two."""
        scaling = self.rope_scaling
        if self.positions != "rotary" or scaling is None or scaling.kind != "longrope":
            return None
        return scaling.original_max_len if scaling.original_max_len < self.max_len else None

    @property
    def max_cached_len(self) -> int:
        """Tokens of the longest text that can be written one by one: beyond it, keys in a cache would be wrong.

        It is below max_len only where the rotary frequencies depend on the length of a text.
        """
        scaling = self.rope_scaling
        if self.positions != "rotary" or scaling is None or not scaling.by_length:
            return self.max_len
        return min(self.max_len, scaling.original_max_len)


@dataclasses.dataclass(frozen=True, kw_only=True)
class DecoderConfig(TransformerConfig):
    """A causal language model; GPT-2 style by default, Llama style with the arguments of `llama_style()`."""

    # factor on the logits of the vocabulary (Granite)
    logit_scale: float = 1.0
    # add a bias to the logits (GPT-J)
    logit_bias: bool = False

    def __post_init__(self):
        super().__post_init__()
        check_positive(self, "model.", "logit_scale")
        if self.relative_scores == "disentangled":
            raise ValueError(
                "model.relative_scores=disentangled is for encoders: a cache has no vectors of positions"
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class EncoderConfig(TransformerConfig):
    """A bidirectional encoder; BERT style (Devlin et al. 2018) by default."""

    # BERT's values; see TransformerConfig for the meaning
    norm_place: NormPlace = "post"
    norm_eps: float = 1e-12
    extra_norms: tuple[ExtraNorm, ...] = ("embedding",)
    activation: Activation = "gelu"
    dropout: float = 0.1
    attention_dropout: float = 0.1
    # number of token types (segments A and B); 0: no such embedding
    num_token_types: int = 2
    # width of the embeddings, projected to `dim` by a linear layer (ELECTRA); None: dim
    embedding_dim: int | None = None
    # activation of the hidden layer in classification heads: tanh (BERT), relu (DistilBERT), gelu (ELECTRA, ModernBERT)
    head_activation: Literal["tanh", "gelu", "relu"] = "tanh"
    # activation of the hidden layer in the head for masked tokens (RoBERTa and ELECTRA: gelu, whatever the MLP has);
    # None: that of the MLP
    lm_head_activation: ActivationFunction | None = None
    # width, an odd number of tokens, of a convolution of the embeddings that is added to the first block's output, with
    # its activation and a norm (DeBERTa v2: He et al. 2020, 2006.03654, appendix A.1); None: there is none
    convolution: int | None = None
    convolution_activation: Literal["tanh", "gelu", "relu"] = "gelu"
    # a bias in the hidden layer of every head (ModernBERT has none)
    head_bias: bool = True
    # a norm after the hidden layer, which is then in the heads for tokens and spans too (ModernBERT)
    head_norm: bool = False

    def __post_init__(self):
        super().__post_init__()
        check_at_least(self, "model.", 0, "num_token_types")
        _check_not_alibi(self)
        if self.embedding_dim is not None:
            _at_least("model.embedding_dim", self.embedding_dim, 1)
        if self.convolution is not None and (self.convolution < 1 or self.convolution % 2 == 0):
            raise ValueError(f"model.convolution={self.convolution} must be odd and positive")

    @property
    def embedding_width(self) -> int:
        """Width E of the embeddings."""
        return self.embedding_dim or self.dim


@dataclasses.dataclass(frozen=True, kw_only=True)
class EncoderDecoderConfig(TransformerConfig):
    """An encoder-decoder; by default a small version of the 2017 Transformer.

    Both sides have one width, and heads of one width.
    """

    # number of blocks of the decoder; None: num_layers
    num_decoder_layers: int | None = None
    # query heads of the decoder; None: num_heads
    num_decoder_heads: int | None = None
    # MLP width of the decoder; None: that of the encoder
    decoder_mlp_dim: int | None = None
    # one table of token embeddings for source and target; with False each has its own
    share_embeddings: bool = True
    # values of the 2017 Transformer; see TransformerConfig for the meaning
    norm_place: NormPlace = "post"
    extra_norms: tuple[ExtraNorm, ...] = ()
    positions: Literal[
        "learned", "sinusoidal", "sinusoidal_inclusive", "rotary", "relative", "alibi", "none"
    ] = "sinusoidal"
    activation: Activation = "relu"
    scale_embeddings: bool = True
    dropout: float = 0.1
    # `embedding_norm` of the decoder; None: that of the encoder (Blenderbot small: token)
    decoder_embedding_norm: Literal["sum", "token"] | None = None
    # `scale_embeddings` of the decoder; None: that of the encoder (Blenderbot small: False)
    decoder_scale_embeddings: bool | None = None
    # divide the last hidden states by sqrt(dim) before the output table (T5 v1.0, where the table is tied)
    scale_outputs: bool = False
    # add a bias to the logits (BART, Marian)
    logit_bias: bool = False

    def __post_init__(self):
        super().__post_init__()
        _check_not_alibi(self)
        for name in ("num_decoder_layers", "num_decoder_heads", "decoder_mlp_dim"):
            if getattr(self, name) is not None:
                _at_least(f"model.{name}", getattr(self, name), 1)
        _not_deeper(self, "num_decoder_layers")
        if self.decoder_scale_embeddings and not self.scale_embeddings:
            raise ValueError(
                "model.decoder_scale_embeddings=True needs model.scale_embeddings=True: set both"
            )
        if self.parallel_block:
            raise ValueError("model.parallel_block does not support cross-attention: leave it out")

    @property
    def encoder(self) -> EncoderConfig:
        """Config of the encoder."""
        return EncoderConfig(**self._shared(), num_token_types=0)

    @property
    def decoder(self) -> DecoderConfig:
        """Config of the decoder."""
        own: dict[str, Any] = dict(num_layers=self.num_decoder_layers or self.num_layers)
        if self.num_decoder_heads is not None:
            own["num_heads"] = self.num_decoder_heads
        if self.decoder_mlp_dim is not None:
            own["mlp_dim"] = self.decoder_mlp_dim
        own["embedding_norm"] = self.decoder_embedding_norm or self.embedding_norm
        return DecoderConfig(**self._shared() | own)

    def _shared(self) -> dict:
        fields = dataclasses.fields(TransformerConfig)
        return {f.name: getattr(self, f.name) for f in fields}


def _check_not_alibi(config: TransformerConfig) -> None:
    if config.positions == "alibi":
        raise ValueError(
            "model.positions=alibi is for decoders: it counts the distance to earlier tokens"
        )


def llama_style() -> dict:
    """The arguments that turn a DecoderConfig into a Llama: `DecoderConfig(**llama_style(), dim=512)`."""
    return dict(
        norm="rms_norm",
        positions="rotary",
        activation="swiglu",
        biases=(),
        tie_embeddings=False,
    )


def t5_style() -> dict:
    """The arguments that turn an EncoderDecoderConfig into a T5 v1.1, mT5 or Flan-T5 (Raffel et al. 2020, 1910.10683).

    The original T5 has `activation="relu", tie_embeddings=True, scale_outputs=True` instead.
    """
    return dict(
        norm="rms_norm",
        norm_place="pre",
        norm_eps=1e-6,
        extra_norms=("final",),
        positions="relative",
        activation="geglu_tanh",
        biases=(),
        attention_scale=1.0,
        scale_embeddings=False,
        tie_embeddings=False,
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class ComputeConfig:
    """How a model is executed: affects speed and memory, not results (up to rounding)."""

    # dtype of activations and matrix products; parameters stay float32. auto: bfloat16 on accelerators
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    # auto: splash on TPU and cudnn on GPU where they support the arguments, otherwise xla
    attention: Literal["auto", "xla", "cudnn", "splash"] = "auto"
    # what the backward pass recomputes; none: nothing; minimal: all but matrix products and attention; dots: all but
    # matrix products; offload: as minimal, with the products in host memory; attention: all but attention; full: blocks
    remat: Literal["none", "minimal", "dots", "offload", "attention", "full"] = "none"
    # blocks per step of the scan over layers; 0: all on CPUs and GPUs unless there are many or remat is set, else one
    unroll: int = 0
    # split activations between the layers over mesh.tensor too, by position (Korthikanti et al. 2022, 2205.05198,
    # section 4.2.2): norms, dropout and what is saved of them take 1 / tensor of the memory
    sequence_parallel: bool = False
    # operands of the blocks' matrix products: of dtype, or of 8 bits, in training and after it (`ops.quantized`);
    # experts, embeddings and heads are never quantised
    quantize: Literal["none", "int8", "fp8"] = "none"
    # auto: options of XLA for GPUs and TPUs that overlap communication (docs/launch.md), besides those that XLA_FLAGS
    # or LIBTPU_INIT_ARGS set
    flags: Literal["none", "auto"] = "none"

    def __post_init__(self):
        check_values(self, "compute")
        _at_least("compute.unroll", self.unroll, 0)


def _at_least(name: str, value: float, least: int) -> None:
    if value < least:
        raise ValueError(f"{name}={value} must be at least {least}")
    if value >= 2**31:
        raise ValueError(f"{name}={value} must be below 2^31")


# ten times the deepest that have been published (Wang et al. 2022, DeepNet, 2203.00555)
_MOST_LAYERS = 10_000


def _not_deeper(config: Any, name: str) -> None:
    """What a small file may ask for without taking all memory, or for ever."""
    layers = getattr(config, name)
    if layers is not None and layers > _MOST_LAYERS:
        raise ValueError(f"model.{name}={layers} must be at most {_MOST_LAYERS:,}")

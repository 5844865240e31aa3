"""Model architecture, independent of training and hardware.

Fields that are None are derived from the others by the properties at the end of the class, so that overriding one size
(`--model.dim 512`) also updates the sizes derived from it.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Literal, Self, cast, get_args

from jaxlm.config import model_checks
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
        model_checks.check_pattern(self, "layer_pattern", "local", "global")
        lists = (("biases", Bias), ("extra_norms", ExtraNorm), ("relative_terms", RelativeTerm))
        for name, kind in lists:
            # a fixed order, so that equal models have equal configs
            object.__setattr__(self, name, model_checks.ordered(self, name, get_args(kind)))
        check_values(self, "model")
        object.__setattr__(self, "dense_layers", tuple(sorted(set(self.dense_layers))))
        model_checks.check(self)

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
        model_checks.check_not_alibi(self)
        model_checks.check_size(self, "embedding_dim")
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
        model_checks.check_not_alibi(self)
        model_checks.check_size(self, "num_decoder_layers", "num_decoder_heads", "decoder_mlp_dim")
        model_checks.check_depth(self, "num_decoder_layers")
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

"""What a file has too much, too little or wrong is an error that names it; nothing is made up or left out."""

from functools import partial

import pytest
import torch

from tests.models.files import edited
from tests.models.tiny import CASES, counterpart, reference
from torchgguf.container import ArrayType, GGUFError, ValueType, open_gguf, write_gguf
from torchgguf.models import AutoConfig, AutoModel, AutoModelForCausalLM, LlamaForCausalLM, Qwen2ForCausalLM
from torchgguf.models.architectures.qwen2 import QWEN2
from torchgguf.models.blocks.rope_rule import Rope
from torchgguf.models.blocks.tables import DECODER_RULES


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    path = tmp_path_factory.mktemp("strict") / "llama.gguf"
    counterpart(reference(CASES["llama"])).save_gguf(path)
    return path


@pytest.fixture(scope="module")
def qwen2(tmp_path_factory):
    path = tmp_path_factory.mktemp("strict") / "qwen2.gguf"
    counterpart(reference(CASES["qwen2"])).save_gguf(path)
    return path


def refused(path, *words, load=AutoModelForCausalLM.from_pretrained):
    """The file is refused in one line that holds all the words."""
    with pytest.raises(GGUFError) as caught:
        load(path)
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)


TENSORS = {
    "unknown": (
        {"blk.0.attn_q_norm.weight": torch.ones(16)},
        ["unused tensors", "blk.0.attn_q_norm.weight"],
    ),
    "layer too many": ({"blk.3.attn_norm.weight": torch.ones(64)}, ["blk.3.attn_norm.weight"]),
    "bias too many": ({"blk.1.ffn_up.bias": torch.ones(96)}, ["unused tensors", "blk.1.ffn_up.bias"]),
    "missing": ({"blk.1.ffn_up.weight": None}, ["missing tensors", "blk.1.ffn_up.weight"]),
    "no embedding": ({"token_embd.weight": None}, ["token_embd.weight"]),
    "scalar embedding": ({"token_embd.weight": torch.ones(())}, ["vocab_size"]),
    "wrong shape": ({"output_norm.weight": torch.ones(65)}, ["output_norm.weight", "(65,)", "(64,)"]),
    "transposed": (
        {"blk.0.ffn_down.weight": torch.ones(96, 64)},
        ["blk.0.ffn_down.weight", "(96, 64)", "(64, 96)"],
    ),
    "biases in one layer": (
        {"blk.0.attn_q.bias": torch.ones(64)},
        ["unused tensors", "blk.0.attn_q.bias"],
    ),
    "integers": (
        {"output_norm.weight": torch.ones(64, dtype=torch.int32)},
        ["wrong tensors: output_norm.weight has the unsupported dtype torch.int32"],
    ),
    "two at once": (
        {"blk.2.attn_v.weight": None, "extra": torch.ones(3)},
        ["unused tensors: extra", "missing tensors: blk.2.attn_v.weight"],
    ),
    "long factors without longrope": ({"rope_factors_long.weight": torch.ones(8)}, ["rope_factors_long"]),
    "short factors without longrope": ({"rope_factors_short.weight": torch.ones(8)}, ["rope_factors_short"]),
    "factors too many": ({"rope_freqs.weight": torch.full((9,), 2.0)}, ["rope_freqs.weight", "(9,)", "(8,)"]),
}


@pytest.mark.parametrize(("tensors", "words"), TENSORS.values(), ids=TENSORS.keys())
def test_tensors(llama, tmp_path, tensors, words):
    refused(edited(llama, tmp_path / "wrong.gguf", tensors=tensors), *words)


METADATA = {
    "not understood": ({"attention.wobble": 3}, ["attention.wobble", "unknown keys"]),
    "two not understood": ({"attention.wobble": 3, "logit_scale": 2.0}, ["attention.wobble", "logit_scale"]),
    "mixture of experts": (
        {"expert_count": 8, "expert_used_count": 2},
        ["Mixtral", "ffn_gate_exps"],
    ),
    "missing": ({"block_count": None}, ["block_count is missing"]),
    "missing float": ({"attention.layer_norm_rms_epsilon": None}, ["layer_norm_rms_epsilon is missing"]),
    "string": ({"block_count": "three"}, ["block_count", "'three'"]),
    "one a layer": ({"attention.head_count_kv": [2, 2, 1]}, ["attention.head_count_kv", "[2, 2, 1]"]),
    "boolean": ({"block_count": True}, ["block_count", "True"]),
    "zero": ({"attention.head_count": 0}, ["attention.head_count must be above 0"]),
    "not a number": ({"attention.layer_norm_rms_epsilon": float("nan")}, ["layer_norm_rms_epsilon"]),
    "heads that share unevenly": ({"attention.head_count_kv": 3}, ["4 attention heads", "3 key/value heads"]),
    "odd heads": (
        {"attention.key_length": 15, "attention.value_length": 15, "rope.dimension_count": 15},
        ["15"],
    ),
    "keys and values of other sizes": (
        {"attention.value_length": 8},
        ["8 by attention.value_length", "16"],
    ),
    "partial rotation": ({"rope.dimension_count": 8}, ["8 by rope.dimension_count"]),
    "layers beyond measure": ({"block_count": 4_000_000_000}, ["block_count = 4000000000"]),
    "width beyond measure": ({"embedding_length": 2**60}, ["embedding_length"]),
    "heads beyond measure": ({"attention.key_length": 2**40}, ["attention.key_length"]),
    "both directions": ({"attention.causal": False}, ["attention.causal = False"]),
    "unknown scaling": ({"rope.scaling.type": "spiral"}, ["'spiral'", "linear", "yarn"]),
    "scaling type no string": ({"rope.scaling.type": [1]}, ["rope.scaling.type", "[1]"]),
    "negative scaling": ({"rope.scaling.factor": -2.0}, ["rope.scaling.factor"]),
    "no base": ({"rope.freq_base": 0.0}, ["rope.freq_base"]),
    "base one": ({"rope.freq_base": 1.0, "rope.scaling.type": "yarn"}, ["describes an invalid model"]),
    "factor without meaning": ({"rope.scaling.attn_factor": 1.5}, ["rope.scaling.attn_factor = 1.5"]),
    "factor without scaling": (
        {"rope.scaling.type": "none", "rope.scaling.factor": 4.0},
        ["rope.scaling.factor = 4.0", "'none'"],
    ),
    "old factor without scaling": (
        {"rope.scaling.type": "none", "rope.scale_linear": 4.0},
        ["rope.scale_linear = 4.0", "'none'"],
    ),
    "yarn's keys without yarn": (
        {"rope.scaling.yarn_ext_factor": 0.5},
        ["yarn_ext_factor = 0.5", "'linear'"],
    ),
    "yarn's attention without yarn": ({"rope.scaling.yarn_attn_factor": 2.0}, ["yarn_attn_factor = 2.0"]),
    "two factors": (
        {"rope.scaling.factor": 4.0, "rope.scale_linear": 2.0},
        ["rope.scaling.factor", "rope.scale_linear", "2.0 and 4.0"],
    ),
    "endless yarn": (
        {"rope.scaling.type": "yarn", "rope.scaling.factor": float("inf")},
        ["rope.scaling.factor", "finite"],
    ),
    "longrope without factors": ({"rope.scaling.type": "longrope"}, ["rope_factors_long.weight"]),
    "hunyuan's scaling": ({"rope.scaling.alpha": 100.0}, ["rope.scaling.alpha"]),
    "larger vocabulary": ({"vocab_size": 399}, ["vocab_size", "399", "400"]),
}


@pytest.mark.parametrize(("values", "words"), METADATA.values(), ids=METADATA.keys())
def test_metadata(llama, tmp_path, values, words):
    values = {f"llama.{key}": value for key, value in values.items()}
    refused(edited(llama, tmp_path / "wrong.gguf", values), *words)


GENERAL = {
    "architecture": ({"general.architecture": "qwen22"}, ["'qwen22'", "nearest are qwen2", "docs/models.md"]),
    "no architecture": ({"general.architecture": None}, ["None", "docs/models.md"]),
    "architecture no string": ({"general.architecture": 7}, ["7", "docs/models.md"]),
    "adapter": ({"general.type": "adapter"}, ["'adapter'"]),
    "token id": ({"tokenizer.ggml.eos_token_id": "</s>"}, ["'</s>'"]),
}


@pytest.mark.parametrize(("values", "words"), GENERAL.values(), ids=GENERAL.keys())
def test_general_metadata(llama, tmp_path, values, words):
    path = edited(llama, tmp_path / "wrong.gguf", values)
    for load in (AutoModelForCausalLM.from_pretrained, AutoModel.from_pretrained, AutoConfig.from_pretrained):
        refused(path, *words, load=load)


WINDOWS = {
    "another length": (
        {"sliding_window": 8, "sliding_window_pattern": [True, False]},
        ["sliding_window_pattern", "3 booleans"],
    ),
    "negative": ({"sliding_window": -5}, ["sliding_window must be above 0", "-5"]),
    "none": (
        {"sliding_window_pattern": [False, True, False]},
        ["sliding_window_pattern", "sliding_window is missing or 0"],
    ),
}


@pytest.mark.parametrize(("values", "words"), WINDOWS.values(), ids=WINDOWS.keys())
def test_windows(qwen2, tmp_path, values, words):
    values = {f"qwen2.attention.{key}": value for key, value in values.items()}
    refused(edited(qwen2, tmp_path / "wrong.gguf", values), *words)


def test_window_of_all_layers(qwen2, tmp_path):
    config = AutoConfig.from_pretrained(
        edited(qwen2, tmp_path / "window.gguf", {"qwen2.attention.sliding_window": 8})
    )
    assert config.windows == [8, 8, 8]


def test_longrope_with_a_factor(llama, tmp_path):
    """llama.cpp would divide by both."""
    values = {"llama.rope.scaling.type": "longrope", "llama.rope.scaling.factor": 4.0}
    factors = {f"rope_factors_{name}.weight": torch.ones(8) for name in ("long", "short")}
    refused(
        edited(llama, tmp_path / "wrong.gguf", values, factors), "rope.scaling.factor = 4.0", "'longrope'"
    )


def test_factors_together_with_a_scaling(llama, tmp_path):
    values, factors = {"llama.rope.scaling.factor": 2.0}, {"rope_freqs.weight": torch.full((8,), 2.0)}
    refused(edited(llama, tmp_path / "wrong.gguf", values, factors), "rope_freqs.weight", "'linear'")


@pytest.mark.parametrize("key", ["attention.head_count", "attention.head_count_kv", "feed_forward_length"])
@pytest.mark.parametrize("kind", [ValueType.UINT32, ValueType.INT32])
def test_one_number_for_each_layer(llama, tmp_path, key, kind):
    """Equal ones are the one number, and stay as they are in the file; others are not this model."""
    key = f"llama.{key}"
    with open_gguf(llama) as file:
        number = file.metadata[key]
    path = listed(llama, tmp_path / "listed.gguf", key, [number] * 3, kind)
    model, ids = AutoModelForCausalLM.from_pretrained(path), torch.tensor([[5, 6, 7]])
    assert torch.equal(model(ids).logits, AutoModelForCausalLM.from_pretrained(llama)(ids).logits)
    model.save_gguf(tmp_path / "again.gguf")
    assert (tmp_path / "again.gguf").read_bytes() == path.read_bytes()
    for others in ([number, number, number // 2], [number] * 2, [number] * 4):
        path = listed(llama, tmp_path / "others.gguf", key, others, kind)
        refused(path, key.removeprefix("llama."), "must be one int")


def listed(path, new, key, values, kind):
    with open_gguf(path) as file:
        metadata = file.metadata.copy()
        metadata.set(key, values, ArrayType(kind))
        write_gguf(new, metadata, dict(file.sources()))
    return new


def test_class_of_another_architecture(llama, tmp_path):
    """The message names the classes that fit, as two may share what a file calls its architecture."""
    words = ["Qwen2ForCausalLM does not load", "'llama'", "use LlamaForCausalLM"]
    refused(llama, *words, load=Qwen2ForCausalLM.from_pretrained)
    windowed = edited(llama, tmp_path / "windowed.gguf", {"llama.attention.sliding_window": 8})
    words = ["LlamaForCausalLM does not load", "'llama'", "use MistralForCausalLM"]
    refused(windowed, *words, load=LlamaForCausalLM.from_pretrained)


def test_a_head_that_is_to_be_shared(llama, tmp_path):
    """What a file holds twice may be shared, if it is the same."""
    load = partial(AutoModelForCausalLM.from_pretrained, tie_word_embeddings=True)
    refused(llama, str(llama), "output.weight and token_embd.weight differ", load=load)
    with open_gguf(llama) as file:
        same = edited(llama, tmp_path / "same.gguf", tensors={"output.weight": file["token_embd.weight"]})
    model = load(same)
    assert model.lm_head.weight is model.get_input_embeddings().weight
    ids = torch.arange(3, 9)[None]
    assert torch.equal(model(ids).logits, AutoModelForCausalLM.from_pretrained(same)(ids).logits)


def test_harmless_keys_are_read_over(llama, tmp_path):
    values = {
        "llama.rope.scaling.finetuned": True,
        "llama.rope.scaling.original_context_length": 64,
        "llama.rope.scaling.factor": 0.0,
        "llama.rope.scaling.yarn_ext_factor": -1.0,
        "llama.rope.scaling.yarn_beta_fast": 32.0,
        "llama.expert_count": 0,
        "quantize.imatrix.file": "x",
        "my.key": 1,
    }
    assert (
        AutoModelForCausalLM.from_pretrained(edited(llama, tmp_path / "more.gguf", values)).config.vocab_size
        == 400
    )


def test_all_ends_of_a_turn_end_a_text(llama, tmp_path):
    ids = {"eos_token_id": 5, "eot_token_id": 6, "padding_token_id": 7, "bos_token_id": 4}
    values = {f"tokenizer.ggml.{key}": value for key, value in ids.items()}
    config = AutoConfig.from_pretrained(edited(llama, tmp_path / "ids.gguf", values))
    assert (config.bos_token_id, config.eos_token_id, config.pad_token_id) == (4, [5, 6], 7)


def test_no_special_tokens_are_made_up(llama, tmp_path):
    config = AutoConfig.from_pretrained(llama)
    assert (config.bos_token_id, config.eos_token_id, config.pad_token_id) == (None, None, None)
    stated = edited(llama, tmp_path / "eot.gguf", {"tokenizer.ggml.eot_token_id": 6})
    assert AutoConfig.from_pretrained(stated).eos_token_id == 6


def test_what_plainly_ends_a_turn_ends_what_is_generated(llama, tmp_path):
    """Ids that no key states are found by their texts, as llama.cpp does; the config has the stated ones."""
    ids = torch.arange(3, 9)[None]
    first = int(LlamaForCausalLM.from_pretrained(llama).generate(ids, max_new_tokens=1)[0, -1])
    tokens = [f"token{i}" for i in range(400)]
    tokens[first], tokens[(first + 1) % 400] = "<|im_end|>", "<|endoftext|>"
    vocabulary = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.eos_token_id": (first + 1) % 400,
    }
    model = LlamaForCausalLM.from_pretrained(edited(llama, tmp_path / "chat.gguf", vocabulary))
    assert model.generate(ids, max_new_tokens=8).tolist() == [[*ids[0].tolist(), first]]
    assert model.config.eos_token_id == (first + 1) % 400


def test_places_without_a_file(tmp_path, llama):
    with pytest.raises(FileNotFoundError, match=r"is a folder: name a \.gguf file in it .*llama\.gguf"):
        AutoModelForCausalLM.from_pretrained(llama.parent)
    with pytest.raises(FileNotFoundError, match="nothing"):
        AutoModelForCausalLM.from_pretrained(tmp_path / "nothing.gguf")
    with pytest.raises(FileNotFoundError, match="other"):
        AutoModelForCausalLM.from_pretrained(llama.parent, gguf_file="other.gguf")


def test_repositories(tmp_path, llama):
    """Which state of which repository is asked for reaches the one that fetches: here, one fetched before."""
    repository, commit = tmp_path / "models--me--model", "0123456789abcdef0123456789abcdef01234567"
    for folder in ("refs", f"snapshots/{commit}"):
        (repository / folder).mkdir(parents=True)
    (repository / "refs" / "v2").write_text(commit)
    (repository / "snapshots" / commit / "llama.gguf").symlink_to(llama)
    options = {"revision": "v2", "cache_dir": tmp_path, "local_files_only": True}
    for kind in (AutoConfig, AutoModel, AutoModelForCausalLM, LlamaForCausalLM):
        assert kind.from_pretrained("me/model", "llama.gguf", **options)
        with pytest.raises(FileNotFoundError):
            kind.from_pretrained("me/model", "llama.gguf", **options | {"revision": "v1"})


def test_arguments(llama):
    with pytest.raises(ValueError, match="flash"):
        AutoModelForCausalLM.from_pretrained(llama, attn_implementation="flash")
    with pytest.raises(ValueError, match="float99"):
        AutoModelForCausalLM.from_pretrained(llama, dtype="float99")
    for dtype in (torch.int32, torch.float8_e4m3fn):
        with pytest.raises(ValueError, match=f"{dtype} .*bfloat16"):
            AutoModelForCausalLM.from_pretrained(llama, dtype=dtype)
    with pytest.raises(ValueError, match="rope_type 'dynamic'"):
        AutoModelForCausalLM.from_config(
            AutoConfig.for_model(
                "llama", rope_scaling={"rope_type": "dynamic", "factor": 2.0}, num_hidden_layers=1
            )
        )
    with pytest.raises(ValueError, match="gpt9"):
        AutoConfig.for_model("gpt9")


def test_inputs(llama):
    model, ids = LlamaForCausalLM.from_pretrained(llama), torch.ones(2, 5, dtype=torch.long)
    with pytest.raises(ValueError, match="exactly one"):
        model()
    with pytest.raises(ValueError, match=r"attention_mask has shape \(2, 4\), expected \(2, 5\)"):
        model(ids, attention_mask=torch.ones(2, 4))
    with pytest.raises(ValueError, match="eager"):
        model(ids, output_attentions=True)


STRANGE = [-1, 0, 1, 2**63, "x", "", [1], [[1]], float("nan"), float("inf"), -1e38, True]


def check_strange_values(base, path, keys):
    """Whatever stands under a key, the file is refused by the one error there is, or makes a sound model."""
    ids = torch.arange(3, 9)[None]
    for key in keys:
        for value in STRANGE:
            try:
                model = AutoModelForCausalLM.from_pretrained(edited(base, path, {key: value}))
            except GGUFError:
                continue
            if value != 2**63:  # whose square overflows
                assert model(ids).logits.isfinite().all(), f"{key} = {value}"


@torch.no_grad()
def test_strange_values(llama, tmp_path):
    keys = [f"llama.{key}" for rule in LlamaForCausalLM.architecture.rules for key in rule.keys]
    ids = [f"tokenizer.ggml.{name}_token_id" for name in ("bos", "eot")]
    more = ["general.architecture", "general.type", "tokenizer.ggml.model", *ids]
    check_strange_values(llama, tmp_path / "strange.gguf", [*keys, *more])


@pytest.mark.parametrize("scaling", ["yarn", "longrope", "none"])
@torch.no_grad()
def test_strange_scalings(llama, tmp_path, scaling):
    factors = {f"rope_factors_{name}.weight": torch.ones(8) for name in ("long", "short")}
    values, tensors = {"llama.rope.scaling.type": scaling}, factors if scaling == "longrope" else {}
    base = edited(llama, tmp_path / "base.gguf", values, tensors)
    keys = [f"llama.{key}" for key in Rope.keys]
    check_strange_values(base, tmp_path / "strange.gguf", ["llama.context_length", *keys])


@torch.no_grad()
def test_strange_windows(qwen2, tmp_path):
    keys = [f"qwen2.{key}" for rule in QWEN2.rules[len(DECODER_RULES) :] for key in rule.keys]
    check_strange_values(qwen2, tmp_path / "strange.gguf", keys)
    base = edited(qwen2, tmp_path / "base.gguf", {"qwen2.attention.sliding_window": 4})
    check_strange_values(base, tmp_path / "strange.gguf", keys)

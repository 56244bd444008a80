"""What scripts, PEFT, TRL and lm-eval ask of models and configs, beside what transformers answers."""

import pytest
import torch
import transformers
from torch.testing import assert_close

import torchgguf
from tests.models.tiny import CASES, counterpart, reference
from tests.peers.transformers import cache_of, given_cache

KINDS = ["llama-tied", "qwen2moe", "gpt2", "bloom-untied"]


@pytest.fixture(scope="module", params=KINDS)
def pair(request):
    theirs = reference(CASES[request.param])
    return counterpart(theirs), theirs


def ids(batch: int = 2, length: int = 9) -> torch.Tensor:
    return torch.randint(3, 90, (batch, length), generator=torch.Generator().manual_seed(0))


SAME = (
    "main_input_name",
    "input_modalities",
    "supports_gradient_checkpointing",
    "model_tags",
    "vocab_size",
    "name_or_path",
    "all_tied_weights_keys",
    "is_gradient_checkpointing",
    "is_activation_checkpointing",
    "framework",
    "base_model_prefix",
)


def test_values_of_a_model(pair):
    ours, theirs = pair
    missing = object()
    for name in SAME:
        if (expected := getattr(theirs, name, missing)) is not missing:
            assert getattr(ours, name) == expected, name
    assert ours.config_class is type(ours.config)
    assert [*ours.output_modalities] == [*theirs.output_modalities]
    assert torch.equal(ours.dummy_inputs["input_ids"], theirs.dummy_inputs["input_ids"])
    assert type(ours.get_decoder()).__name__ == type(theirs.get_decoder()).__name__
    assert ours.can_generate() and not type(ours.get_decoder()).can_generate()
    ours.warnings_issued["estimate_tokens"] = True  # TRL does
    assert not counterpart(theirs).warnings_issued


CONFIG_VALUES = (
    "chunk_size_feed_forward",
    "is_encoder_decoder",
    "output_attentions",
    "output_hidden_states",
    "return_dict",
    "use_return_dict",
    "sub_configs",
    "name_or_path",
    "torch_dtype",
)


def test_values_of_a_config(pair):
    ours, theirs = pair[0].config, pair[1].config
    for name in CONFIG_VALUES:
        if name == "torch_dtype":
            assert ours.torch_dtype is ours.dtype
        else:
            assert getattr(ours, name) == getattr(theirs, name), name
    assert ours.get_text_config() is ours and ours.get_text_config(decoder=True) is ours


def test_config_files(pair, tmp_path):
    ours = pair[0].config
    ours.to_json_file(tmp_path / "diff.json")
    ours.to_json_file(tmp_path / "all.json", use_diff=False)
    for name in ("diff.json", "all.json"):
        assert type(ours).from_json_file(tmp_path / name) == ours
        theirs = type(pair[1].config).from_json_file(tmp_path / name)
        assert theirs.hidden_size == ours.hidden_size
    assert ours.to_diff_dict().items() <= ours.to_dict().items()
    assert "initializer_range" in ours.to_diff_dict()


def test_update_of_a_config():
    config = torchgguf.LlamaConfig(attn_implementation="eager")
    config.update({"num_labels": 5, "hidden_dropout_prob": 0.3, "dtype": "bfloat16"})
    assert (config.num_labels, config.hidden_dropout_prob, config.dtype) == (5, 0.3, torch.bfloat16)
    assert config.attn_implementation == "eager"
    before = config.to_dict()
    with pytest.raises(ValueError, match="num_attention_heads"):
        config.update({"vocab_size": 7, "num_attention_heads": 0})
    assert config.to_dict() == before


def test_a_field_with_one_value():
    config = torchgguf.LlamaConfig()
    config.output_attentions = False
    with pytest.raises(ValueError, match="output_attentions=True"):
        config.output_attentions = True
    assert "output_attentions" not in config.to_json_string(use_diff=False)


def test_name_or_path(pair, tmp_path):
    pair[1].save_pretrained(tmp_path)
    ours = torchgguf.AutoModelForCausalLM.from_pretrained(tmp_path)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    assert ours.name_or_path == ours.config.name_or_path == theirs.name_or_path == str(tmp_path)
    assert "name_or_path" not in ours.config.to_json_string()


def test_tags():
    model = counterpart(reference(CASES["llama"]))
    model.add_model_tags("a")
    model.add_model_tags(["b", "a"])
    assert model.model_tags == ["a", "b"]


def test_inputs_with_gradients():
    """PEFT and Trainer ask for them with frozen weights and gradient checkpointing."""
    model = counterpart(reference(CASES["llama"])).requires_grad_(False)
    model.enable_input_require_grads()
    model.enable_input_require_grads()
    assert model(ids()).logits.requires_grad
    model.disable_input_require_grads()
    assert not model(ids()).logits.requires_grad


def test_set_attn_implementation(pair):
    ours, theirs = pair
    ours.set_attn_implementation("eager")
    with torch.no_grad():
        attentions = ours(ids(), output_attentions=True).attentions
        expected = theirs(ids(), output_attentions=True).attentions
    assert_close(attentions, expected, atol=1e-5, rtol=0)
    ours.set_attn_implementation("sdpa")
    with pytest.raises(ValueError, match="nonsense"):
        ours.set_attn_implementation("nonsense")


def test_loss_function(pair):
    ours, theirs = pair
    logits, labels = torch.randn(2, 9, 400), ids()
    labels[0, :4] = -100
    for options in ({}, {"num_items_in_batch": 30}):
        expected = theirs.loss_function(logits=logits, labels=labels, vocab_size=400, **options)
        assert_close(ours.loss_function(logits=logits, labels=labels, vocab_size=400, **options), expected)


@torch.no_grad()
def test_a_loop_of_ones_own(pair):
    """As examples write it: the model prepares its own inputs."""
    ours, theirs = pair
    texts = []
    for model, cache_from in ((ours, lambda output: output.cache), (theirs, cache_of)):
        tokens, cache, mask = ids(), None, torch.ones(2, 9, dtype=torch.long)
        mask[0, :3] = 0
        for step in range(4):
            new = None if step == 0 else 1
            named = {} if cache is None else {"cache": cache} if model is ours else given_cache(cache)
            inputs = model.prepare_inputs_for_generation(
                tokens, new, attention_mask=mask, is_first_iteration=step == 0, **named
            )
            if model is theirs and model.config.model_type != "bloom":
                inputs["position_ids"] = (mask.cumsum(-1) - 1).clamp(min=0)[
                    :, -inputs["input_ids"].shape[1] :
                ]
            output = model(**inputs, use_cache=True)
            cache = cache_from(output)
            tokens = torch.cat((tokens, output.logits[:, -1:].argmax(-1)), dim=1)
            mask = torch.cat((mask, torch.ones(2, 1, dtype=torch.long)), dim=1)
        texts.append(tokens.tolist())
    assert texts[0] == texts[1]


@torch.no_grad()
def test_token_type_ids_of_models_without_kinds():
    """Tokenizers of transformers return them by default, all 0."""
    theirs = reference(CASES["llama"])
    model, zeros = counterpart(theirs), torch.zeros_like(ids())
    assert torch.equal(model(ids(), token_type_ids=zeros).logits, model(ids()).logits)
    assert torch.equal(theirs(ids(), token_type_ids=zeros + 1).logits, theirs(ids()).logits)
    with pytest.warns(UserWarning, match="token_type_ids are ignored: LlamaModel"):
        assert torch.equal(model(ids(), token_type_ids=zeros + 1).logits, model(ids()).logits)
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    assert torch.equal(compiled(ids(), token_type_ids=zeros).logits, model(ids()).logits)


def test_set_decoder():
    model, other = (counterpart(reference(CASES[name])) for name in ("llama", "llama-mha"))
    model.set_decoder(other.get_decoder())
    assert model.model is other.model
    with pytest.raises(ValueError, match="has no head"):
        model.model.set_decoder(other.model)

"""Speculation by blocks for multi-token prediction: the same texts with fewer steps."""

from typing import Any

import pytest
import torch
from torch.testing import assert_close
from transformers.models.qwen3_5.modeling_qwen3_5 import Qwen3_5DecoderLayer, Qwen3_5RMSNorm
from typer.testing import CliRunner

from tests.models.tiny import CASES, counterpart, reference
from tests.peers.vocabularies import add_tokenizer
from torchgguf.cli import app
from torchgguf.container import LazyTensor
from torchgguf.generation.preparation import prepare
from torchgguf.models import AutoModelForCausalLM
from torchgguf.models.blocks.gated_delta.drafting import PredictionBlock
from torchgguf.nn import DynamicCache
from torchgguf.nn.slots import slots
from torchgguf.tokenization import AutoTokenizer

NAMES = ("qwen35", "qwen35moe", "qwen3next")
PROMPT = torch.randint(3, 400, (1, 17), generator=torch.Generator().manual_seed(0))
NEW = 40


def with_block(name: str) -> Any:
    """A model that keeps a block with random weights."""
    model = counterpart(reference(CASES[name]))
    model.config.mtp_num_hidden_layers = 1
    block = PredictionBlock(model)
    generator = torch.Generator().manual_seed(1)
    keep(model, block, lambda shape: torch.randn(shape, generator=generator) * 0.1)
    return model


def keep(model: Any, block: Any, value: Any = None) -> None:
    """Let a model keep the tensors of a block, or others of their shapes."""
    kept, number = {}, model.config.num_hidden_layers
    for path, layer in block.named_modules():
        for slot in slots(layer):
            name = f"layers.{number}.{path.removeprefix('layer.')}.{slot.name}"
            tensor = slot.read().clone() if value is None else value(slot.shape)
            kept[model.architecture.weights.to_gguf(name, model.config)[0]] = LazyTensor(
                tuple(tensor.shape), tensor.dtype, lambda tensor=tensor: tensor
            )
    model.kept = kept


def teach(model: Any, text: torch.Tensor) -> None:
    """Let the block learn what the model says, so that most of its guesses are right."""
    block = model.make_drafter().train()
    with torch.no_grad():
        states = model.base_model(text, use_cache=False).last_hidden_state
    optimizer = torch.optim.Adam(block.parameters(), 0.01)
    for _ in range(60):
        block.cache.reset()
        scores = block(states[:, :-2], text[:, 1:-1], 0)
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(scores[0], text[0, 2:]).backward()
        optimizer.step()
    keep(model, block)


def run(model: Any, **options: Any) -> tuple[torch.Tensor, Any]:
    """Continue the prompt; return the text, and the context that tells how often the model ran."""
    decoding = prepare(model, PROMPT, max_new_tokens=NEW, assistant="mtp", **options).run
    new = torch.stack([*decoding.steps()], dim=1)
    return torch.cat((PROMPT, new), dim=1), decoding.plan.context


@pytest.fixture(scope="module", params=NAMES)
def model(request) -> Any:
    return with_block(request.param)


def greedy(model: Any) -> torch.Tensor:
    return model.generate(PROMPT, max_new_tokens=NEW, do_sample=False, eos_token_id=None)


def test_wrong_guesses_change_nothing(model):
    """Random weights guess wrong nearly always, and states that forget go back each time."""
    text, context = run(model, do_sample=False, eos_token_id=None)
    assert torch.equal(text, greedy(model))
    assert context.forwards <= NEW


def test_right_guesses_save_steps(model):
    expected = greedy(model)
    teach(model, expected)
    text, context = run(model, do_sample=False, eos_token_id=None)
    assert torch.equal(text, expected)
    assert context.forwards <= NEW * 3 // 4
    # Another end, other scores: as without.
    options = {"max_new_tokens": 11, "do_sample": False, "repetition_penalty": 1.3, "eos_token_id": None}
    assert torch.equal(model.generate(PROMPT, assistant="mtp", **options), model.generate(PROMPT, **options))
    torch.manual_seed(0)
    drawn = model.generate(PROMPT, assistant="mtp", do_sample=True, max_new_tokens=9, temperature=0.5)
    torch.manual_seed(0)
    assert torch.equal(drawn, model.generate(PROMPT, do_sample=True, max_new_tokens=9, temperature=0.5))


def test_a_text_goes_on_from_the_cache_that_is_left(model):
    """The cache contains nothing that was guessed, wherever the stream was left."""
    expected = greedy(model)
    stream = prepare(
        model, PROMPT, max_new_tokens=NEW, assistant="mtp", do_sample=False, eos_token_id=None
    ).run
    steps = stream.steps()
    so_far = torch.cat((PROMPT, torch.stack([next(steps) for _ in range(13)], dim=1)), dim=1)
    steps.close()
    cache = stream.plan.context.cache
    assert cache.get_seq_length() < so_far.shape[1]
    more = NEW - 13
    text = model.generate(so_far, cache=cache, max_new_tokens=more, do_sample=False, eos_token_id=None)
    assert torch.equal(text, expected)


@torch.no_grad()
def test_the_block_is_that_of_the_published_model():
    """Two norms, a projection, a layer and a norm, made of transformers' parts."""
    model = with_block("qwen35")
    block, theirs = model.make_drafter(), reference(CASES["qwen35"])
    states = torch.randn(1, 9, 64, generator=torch.Generator().manual_seed(2))
    norms = {name: Qwen3_5RMSNorm(64) for name in ("enorm", "hnorm", "shared_head.norm")}
    for name, norm in norms.items():
        norm.load_state_dict(block.get_submodule(name).state_dict())
    layer = Qwen3_5DecoderLayer(theirs.config, 4)  # one with attention
    layer.load_state_dict(block.layer.state_dict())
    joined = torch.cat((norms["enorm"](theirs.model.embed_tokens(PROMPT[:, :9])), norms["hnorm"](states)), -1)
    x = torch.nn.functional.linear(joined, block.eh_proj.weight)
    angles = theirs.model.rotary_emb(x, torch.arange(9)[None, None].expand(3, 1, 9))
    mask = torch.full((9, 9), -torch.inf).triu(1)[None, None]
    x = layer(x, position_embeddings=angles, attention_mask=mask)
    expected = theirs.lm_head(norms["shared_head.norm"](x))
    assert_close(block(states, PROMPT[:, :9], 0), expected, atol=1e-4, rtol=0)


@torch.no_grad()
def test_a_block_without_a_norm_of_its_own():
    """llama.cpp falls back to the model's, too."""
    model = with_block("qwen35")
    states = torch.randn(1, 9, 64, generator=torch.Generator().manual_seed(2))
    own = model.make_drafter()
    own.shared_head.norm.load_state_dict(model.model.norm.state_dict())
    model.kept = {name: tensor for name, tensor in model.kept.items() if "shared_head_norm" not in name}
    assert_close(model.make_drafter()(states, PROMPT[:, :9], 0), own(states, PROMPT[:, :9], 0))


def test_the_command_line(tmp_path):
    """The same answer, and a message where there is no such block."""
    path, plain = tmp_path / "with.gguf", tmp_path / "without.gguf"
    theirs = reference(CASES["qwen35"])
    theirs.save_pretrained(tmp_path / "folder")
    add_tokenizer(tmp_path / "folder", theirs.config.model_type)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "folder", pre="qwen35")
    with_block("qwen35").save_gguf(path, tokenizer=tokenizer)
    counterpart(theirs).save_gguf(plain, tokenizer=tokenizer)
    command = ["run", str(path), "The licenses", "--max-new-tokens", "12", "--temperature", "0", "--raw"]
    answers = [CliRunner().invoke(app, [*command, *more]) for more in ([], ["--speculative", "mtp"])]
    assert answers[0].exit_code == answers[1].exit_code == 0
    assert answers[0].output == answers[1].output
    refused = CliRunner().invoke(app, ["run", str(plain), *command[2:], "--speculative", "mtp"])
    assert refused.exit_code == 2
    assert "--speculative" in refused.output and "block for multi-token prediction" in refused.output


@torch.no_grad()
def test_prompts_in_pieces():
    """The last one may be as short as what is read anew after wrong guesses."""
    model = with_block("qwen35")
    for size in range(1, PROMPT.shape[1]):
        for way in ({"prefill_chunk_size": size}, {"cache": DynamicCache(checkpoint_every=size)}):
            text, _ = run(model, do_sample=False, eos_token_id=None, **way)
            assert torch.equal(text, greedy(model)), way


@torch.no_grad()
def test_checkpoints_of_the_caller_stay():
    model, cache = with_block("qwen35"), DynamicCache(max_checkpoints=1)
    model(PROMPT[:, :5], cache=cache)
    cache.checkpoint()
    text, _ = run(model, cache=cache, do_sample=False, eos_token_id=None)
    assert torch.equal(text, greedy(model))
    assert cache.crop_point(9) == 5


REFUSED = {
    "two prompts": ({"input_ids": PROMPT.expand(2, -1)}, "continues one prompt of tokens, once"),
    "beams": ({"num_beams": 2}, "continues one prompt of tokens, once"),
    "a static cache": ({"cache_implementation": "static"}, "needs a cache that grows"),
    "states": (
        {"return_dict_in_generate": True, "output_hidden_states": True},
        "does not record states",
    ),
    "another one": ({"assistant": "small"}, "assistant must be 'mtp', got 'small'"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_refused(what):
    options, message = REFUSED[what]
    with pytest.raises(ValueError, match=message):
        with_block("qwen35").generate(
            **{"input_ids": PROMPT, "assistant": "mtp", "max_new_tokens": 2, **options}
        )


def test_models_without_blocks():
    options = {"assistant": "mtp", "max_new_tokens": 2}
    with pytest.raises(ValueError, match="LlamaForCausalLM has no blocks for multi-token prediction"):
        counterpart(reference(CASES["llama"])).generate(PROMPT, **options)
    model = with_block("qwen35")
    model.config.mtp_num_hidden_layers = 0
    with pytest.raises(ValueError, match="needs a model with one block for multi-token prediction, got 0"):
        model.generate(PROMPT, **options)


def test_packed_blocks_stay_packed(tmp_path):
    path = tmp_path / "packed.gguf"
    with_block("qwen35").save_gguf(path, quantization="Q8_0")
    said = greedy(AutoModelForCausalLM.from_pretrained(path))
    plain = AutoModelForCausalLM.from_pretrained(path, dequantize=True)
    teach(plain, said)
    plain.save_gguf(path, quantization="Q8_0")
    packed = AutoModelForCausalLM.from_pretrained(path)
    block = packed.make_drafter()
    assert type(block.eh_proj).__name__ == "QuantizedLinear"
    text, context = run(packed, do_sample=False, eos_token_id=None)
    assert text.shape == (1, PROMPT.shape[1] + NEW)
    assert context.forwards < NEW

"""Sessions read what two turns share once, whatever the states of the model."""

import pytest
import torch

from tests.support import VOCABS
from torchgguf import AutoTokenizer, Lfm2Config, Lfm2ForCausalLM, LlamaConfig, LlamaForCausalLM
from torchgguf.cli.session import Session

# It leaves out what opens an answer once the answer is complete, as templates do with reasoning.
TEMPLATE = (
    "{% for message in messages %}<{{ message.role }}>{{ message.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>think:{% endif %}"
)
SIZES = {
    "vocab_size": 50257,
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "initializer_range": 0.3,
}
MODELS = {
    "attention": lambda: LlamaForCausalLM(LlamaConfig(**SIZES, num_hidden_layers=2)),
    "convolutions": lambda: Lfm2ForCausalLM(
        Lfm2Config(**SIZES, num_hidden_layers=3, layer_types=["conv", "full_attention", "conv"])
    ),
}


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_a_second_turn_goes_on_from_the_first(make):
    torch.manual_seed(0)
    model, tokenizer = make().eval(), AutoTokenizer.from_pretrained(VOCABS / "ggml-vocab-gpt-2.gguf")
    tokenizer.chat_template = TEMPLATE
    first = [{"role": "user", "content": "What is a lighthouse? " * 200}]
    session, fresh = (Session(model, tokenizer, max_new_tokens=6, seed=0) for _ in range(2))
    answer = "".join(session.reply(first))
    second = [*first, {"role": "assistant", "content": answer}, {"role": "user", "content": "Why?"}]
    assert "".join(session.reply(second)) == "".join(fresh.reply(second))
    whole = fresh.stats.prompt_tokens
    history = len(tokenizer.apply_chat_template(first, return_dict=False))
    assert history > 600  # beyond a checkpoint
    assert session.stats.prompt_tokens <= whole - history + 1
    # Another conversation with the same beginning goes on from the checkpoint before the difference.
    other = [{"role": "user", "content": "What is a lighthouse? " * 150 + "Tell me."}]
    assert "".join(session.reply(other)) == "".join(
        Session(model, tokenizer, max_new_tokens=6, seed=0).reply(other)
    )
    assert session.stats.prompt_tokens < 512


@pytest.mark.parametrize("answers", [0, 1], ids=["first", "later"])
@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_an_interrupted_forward_pass_leaves_nothing_behind(make, answers):
    """Whether the states of later layers are older, or do not exist yet."""
    torch.manual_seed(0)
    model, tokenizer = make().eval(), AutoTokenizer.from_pretrained(VOCABS / "ggml-vocab-gpt-2.gguf")
    session, fresh = (Session(model, tokenizer, max_new_tokens=4, seed=0) for _ in range(2))
    for _ in range(answers):
        assert "".join(session.complete("A lighthouse")) == "".join(fresh.complete("A lighthouse"))

    def interrupt(*_):
        raise KeyboardInterrupt

    hook = model.base_model.layers[1].register_forward_pre_hook(interrupt)
    with pytest.raises(KeyboardInterrupt):
        list(session.complete("A lighthouse is a tower"))
    hook.remove()
    text = "A lighthouse is a tower of light"
    assert "".join(session.complete(text)) == "".join(fresh.complete(text))

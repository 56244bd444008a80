"""Recorded steps lead to the tokens of a model that runs in Python, which other tests compare."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import torchgguf.models as ours
from tests.models.tiny import CASES, config_of
from tests.models.without_peer import BIDIRECTIONAL, CASES as WITHOUT_PEER, sizes
from torchgguf.generation.preparation import prepare
from torchgguf.kernels.plan import has_native_executor
from torchgguf.nn import Cache, DynamicCache, StaticCache

pytestmark = pytest.mark.skipif(not has_native_executor(), reason="the native part runs programs")

# One case of each model type, and those that read other tensors in a step.
MORE = (
    "llama-longrope",
    "gemma3n-shared",
    "deepseek2-yarn",
    "gemma4-experts",
    "gpt-oss-mqa-yarn",
    "phi-long",
)
KINDS = {case.kind: name for name, case in reversed(CASES.items())}
NAMES = [*KINDS.values(), *(name for name in MORE if name in CASES)]
NEW = 20


def make(name: str):
    """Return a random model of a case."""
    torch.manual_seed(0)
    if name in WITHOUT_PEER:
        config = ours.AutoConfig.for_model(WITHOUT_PEER[name][0], **sizes(name))
    else:
        config = ours.AutoConfig.for_model(**config_of(CASES[name]).to_dict())
    return ours.AutoModelForCausalLM.from_config(config).eval()


def decode(model, ids, use_plan=True, refused=None, **options):
    """Return the tokens that follow, and check that steps were replayed, or why they were not."""
    options = {"max_new_tokens": NEW, "eos_token_id": None, "pad_token_id": 1} | options
    run = prepare(model, ids, use_plan=use_plan, **options).run
    tokens = torch.stack(list(run.steps()), dim=1)
    if use_plan:
        assert run.plan.context.recorded.reason == refused
    return tokens


@pytest.fixture(scope="module")
def llama():
    return make("llama")


@pytest.fixture
def ids():
    return torch.randint(3, 300, (1, 7), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    "name", [*NAMES, *(name for name in WITHOUT_PEER if name not in BIDIRECTIONAL)], ids=str
)
def test_tokens_are_those_of_the_model(name, ids):
    model = make(name)
    expected = decode(model, ids, use_plan=False)
    assert torch.equal(decode(model, ids), expected)
    assert torch.equal(decode(model, ids, cache=StaticCache(model.config, 40)), expected)
    batch, mask = ids.repeat(2, 1), torch.ones(2, 7, dtype=torch.long)
    batch[0, :3] = mask[0, :3] = 0
    expected = decode(model, batch, use_plan=False, attention_mask=mask)
    assert torch.equal(decode(model, batch, attention_mask=mask), expected)


def test_samples_are_those_of_the_model(llama, ids):
    def sample(use_plan):
        generator = torch.Generator().manual_seed(5)
        settings = {"do_sample": True, "top_k": 30, "num_return_sequences": 3, "generator": generator}
        return decode(llama, ids, use_plan, **settings)

    assert torch.equal(sample(True), sample(False))


@pytest.mark.parametrize("make_cache", [DynamicCache, lambda: StaticCache(None, 700)], ids=["grows", "fixed"])
@pytest.mark.parametrize("name", ["llama", "lfm2", "qwen35"])
def test_a_text_goes_on_from_its_cache(name, make_cache, ids):
    """In turns, some replayed and some not; the cache contains what it would contain."""
    model, cache, other = make(name), make_cache(), DynamicCache()
    text = ids
    for new, use_plan in ((20, True), (2, False), (3, True), (18, True)):
        tokens = decode(model, text, use_plan, cache=cache, max_new_tokens=new)
        expected = decode(model, text, False, cache=other, max_new_tokens=new)
        assert torch.equal(tokens, expected)
        assert cache.get_seq_length() == other.get_seq_length() == text.shape[1] + new - 1
        text = torch.cat((text, tokens, ids[:, :3]), dim=1)
    assert_alike(cache, other)
    cache.crop(0)
    assert torch.equal(decode(model, text, cache=cache), decode(model, text, False))


def assert_alike(one: Cache, two: Cache) -> None:
    for (_, left), (_, right) in zip(one.states(), two.states(), strict=True):
        for name, tensor in right.tensors().items():
            torch.testing.assert_close(left.tensors()[name], tensor, rtol=1e-4, atol=1e-5)


@pytest.mark.filterwarnings("ignore:the prompt has 240 tokens")
def test_room_grows(llama, ids):
    """Beyond the first 256 positions there are other places, and another program."""
    cache = DynamicCache()
    text = torch.randint(3, 300, (1, 200), generator=torch.Generator().manual_seed(2))
    text = torch.cat((text, decode(llama, text, cache=cache), ids.repeat(1, 3)[:, :20]), dim=1)
    expected = decode(llama, text, False)
    assert torch.equal(decode(llama, text, cache=cache), expected)
    assert cache.get_seq_length() == 240 + NEW - 1 > 256


def test_a_step_that_is_interrupted_changes_nothing(ids):
    model, cache = make("lfm2"), DynamicCache()
    expected = decode(model, ids, False)

    class StopError(Exception):
        pass

    def stop(module, *arguments):
        raise StopError

    steps = prepare(
        model, ids, use_plan=True, cache=cache, max_new_tokens=NEW, eos_token_id=None, pad_token_id=1
    ).run.steps()
    tokens = [next(steps)]
    handle = model.model.layers[-1].register_forward_pre_hook(stop)
    with pytest.raises(StopError):
        next(steps)
    handle.remove()
    assert cache.get_seq_length() == 7
    text = torch.cat((ids, tokens[0][:, None]), dim=1)
    rest = decode(model, text, cache=cache, max_new_tokens=NEW - 1)
    assert torch.equal(torch.cat((tokens[0][:, None], rest), dim=1), expected)


def test_parameters_that_change_in_place_are_read(ids):
    model = make("llama")
    decode(model, ids)
    with torch.no_grad():
        model.model.layers[0].self_attn.q_proj.weight.mul_(-1)
        model.model.norm.weight.mul_(torch.linspace(-1, 2, 64))
    assert torch.equal(decode(model, ids), decode(model, ids, False))


def test_parts_that_change_are_noticed(ids):
    model = make("gemma2")
    decode(model, ids)
    for change in (
        lambda: setattr(model.model.layers[1], "mlp", make("gemma2").model.layers[0].mlp),
        lambda: setattr(model.model.layers[0].self_attn, "softcap", 0.1),
        lambda: setattr(model.config, "final_logit_softcapping", 0.2),
        lambda: setattr(model.model.norm, "weight", torch.nn.Parameter(torch.linspace(-1, 2, 64))),
    ):
        change()
        assert torch.equal(decode(model, ids), decode(model, ids, False))


def test_what_stands_against_it_is_named(ids):
    model = make("llama")

    def reason(**settings):
        run = prepare(
            model, ids, use_plan=True, **{"max_new_tokens": NEW, "eos_token_id": None} | settings
        ).run
        list(run.steps())
        return run.plan.context.recorded.reason

    assert reason(max_new_tokens=5) == "there are fewer than 16"
    handle = model.model.layers[0].mlp.register_forward_hook(lambda *_: None)
    assert reason() == "MLP has hooks"
    handle.remove()
    with FlopCounterMode(display=False):
        assert reason() == "a torch mode is active"
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert reason() == "autocast is enabled"
    model.train()
    assert reason() == "the model is in training mode"
    model.eval().bfloat16()
    assert reason() == "activations are not float32"
    model.float()
    assert reason() is None


def test_an_operator_without_an_instruction_is_named(ids, caplog):
    model = make("llama")

    class Strange(torch.nn.Module):
        def forward(self, x, *_):
            return torch.special.i0(x) * x

    model.model.layers[0].mlp = Strange().eval()
    expected = decode(model, ids, False)
    with caplog.at_level("INFO", logger="torchgguf"):
        tokens = decode(model, ids, refused="the operator aten.i0.default has no instruction")
    assert torch.equal(tokens, expected)
    assert "aten.i0.default has no instruction" in caplog.text


def test_values_that_decide_what_is_done_are_noticed(ids):
    model = make("llama")

    class Moody(torch.nn.Module):
        def forward(self, x, *_):
            return x * float(x.sum())

    model.model.layers[0].mlp = Moody().eval()
    refused = "the operator aten._local_scalar_dense.default has no instruction"
    assert torch.equal(decode(model, ids, refused=refused), decode(model, ids, False))


@pytest.mark.parametrize("name", ["qwen3", "granitemoe", "gpt-oss", "lfm2"])
@pytest.mark.parametrize("quantization", ["Q4_0", "Q8_0"])
def test_packed_models_are_replayed(name, quantization, ids, tmp_path):
    make(name).save_gguf(tmp_path / "model.gguf", quantization=quantization)
    model = ours.AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="model.gguf")
    assert any(parameter.dtype is torch.uint8 for parameter in model.parameters())
    assert torch.equal(decode(model, ids), decode(model, ids, False))

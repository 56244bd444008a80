"""Activations in half precision: near to FP32's results, and nothing of the file is rounded."""

import pytest
import torch

from tests.models.files import edited, packed
from tests.models.tiny import CASES, counterpart, reference
from torchgguf.container import open_gguf
from torchgguf.models import AutoModelForCausalLM


@pytest.fixture(scope="module", params=["F32", "F16", "BF16", "Q8_0"])
def case(request, tmp_path_factory):
    """A model with biases, and a file of it whose matrices have one type."""
    folder = tmp_path_factory.mktemp("dtypes")
    counterpart(reference(CASES["qwen2"])).save_gguf(folder / "plain.gguf")
    with open_gguf(folder / "plain.gguf") as file:
        matrices = {name: file[name] for name, info in file.tensors.items() if len(info.shape) == 2}
    tensors = {name: packed(matrix, request.param) for name, matrix in matrices.items()}
    return edited(folder / "plain.gguf", folder / "packed.gguf", tensors=tensors)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("later", [False, True], ids=["loaded", "moved"])
@torch.no_grad()
def test_halves(case, dtype, later, tmp_path):
    ids = torch.randint(0, 400, (2, 24), generator=torch.Generator().manual_seed(0))
    exact = AutoModelForCausalLM.from_pretrained(case, dequantize=True)(ids).logits
    model = AutoModelForCausalLM.from_pretrained(case, dtype=torch.float32 if later else dtype)
    model = model.to(dtype) if later else model
    logits = model(ids).logits
    assert logits.dtype is model.dtype is dtype
    steps, cache = [], None
    for token in ids.split(1, dim=1):
        output = model(token, cache=cache)
        cache = output.cache
        steps.append(output.logits)
    for actual in (logits, torch.cat(steps, dim=1)):
        # A bfloat16 has 8 significant bits: a hundredth of the logits' spread after three layers.
        assert (actual.float() - exact).std() < 0.02 * exact.std()
    if not later:
        model.save_gguf(tmp_path / "again.gguf")
        assert (tmp_path / "again.gguf").read_bytes() == case.read_bytes()


@torch.no_grad()
def test_unpacked_halves_are_as_in_transformers(case):
    model = AutoModelForCausalLM.from_pretrained(case, dequantize=True, dtype=torch.bfloat16)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    theirs = reference(CASES["qwen2"]).to(torch.bfloat16)
    theirs.load_state_dict(model.state_dict())
    theirs.model.rotary_emb.inv_freq = reference(CASES["qwen2"]).model.rotary_emb.inv_freq
    ids = torch.randint(0, 400, (2, 24), generator=torch.Generator().manual_seed(0))
    expected = theirs(ids).logits
    assert (model(ids).logits.float() - expected.float()).std() < 0.02 * expected.float().std()

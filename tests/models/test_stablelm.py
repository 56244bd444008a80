"""StableLM whose heads have norms of their own, which llama.cpp's converter loses: 12B."""

import torch
from torch.testing import assert_close

from tests.models.tiny import SHORT_IDS, Case, counterpart, reference
from torchgguf.models import AutoModelForCausalLM


@torch.no_grad()
def test_norms_of_heads(tmp_path):
    """State dicts and checkpoints contain a norm for each head, GGUF files one tensor for all."""
    theirs = reference(Case("StableLm", {**SHORT_IDS, "qk_layernorm": True}))
    ours = counterpart(theirs)
    ids = torch.randint(0, 400, (2, 24), generator=torch.Generator().manual_seed(0))
    expected = theirs(ids).logits
    assert_close(ours(ids).logits, expected, atol=1e-4, rtol=0)
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    ours.save_pretrained(tmp_path / "folder")
    again = type(theirs).from_pretrained(tmp_path / "folder", attn_implementation="eager")
    assert torch.equal(again.eval()(ids).logits, expected)
    ours.save_gguf(tmp_path / "model.gguf", tokenizer=None)
    for read in (tmp_path / "folder", tmp_path / "model.gguf"):
        assert_close(AutoModelForCausalLM.from_pretrained(read)(ids).logits, expected, atol=1e-4, rtol=0)

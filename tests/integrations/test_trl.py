"""TRL's SFTTrainer and transformers' Trainer, unchanged, on packed models."""

import datasets
import pytest
import tokenizers
import torch
import transformers
from peft import LoraConfig, PeftModel
from trl import SFTConfig, SFTTrainer

import torchgguf
from tests.models.tiny import CASES, counterpart, reference
from torchgguf.nn import PackedLayer

ROWS = [{"input_ids": [*range(start, start + 12)]} for start in range(5, 85, 5)]


@pytest.mark.parametrize("through_transformers", [False, True])
def test_supervised_fine_tuning(through_transformers, tmp_path, caplog):
    """Also of the same layers in transformers' own class."""
    path = tmp_path / "packed.gguf"
    counterpart(reference(CASES["qwen2"])).save_gguf(path, quantization="Q8_0")

    def load():
        options = {"generation_config": torchgguf.GenerationConfig()}
        model = torchgguf.AutoModelForCausalLM.from_pretrained(path, **options)
        return model.to_transformers() if through_transformers else model

    arguments = SFTConfig(
        tmp_path / "out",
        max_steps=12,
        per_device_train_batch_size=4,
        learning_rate=1e-2,
        gradient_checkpointing=True,
        use_cpu=True,
        bf16=False,
        report_to=[],
        disable_tqdm=True,
        logging_steps=1,
        save_strategy="steps",
        save_steps=6,
        dataset_kwargs={"skip_prepare_dataset": True},
    )
    trainer = SFTTrainer(
        load(),
        arguments,
        train_dataset=datasets.Dataset.from_list(ROWS),
        processing_class=tokenizer(),
        peft_config=LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM"),
    )
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert losses[-1] < losses[0] - 0.5
    assert not [record for record in caplog.records if "is packed: training changes" in record.getMessage()]
    trainer.save_model(tmp_path / "adapter")
    ids = torch.tensor([ROWS[0]["input_ids"]])
    with torch.no_grad():
        expected = trainer.model.eval()(input_ids=ids).logits
        again = PeftModel.from_pretrained(load(), tmp_path / "adapter").eval()
        assert torch.equal(again(input_ids=ids).logits, expected)
        merged = again.merge_and_unload()
        torchgguf.save_gguf(merged, tmp_path / "merged.gguf")
        model = torchgguf.AutoModelForCausalLM.from_pretrained(tmp_path / "merged.gguf")
        assert (model(ids).logits - expected).norm() < 0.1 * expected.norm()
    assert sum(isinstance(layer, PackedLayer) for layer in model.modules()) == 3 * 7 + 2


def tokenizer():
    """A tokenizer of transformers with the words 0 to 399."""
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel({str(i): i for i in range(400)}, unk_token="0"))
    return transformers.PreTrainedTokenizerFast(tokenizer_object=words, eos_token="1", pad_token="2")

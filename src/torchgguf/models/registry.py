"""Find the file of `architectures/` that loads a model: names only; each is imported on first use."""

from collections.abc import Collection
from difflib import get_close_matches
from functools import cache
from importlib import import_module

from torchgguf.container import GGUFError, GGUFFile
from torchgguf.container.errors import brief
from torchgguf.container.projectors import explain_projector
from torchgguf.models.core.architecture import Architecture
from torchgguf.models.core.config import Config

# general.architecture -> the model types that may load the file; the first that matches does. A model type of
# config.json is also the name of the file in `architectures/`.
ROWS: dict[str, tuple[str, ...]] = {
    "arcee": ("arcee",),
    "arctic": ("arctic",),
    "baichuan": ("baichuan",),
    "bailingmoe": ("bailing_moe",),
    "bailingmoe2": ("bailing_moe_v2",),
    "bert": ("bert",),
    "bloom": ("bloom",),
    "chatglm": ("glm",),
    "codeshell": ("codeshell",),
    "cogvlm": ("cogvlm",),
    "cohere2": ("cohere2",),
    "command-r": ("cohere",),
    "deci": ("deci",),
    "deepseek": ("deepseek",),
    "deepseek2": ("deepseek_v3", "deepseek_v2"),
    "dots1": ("dots1",),
    "dream": ("dream",),
    "ernie4_5": ("ernie4_5",),
    "ernie4_5-moe": ("ernie4_5_moe",),
    "exaone": ("exaone",),
    "exaone-moe": ("exaone_moe",),
    "exaone4": ("exaone4",),
    "falcon": ("falcon",),
    "falcon-h1": ("falcon_h1",),
    "gemma": ("gemma",),
    "gemma-embedding": ("gemma3_text",),
    "gemma2": ("gemma2",),
    "gemma3": ("gemma3_text",),
    "gemma3n": ("gemma3n_text",),
    "gemma4": ("gemma4_text",),
    "glm4": ("glm4",),
    "glm4moe": ("glm4_moe",),
    "gpt-oss": ("gpt_oss",),
    "gpt2": ("gpt2",),
    "gptneox": ("gpt_neox",),
    "hunyuan-dense": ("hunyuan_v1_dense",),
    "granite": ("granite",),
    "granitehybrid": ("granitemoehybrid",),
    "granitemoe": ("granitemoeshared", "granitemoe"),
    "hunyuan-moe": ("hunyuan_v1_moe",),
    "hunyuan_vl": ("hunyuan_vl_text",),
    "internlm2": ("internlm2",),
    "jais": ("jais",),
    "jais2": ("jais2",),
    "jamba": ("jamba",),
    "kimi-linear": ("kimi_linear",),
    "lfm2": ("lfm2",),
    "lfm2moe": ("lfm2_moe",),
    "llada": ("llada",),
    "llada-moe": ("llada_moe",),
    "llama": ("mixtral", "mistral", "llama"),
    "maincoder": ("maincoder",),
    "mamba": ("mamba", "falcon_mamba"),
    "mamba2": ("mamba2",),
    "minicpm": ("minicpm",),
    "minimax-m2": ("minimax_m2",),
    "mistral3": ("ministral3",),
    "nanbeige": ("nanbeige",),
    "modern-bert": ("modernbert",),
    "nemotron": ("nemotron",),
    "nemotron_h": ("nemotron_h",),
    "nemotron_h_moe": ("nemotron_h",),
    "nomic-bert": ("nomic_bert",),
    "olmo": ("olmo",),
    "olmo2": ("olmo3", "olmo2"),
    "olmoe": ("olmoe",),
    "orion": ("orion",),
    "paddleocr": ("paddleocr_vl_text",),
    "pangu-embedded": ("pangu_embedded",),
    "phi2": ("phi",),
    "phi3": ("phi3",),
    "phimoe": ("phimoe",),
    "plamo": ("plamo",),
    "qwen": ("qwen",),
    "qwen2": ("qwen2",),
    "qwen2moe": ("qwen2_moe",),
    "qwen2vl": ("qwen2_vl_text",),
    "qwen3": ("qwen3",),
    "qwen35": ("qwen3_5_text",),
    "qwen35moe": ("qwen3_5_moe_text",),
    "qwen3moe": ("qwen3_moe",),
    "qwen3next": ("qwen3_next",),
    "qwen3vl": ("qwen3_vl_text",),
    "qwen3vlmoe": ("qwen3_vl_moe_text",),
    "refact": ("refact",),
    "rnd1": ("rnd1",),
    "seed_oss": ("seed_oss",),
    "smollm3": ("smollm3",),
    "stablelm": ("stablelm",),
    "starcoder": ("gpt_bigcode",),
    "starcoder2": ("starcoder2",),
    "t5": ("umt5", "t5"),
    "t5encoder": ("umt5", "t5"),
    "xverse": ("xverse",),
}

# Model types of models that also read images, with those of their text parts: the field `text_config`.
TEXT_PARTS = {"qwen3_5": "qwen3_5_text", "qwen3_5_moe": "qwen3_5_moe_text"}

MODEL_TYPES = tuple(sorted({model_type for row in ROWS.values() for model_type in row}))


@cache
def _import(model_type: str) -> tuple[Architecture, ...]:
    module = import_module(f"torchgguf.models.architectures.{model_type}")
    architectures = (value for value in vars(module).values() if isinstance(value, Architecture))
    return tuple(found for found in architectures if found.config_class.model_type == model_type)


def architectures_of_type(model_type: str) -> tuple[Architecture, ...]:
    """Return the architectures of a `model_type` in config.json: first that of whole models.

    Raises:
        ValueError: the type is unsupported; the message lists those that are supported.
    """
    if model_type not in MODEL_TYPES:
        raise ValueError(f"model_type {brief(model_type)} is not supported{_like(model_type, MODEL_TYPES)}")
    return _import(model_type)


def architecture_of_type(model_type: str) -> Architecture:
    """Return the architecture of whole models of a `model_type`; errors as `architectures_of_type`."""
    return architectures_of_type(model_type)[0]


def architecture_of_config(config: Config) -> Architecture:
    """Return the architecture of checkpoints with a config; errors as `architectures_of_type`."""
    return next(found for found in architectures_of_type(config.model_type) if found.of_config(config))


def architecture_of_file(file: GGUFFile) -> Architecture:
    """Return the architecture that loads a GGUF file.

    Raises:
        GGUFError: the file contains no model, or an unsupported one; the message lists the supported ones.
    """
    actual = file.metadata.get("general.architecture")
    if (reason := explain_projector(file.metadata)) is not None:
        raise GGUFError(reason, path=file.paths[0])
    if (kind := file.metadata.get("general.type", "model")) != "model":
        raise GGUFError(f"the file contains no model: its general.type is {brief(kind)}", path=file.paths[0])
    for model_type in ROWS.get(actual, ()) if isinstance(actual, str) else ():
        for architecture in _import(model_type):
            is_named = actual in (architecture.gguf, *architecture.other_ggufs)
            has_marker = architecture.marker is None or architecture.marker in file.tensors
            if is_named and has_marker and architecture.matches(file.metadata):
                return architecture
    reason = f"architecture {brief(actual)} is not supported{_like(actual, ROWS)}"
    raise GGUFError(reason, path=file.paths[0])


def _like(name: object, known: Collection[str]) -> str:
    """Return the end of an error that names what is most like a name: all names would fill the screen."""
    alike = get_close_matches(name, known, n=3, cutoff=0.5) if isinstance(name, str) else []
    nearest = f", the nearest are {', '.join(alike)}" if alike else ""
    return f": {len(known)} are{nearest} (docs/models.md lists them)"


def architectures_with(task: str) -> list[str]:
    """Return the model types that have a class for a task such as `"causal_lm"`; import all of them."""
    return [model_type for model_type in MODEL_TYPES if task in architecture_of_type(model_type).classes]

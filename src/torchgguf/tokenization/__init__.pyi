from tokenizers import AddedToken as AddedToken

from torchgguf.tokenization.auto import AutoTokenizer as AutoTokenizer
from torchgguf.tokenization.encoding.batch_encoding import (
    BatchEncoding as BatchEncoding,
    CharSpan as CharSpan,
    TokenSpan as TokenSpan,
)
from torchgguf.tokenization.encoding.streaming import StreamDecoder as StreamDecoder
from torchgguf.tokenization.errors import (
    ChatTemplateError as ChatTemplateError,
    TokenizerError as TokenizerError,
)
from torchgguf.tokenization.gpt2 import (
    GPT2Tokenizer as GPT2Tokenizer,
    GPT2TokenizerFast as GPT2TokenizerFast,
)
from torchgguf.tokenization.kinds.pre_tokenizers import (
    PRE_TOKENIZERS as PRE_TOKENIZERS,
    PreTokenizer as PreTokenizer,
)
from torchgguf.tokenization.names import (
    BertTokenizer as BertTokenizer,
    BertTokenizerFast as BertTokenizerFast,
    BloomTokenizerFast as BloomTokenizerFast,
    CodeLlamaTokenizer as CodeLlamaTokenizer,
    CodeLlamaTokenizerFast as CodeLlamaTokenizerFast,
    CohereTokenizer as CohereTokenizer,
    CohereTokenizerFast as CohereTokenizerFast,
    DistilBertTokenizer as DistilBertTokenizer,
    DistilBertTokenizerFast as DistilBertTokenizerFast,
    GemmaTokenizer as GemmaTokenizer,
    GemmaTokenizerFast as GemmaTokenizerFast,
    GPTNeoXTokenizer as GPTNeoXTokenizer,
    GPTNeoXTokenizerFast as GPTNeoXTokenizerFast,
    LlamaTokenizer as LlamaTokenizer,
    LlamaTokenizerFast as LlamaTokenizerFast,
    MPNetTokenizer as MPNetTokenizer,
    PreTrainedTokenizer as PreTrainedTokenizer,
    PreTrainedTokenizerBase as PreTrainedTokenizerBase,
    PreTrainedTokenizerFast as PreTrainedTokenizerFast,
    Qwen2Tokenizer as Qwen2Tokenizer,
    Qwen2TokenizerFast as Qwen2TokenizerFast,
    RobertaTokenizer as RobertaTokenizer,
    RobertaTokenizerFast as RobertaTokenizerFast,
    T5Tokenizer as T5Tokenizer,
    T5TokenizerFast as T5TokenizerFast,
    TokenizersBackend as TokenizersBackend,
    XLMRobertaTokenizer as XLMRobertaTokenizer,
    XLMRobertaTokenizerFast as XLMRobertaTokenizerFast,
)
from torchgguf.tokenization.tokenizer import (
    Tokenizer as Tokenizer,
    tokenizer_from_gguf as tokenizer_from_gguf,
)

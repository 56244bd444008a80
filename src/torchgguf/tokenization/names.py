"""transformers' names of tokenizer classes. One class serves all models here, so all of them are its names.

GPT-2's is a class of its own, because its files need not state what it is.
"""

from torchgguf.tokenization.tokenizer import Tokenizer

PreTrainedTokenizer = PreTrainedTokenizerBase = PreTrainedTokenizerFast = TokenizersBackend = Tokenizer

BertTokenizer = BertTokenizerFast = DistilBertTokenizer = DistilBertTokenizerFast = MPNetTokenizer = Tokenizer
BloomTokenizerFast = CohereTokenizer = CohereTokenizerFast = GPTNeoXTokenizer = GPTNeoXTokenizerFast = (
    Tokenizer
)
CodeLlamaTokenizer = CodeLlamaTokenizerFast = LlamaTokenizer = LlamaTokenizerFast = Tokenizer
GemmaTokenizer = GemmaTokenizerFast = Tokenizer
Qwen2Tokenizer = Qwen2TokenizerFast = Tokenizer
RobertaTokenizer = RobertaTokenizerFast = XLMRobertaTokenizer = XLMRobertaTokenizerFast = Tokenizer
T5Tokenizer = T5TokenizerFast = Tokenizer

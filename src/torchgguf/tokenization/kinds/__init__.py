"""The kinds of tokenizer: BPE, Unigram and WordPiece."""

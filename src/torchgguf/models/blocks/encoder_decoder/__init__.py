"""Models of an encoder and a decoder that reads what the encoder made of a text."""

"""Train a SentencePiece model on a balanced sample, measure it in every language, encode text and lose none of it."""

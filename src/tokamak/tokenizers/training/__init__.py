"""New vocabularies from texts: BPE and WordPiece as `tokenizers` trains them, Unigram by expectation and maximisation."""

from tokamak.tokenizers.training.recipe import KINDS, Recipe, train_files, train_texts

__all__ = ["KINDS", "Recipe", "train_files", "train_texts"]

"""Reviews whose deciding words are known, and a small BERT trained on them."""

from captum_vit.demo.reviews.model import demo_bert, demo_bert_tokenizer
from captum_vit.demo.reviews.reviews import Reviews, generated_reviews
from captum_vit.demo.reviews.word_pieces import Read, read

__all__ = ["Read", "Reviews", "demo_bert", "demo_bert_tokenizer", "generated_reviews", "read"]

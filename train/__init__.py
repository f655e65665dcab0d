"""Pretraining of a compact mixture-of-experts language model from token shards in many languages."""

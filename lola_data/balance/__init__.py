"""The language balance: what each language has at each stage, counted or estimated from the shards."""

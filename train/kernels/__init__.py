"""Backends that compute the experts of an MoE layer; :func:`train.moe.moe_experts` is the one way in."""

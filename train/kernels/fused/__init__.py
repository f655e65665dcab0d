"""The MoE layer as Triton kernels; :mod:`train.kernels.fused.ops` is the way in."""

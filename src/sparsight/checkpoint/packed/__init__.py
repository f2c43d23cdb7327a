"""Packed files: a checkpoint at about its entropy, as safetensors. docs/packed.md specifies them byte by byte."""

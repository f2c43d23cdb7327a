"""Packed files: a checkpoint at about its entropy, as safetensors. docs/packed-format.md specifies the bytes."""

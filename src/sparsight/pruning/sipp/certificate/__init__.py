"""Error bounds of pruned networks, next to measured errors."""

from sparsight.pruning.sipp.certificate.certify import certify, pruning_of
from sparsight.pruning.sipp.certificate.records import (
    Certificate,
    LayerCertificate,
    NetworkCertificate,
    NeuronCertificate,
)

__all__ = ["Certificate", "LayerCertificate", "NetworkCertificate", "NeuronCertificate", "certify", "pruning_of"]

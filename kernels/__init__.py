"""Kernels of mote_fast, each beside its plain-PyTorch reference. Installed as ``mote_fast.kernels``."""

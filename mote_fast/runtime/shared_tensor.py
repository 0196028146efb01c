"""Sends a tensor to another process through memory that both map, where a pipe would copy it in small pieces."""

from __future__ import annotations

import mmap
import os
import sys
import tempfile
from multiprocessing.connection import Connection
from multiprocessing.reduction import recv_handle, send_handle

import torch
from torch import Tensor


def send_tensor(connection: Connection, tensor: Tensor, receiver: int) -> None:
    """Send a uint8 tensor to the process with id ``receiver``, which calls ``receive_tensor``."""
    data = tensor.contiguous().view(-1)
    connection.send(tensor.shape)
    if not data.numel():
        return
    file = _anonymous_file()
    try:
        os.ftruncate(file, data.numel())
        with mmap.mmap(file, data.numel()) as memory:
            target = torch.frombuffer(memory, dtype=torch.uint8)
            target.copy_(data)
            # The map cannot be closed while the tensor refers to it.
            del target
        send_handle(connection, file, receiver)
    finally:
        os.close(file)


def receive_tensor(connection: Connection) -> Tensor:
    """Return the tensor that the other process sends; its memory is freed with it."""
    shape = connection.recv()
    if not shape.numel():
        return torch.empty(shape, dtype=torch.uint8)
    file = recv_handle(connection)
    try:
        # Writes of the receiver are its own.
        memory = mmap.mmap(file, shape.numel(), access=mmap.ACCESS_COPY)
    finally:
        os.close(file)
    return torch.frombuffer(memory, dtype=torch.uint8).view(shape)


def _anonymous_file() -> int:
    """A descriptor of a file without a name. Linux's are not bound by the size of /dev/shm, 64 MB in containers."""
    if sys.platform == "linux":
        return os.memfd_create("mote-fast")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())

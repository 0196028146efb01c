"""A head's whole optimiser step over frame features, in fixed buffers, so that a CUDA graph can hold it."""

from __future__ import annotations

import weakref
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from mote_fast.errors import ConfigError
from mote_fast.head.video_head import VideoHead
from mote_fast.runtime.device_copy import to_device
from mote_fast.training.losses import PAPER_METHOD, training_loss
from mote_fast.training.method import Draws, TrainingMethod
from mote_fast.training.optim import HeadAdamW
from mote_fast.training.schedule import set_learning_rate

# Steps before the capture: they make what is made once, such as the optimiser's moments and compiled kernels.
EAGER_STEPS = 3


class CapturedStep:
    """Forward, loss, backward, clipping and update of a head, as one CUDA graph from the fourth step on.

    On a CPU every step runs as it is written, with the same results; so do the first three on a GPU, also after the
    optimiser has loaded a state.

    Args:
        head: the head; it holds the features of the training classes.
        optimizer: ``head_optimizer(head, ..., capturable=True)`` without further groups.
        logit_scale: the factor itself, ``exp`` of CLIP's parameter (about 100), which is not trained here.
        clips: B, videos of every step.
        frames: T, frames of a video.
        method: the objective.
        precision: bfloat16, as dtype of autocast, or None for float32; float16 would need a loss scaler.
        clip_gradient: largest norm of the gradient; None does not clip.

    Raises:
        ConfigError: the optimiser is not capturable, the head has no class features, or the precision is another.
    """

    def __init__(
        self,
        head: VideoHead,
        optimizer: HeadAdamW,
        logit_scale: Tensor | float,
        clips: int,
        frames: int,
        *,
        method: TrainingMethod = PAPER_METHOD,
        precision: torch.dtype | None = None,
        clip_gradient: float | None = None,
    ) -> None:
        classes = head.train_class_features
        if classes is None:
            raise ConfigError("the head has no class features to train with; set_train_class_features gives it some")
        if not all(group["capturable"] for group in optimizer.param_groups):
            raise ConfigError("a captured step needs head_optimizer(..., capturable=True)")
        if precision not in (None, torch.bfloat16):
            raise ConfigError(f"precision must be None or bfloat16, got {precision}")
        device = classes.device
        self.head, self.optimizer, self.method = head, optimizer, method
        self.logit_scale, self.precision, self.clip_gradient = logit_scale, precision, clip_gradient
        self.features = torch.zeros(clips, frames, head.embed_dim, device=device)
        kind = torch.int64 if method.loss == "ce" else torch.float32
        self.labels = torch.zeros((clips,) if method.loss == "ce" else (clips, len(classes)), dtype=kind, device=device)
        routes = torch.zeros(head.layers, dtype=torch.int64, device=device)
        self.draws = Draws(routes, torch.ones(head.layers, device=device), routes.clone())
        self.losses = torch.zeros(4, device=device)
        # One for all steps: no graph is captured on the default stream, and a leaf belongs to the stream of its use.
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._steps = 0
        self._graph: torch.cuda.CUDAGraph | None = None
        me = weakref.ref(self)

        def loaded(_: torch.optim.Optimizer) -> None:
            # The graph holds the addresses of the moments that were replaced.
            if (step := me()) is not None:
                step._steps, step._graph = 0, None

        optimizer.register_load_state_dict_post_hook(loaded)

    def __call__(self, features: Tensor, labels: Tensor, draws: Draws, lr: float) -> Tensor:
        """Take one step.

        Args:
            features: [B, T, d], float32, on the head's device or on the CPU.
            labels: as in ``training_loss``.
            draws: the random choices of the step.
            lr: learning rate of the step.

        Returns:
            [4], the loss, its routed, merged and mse part: a buffer that the next step overwrites.
        """
        self.load(features, labels, draws, lr)
        if self._graph is not None:
            self._graph.replay()
        elif self._stream is None:
            self.run()
        elif self._steps == EAGER_STEPS:
            self._graph = self.capture(self._stream)
            self._graph.replay()
        else:
            current = torch.cuda.current_stream(self.features.device)
            self._stream.wait_stream(current)
            with torch.cuda.stream(self._stream):
                self.run()
            current.wait_stream(self._stream)
        self._steps += 1
        return self.losses

    def load(self, features: Tensor, labels: Tensor, draws: Draws, lr: float) -> None:
        """Write the inputs of a step to its buffers; the host waits for no copy."""
        device = self.features.device
        self.features.copy_(to_device(features, device))
        self.labels.copy_(to_device(labels, device))
        given = draws.to(device)
        for buffer, part in (
            (self.draws.experts, given.experts),
            (self.draws.temperatures, given.temperatures),
            (self.draws.down_experts, given.experts if given.down_experts is None else given.down_experts),
        ):
            assert isinstance(buffer, Tensor)
            buffer.copy_(torch.as_tensor(part))
        set_learning_rate(self.optimizer, lr, 1.0)

    def run(self) -> None:
        """Take the step that the buffers describe: all that the graph holds. Reads and copies nothing on the host."""
        classes = self.head.train_class_features
        assert classes is not None
        with self._autocast():
            loss = training_loss(
                self.head, self.features, classes, self.labels, self.logit_scale, self.method, self.draws
            )
        loss.total.backward()
        if self.clip_gradient is not None:
            self.optimizer.clip_grad_norm_(self.clip_gradient)
        self.optimizer.step()
        self.optimizer.zero_grad()
        torch.stack(
            [part.detach().float() for part in (loss.total, loss.routed, loss.merged, loss.mse)], out=self.losses
        )

    def capture(self, stream: torch.cuda.Stream) -> torch.cuda.CUDAGraph:
        """Record ``run`` as a CUDA graph, which computes nothing yet."""
        graph = torch.cuda.CUDAGraph()
        # Threads that load data may allocate pinned memory meanwhile.
        with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
            self.run()
        return graph

    def _autocast(self) -> AbstractContextManager[Any]:
        # Without the cache of cast weights: it would outlive the pass that a replay repeats.
        if self.precision is None:
            return nullcontext()
        return torch.autocast(self.features.device.type, self.precision, cache_enabled=False)

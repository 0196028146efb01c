"""CLIP's two towers as two encoders: frames to features, tokens to features."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from open_clip.transformer import ResidualAttentionBlock, VisionTransformer
from torch import Tensor, nn

from mote_fast.clip.clip_config import ClipConfig
from mote_fast.clip.fingerprint import Fingerprint
from mote_fast.clip.tower_compiler import TowerCompiler
from mote_fast.clip.transformer import KeysValues, keys_values_of, run_blocks
from mote_fast.ops.attention import resolve_backend

Tokenizer = Callable[[list[str]], Tensor]


class ClipTowers(nn.Module):
    """An open_clip model as a frame encoder and a text encoder.

    Towers of CLIP's own architecture go through ``blocks.py`` (exact, and less work); any other architecture that
    open_clip knows goes through its own ``encode_image`` and ``encode_text``.

    Args:
        model: the open_clip model, weights loaded.
        config: configuration of the model; saved beside the weights.
        tokenizer: maps a list of strings to int64 [N, context_length].
        attention: backend of attention, "auto", "sdpa" or "xformers"; resolved here and wherever the towers are moved.

    Attributes:
        attention: the backend in use, "sdpa" or "xformers".
        compiler: whether the image tower is compiled; it is not unless that is chosen.

    Raises:
        BackendError: the backend is unknown, or was forced and cannot run.
    """

    def __init__(self, model: nn.Module, config: ClipConfig, tokenizer: Tokenizer, attention: str = "auto") -> None:
        super().__init__()
        # Typed as Any because open_clip's model classes share methods, not a base class.
        self.model: Any = model
        self.config = config
        self.tokenizer = tokenizer
        self._requested_attention = attention
        self._resolve_attention()
        self.is_plain_vision_tower = _is_plain_vision_tower(model.visual)
        self.is_plain_text_tower = _is_plain_text_tower(self.text)
        # A function of these towers, not a bound method: a copy of compiled towers must compute with its own weights.
        self.compiler = TowerCompiler(ClipTowers.run_vision_tower)
        self._text_fingerprint, self._image_fingerprint = Fingerprint(), Fingerprint()

    def _resolve_attention(self) -> None:
        # What runs in the parameters' dtype also runs in those that autocast makes of them.
        parameter = next(self.model.parameters())
        self.attention = resolve_backend(parameter.device.type, parameter.dtype, self._requested_attention)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> ClipTowers:
        # ``to``, ``half``, ``cuda`` and the rest come through here.
        super()._apply(fn, recurse)
        self._resolve_attention()
        return self

    @property
    def text(self) -> Any:
        """The module of the text tower: CLIP itself, or the text child of CustomTextCLIP."""
        return getattr(self.model, "text", self.model)

    @property
    def embed_dim(self) -> int:
        """d, the width of frame and class features."""
        return self.config.embed_dim

    @property
    def image_size(self) -> int:
        """Side of the image tower's input frames, pixels."""
        return self.config.preprocessing.size

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the parameters and of the input frames."""
        return next(self.model.parameters()).dtype

    @property
    def device(self) -> torch.device:
        """The device of the parameters."""
        return next(self.model.parameters()).device

    @property
    def logit_scale(self) -> Tensor:
        """exp(logit_scale), the factor that turns cosines into logits (a scalar, trained)."""
        return self.model.logit_scale.exp().reshape(())

    def encode_frames(self, pixels: Tensor, *, many: bool = False) -> Tensor:
        """Encode frames.

        Args:
            pixels: [N, 3, S, S], normalised, in the towers' dtype.
            many: whether this is part of work on many videos, for which compiling may pay, see ``compiler``.

        Returns:
            [N, d], projected, not L2-normalised (eq. (1)).
        """
        return self.compiler.encode(self, pixels, many)

    def run_vision_tower(self, pixels: Tensor) -> Tensor:
        """Encode frames as ``encode_frames`` does, but always eager, never compiled."""
        if not self.is_plain_vision_tower:
            # CoCa normalises by default, other models do not.
            return self.model.encode_image(pixels, normalize=False)
        visual = self.model.visual
        x = visual.conv1(pixels).flatten(2).transpose(1, 2)
        class_token = visual.class_embedding.to(x.dtype).expand(x.shape[0], 1, -1)
        x = torch.cat((class_token, x), dim=1) + visual.positional_embedding.to(x.dtype)
        pooled = torch.zeros(x.shape[0], dtype=torch.long, device=x.device)
        x = run_blocks(_blocks(visual), visual.ln_pre(x), pooled, backend=self.attention)
        return visual.ln_post(x) @ visual.proj

    def encode_tokens(self, tokens: Tensor) -> Tensor:
        """Encode prompts; only as many positions run as the longest prompt needs.

        The text tower is causal, so tokens after the end-of-text token cannot change the feature: the result is exact.

        Args:
            tokens: int64 [N, context_length].

        Returns:
            [N, d], projected, not L2-normalised.
        """
        tokens = tokens.to(self.device)
        if not self.is_plain_text_tower:
            return self.model.encode_text(tokens, normalize=False)
        ends = self.end_positions(tokens)
        x = self.embed_tokens(tokens[:, : int(ends.max()) + 1])
        x = run_blocks(_blocks(self.text), x, ends, mask=causal_mask(x.shape[1], x), backend=self.attention)
        return self._project_text(x)

    def encode_suffixes(self, tokens: Tensor, ends: Tensor, past: Iterable[KeysValues], offset: int) -> Tensor:
        """Encode prompts whose first ``offset`` tokens were run before.

        Args:
            tokens: int64 [N, S], the tokens after the shared prefix.
            ends: int64 [N], position of the end-of-text token within ``tokens``.
            past: for each block, keys and values [N, offset, H, h] of the prefix (``prefix_keys_values``).
            offset: positions that the prefix takes.

        Returns:
            [N, d], equal to ``encode_tokens`` of the whole prompts.
        """
        x = self.embed_tokens(tokens, offset)
        mask = torch.cat((x.new_zeros(x.shape[1], offset), causal_mask(x.shape[1], x)), dim=1)
        return self._project_text(run_blocks(_blocks(self.text), x, ends, mask=mask, past=past, backend=self.attention))

    def prefix_keys_values(self, tokens: Tensor) -> list[KeysValues]:
        """Run shared prefixes ``tokens [N, P]`` once and return each block's keys and values [N, P, H, h]."""
        x = self.embed_tokens(tokens)
        return keys_values_of(_blocks(self.text), x, mask=causal_mask(x.shape[1], x), backend=self.attention)

    def embed_tokens(self, tokens: Tensor, offset: int = 0) -> Tensor:
        """Embed ``tokens [N, L]`` as positions ``offset`` to ``offset + L`` of a prompt: [N, L, w]."""
        positions = self.text.positional_embedding[offset : offset + tokens.shape[1]]
        return self.text.token_embedding(tokens).to(self.dtype) + positions.to(self.dtype)

    def end_positions(self, tokens: Tensor) -> Tensor:
        """Return int64 [N], the position of each prompt's end-of-text token (the pooled one)."""
        if _pool_type(self.text) == "eos":
            eos = getattr(self.text, "text_eos_id", getattr(self.text, "eos_id", None))
            return (tokens == eos).int().argmax(-1)
        return tokens.argmax(-1)

    def image_state(self) -> dict[str, Tensor]:
        """The image tower's tensors by name."""
        return self.model.visual.state_dict()

    def image_fingerprint(self) -> str:
        """Return the SHA-256 of the image tower's configuration and weights."""
        return self._image_fingerprint.of(self.config.model, self.image_state())

    def text_fingerprint(self) -> str:
        """Return the SHA-256 of the text tower's configuration and weights, which determine class features."""
        state = {
            name: value for name, value in sorted(self.model.state_dict().items()) if not name.startswith("visual.")
        }
        return self._text_fingerprint.of(self.config.model, state)

    def _project_text(self, pooled: Tensor) -> Tensor:
        x = self.text.ln_final(pooled)
        projection = self.text.text_projection
        if projection is None:
            return x
        return projection(x) if isinstance(projection, nn.Linear) else x @ projection


def causal_mask(length: int, like: Tensor) -> Tensor:
    """Return the additive causal mask [length, length] in the dtype and on the device of ``like``."""
    return torch.full((length, length), float("-inf"), dtype=like.dtype, device=like.device).triu_(1)


def _blocks(tower: Any) -> list[ResidualAttentionBlock]:
    return list(tower.transformer.resblocks)


def _has_plain_blocks(tower: Any) -> bool:
    return all(type(block) is ResidualAttentionBlock for block in _blocks(tower))


def _is_plain_vision_tower(visual: object) -> bool:
    """Whether an image tower is CLIP's ViT: class-token pooling, no attention pooler, no patch dropout."""
    return (
        isinstance(visual, VisionTransformer)
        and visual.attn_pool is None
        and visual.pool_type == "tok"
        and visual.proj is not None
        and not visual.output_tokens
        and isinstance(visual.patch_dropout, nn.Identity)
        and _has_plain_blocks(visual)
    )


def _pool_type(text: Any) -> str | None:
    """The pooling of a text tower: CLIP and CustomTextCLIP's child name the attribute differently."""
    return getattr(text, "text_pool_type", getattr(text, "pool_type", None))


def _is_plain_text_tower(text: Any) -> bool:
    """Whether a text tower is CLIP's: causal, pooled at the end-of-text token, no extra class token."""
    return (
        getattr(text, "attn_mask", None) is not None
        and getattr(text, "cls_emb", None) is None
        and _pool_type(text) in ("argmax", "eos")
        and not getattr(text, "output_tokens", False)
        and hasattr(text, "token_embedding")
        and _has_plain_blocks(text)
    )

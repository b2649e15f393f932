"""A small Llama for characters: Touvron et al. 2023, https://arxiv.org/abs/2302.13971, section 2.2.

RMSNorm before each part (Zhang & Sennrich 2019), rotary positions (Su et al. 2021, arXiv 2104.09864) in halves as Llama
has them, attention of grouped queries (Ainslie et al. 2023, arXiv 2305.13245) without biases, SwiGLU (Shazeer 2020,
arXiv 2002.05202), and one matrix for embedding and output (Press & Wolf 2017, arXiv 1608.05859).

| part      | with the defaults                                   | parameters |
|-----------|-----------------------------------------------------|------------|
| embedding | 256 tokens x 128, also the output                   | 32,768     |
| attention | 8 query heads of 16, 4 key and value heads          | 49,152     |
| MLP       | 128 -> 352 twice, 352 -> 128                        | 135,168    |
| norms     | two of 128                                          | 256        |

Six such blocks and the last norm: 1,140,352 parameters.
"""

from __future__ import annotations

import math
from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from autoprune.errors import ConfigError


@final
class Attention(nn.Module):
    """Causal attention; every key and value head serves as many query heads.

    Args:
        width: of the residual stream.
        heads: query heads.
        key_value_heads: divide `heads`.
        head_width: of each of them.
    """

    def __init__(self, width: int, heads: int, key_value_heads: int, head_width: int) -> None:
        super().__init__()
        self.head_width, self.queries = head_width, heads // key_value_heads
        self.q_proj = nn.Linear(width, heads * head_width, bias=False)
        self.k_proj = nn.Linear(width, key_value_heads * head_width, bias=False)
        self.v_proj = nn.Linear(width, key_value_heads * head_width, bias=False)
        self.o_proj = nn.Linear(heads * head_width, width, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Map (N, T, width) to the same shape; `cos` and `sin` are (T, head_width)."""
        n, length, _ = x.shape
        q, k, v = (
            projection(x).view(n, length, -1, self.head_width).transpose(1, 2)
            for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        q, k = q * cos + _turned(q) * sin, k * cos + _turned(k) * sin
        k, v = k.repeat_interleave(self.queries, dim=1), v.repeat_interleave(self.queries, dim=1)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.o_proj(mixed.transpose(1, 2).reshape(n, length, -1))


@final
class SwiGLU(nn.Module):
    """The MLP: silu of a gate times what it lets through."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(width, hidden, bias=False)
        self.up_proj = nn.Linear(width, hidden, bias=False)
        self.down_proj = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, T, width) to the same shape."""
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


@final
class LlamaBlock(nn.Module):
    """Attention and MLP, each added to what it read through a norm."""

    def __init__(self, width: int, heads: int, key_value_heads: int, head_width: int, hidden: int) -> None:
        super().__init__()
        self.attention_norm = nn.RMSNorm(width, eps=1e-5)
        self.attention = Attention(width, heads, key_value_heads, head_width)
        self.mlp_norm = nn.RMSNorm(width, eps=1e-5)
        self.mlp = SwiGLU(width, hidden)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Map (N, T, width) to the same shape."""
        x = x + self.attention(self.attention_norm(x), cos, sin)
        return x + self.mlp(self.mlp_norm(x))


@final
class Llama(nn.Module):
    """The network of the table above.

    Args:
        vocabulary: number of tokens.
        width: of the residual stream.
        layers: blocks.
        heads: query heads.
        key_value_heads: divide `heads`.
        head_width: even, as positions turn pairs; None: width / heads.
        hidden: of the MLPs.
        context: most tokens that it takes at once.

    Raises:
        ConfigError: a size is not allowed.
    """

    def __init__(
        self,
        vocabulary: int,
        *,
        width: int,
        layers: int,
        heads: int,
        key_value_heads: int,
        head_width: int | None,
        hidden: int,
        context: int,
    ) -> None:
        super().__init__()
        head_width = width // max(1, heads) if head_width is None else head_width
        sizes = {"vocabulary": vocabulary, "width": width, "layers": layers, "heads": heads, "hidden": hidden}
        sizes |= {"key_value_heads": key_value_heads, "head_width": head_width, "context": context}
        for name, value in sizes.items():
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ConfigError(f"{name} must be a whole number of at least 1, got {value!r}")
        if heads % key_value_heads:
            raise ConfigError(f"key_value_heads must divide heads, got {key_value_heads} and {heads}")
        if head_width % 2:
            raise ConfigError(f"head_width must be even, got {head_width}; it is width // heads unless it is given")
        self.embedding = nn.Embedding(vocabulary, width)
        self.blocks = nn.ModuleList(
            LlamaBlock(width, heads, key_value_heads, head_width, hidden) for _ in range(layers)
        )
        self.norm = nn.RMSNorm(width, eps=1e-5)
        self.output = nn.Linear(width, vocabulary, bias=False)
        cos, sin = _rotations(context, head_width)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)
        self.cos: Tensor
        self.sin: Tensor
        self._layers = layers
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Normal initial weights of deviation 0.02, smaller where a branch ends (Radford et al. 2019, section 2.3)."""
        for name, parameter in self.named_parameters():
            if parameter.ndim == 2:
                ends = name.endswith(("o_proj.weight", "down_proj.weight"))
                nn.init.normal_(parameter, std=0.02 / math.sqrt(2 * self._layers) if ends else 0.02)
        self.output.weight = self.embedding.weight

    def forward(self, tokens: Tensor) -> Tensor:
        """Map tokens (N, T), T up to the context, to the logits (N, T, vocabulary) of the token after each."""
        x = self.embedding(tokens)
        length = tokens.shape[1]
        cos, sin = self.cos[:length], self.sin[:length]
        for block in self.blocks:
            x = block(x, cos, sin)
        return self.output(self.norm(x))


def _turned(x: Tensor) -> Tensor:
    """A quarter turn of each pair (i, i + half)."""
    first, second = x.chunk(2, dim=-1)
    return torch.cat((-second, first), dim=-1)


def _rotations(context: int, head_width: int) -> tuple[Tensor, Tensor]:
    """(context, head_width) cosines and sines."""
    frequencies = 10_000.0 ** (-torch.arange(0, head_width, 2) / head_width)
    angles = torch.arange(context)[:, None] * frequencies
    both = torch.cat((angles, angles), dim=1)
    return both.cos(), both.sin()


def char_llama(
    *,
    vocabulary: int = 256,
    width: int = 128,
    layers: int = 6,
    heads: int = 8,
    key_value_heads: int = 4,
    head_width: int | None = None,
    hidden: int = 352,
    context: int = 256,
) -> Llama:
    """The Llama of the table above: 1.14 M parameters."""
    return Llama(
        vocabulary,
        width=width,
        layers=layers,
        heads=heads,
        key_value_heads=key_value_heads,
        head_width=head_width,
        hidden=hidden,
        context=context,
    )

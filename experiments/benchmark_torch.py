"""The decoder of `benchmark.py` in PyTorch, after nanoGPT: the same function of the same weights, as fast as eager
PyTorch makes it on a CPU (one matrix product for queries, keys and values, its own attention kernel, fused AdamW).

Shapes: B batch, T tokens, D width, N heads, H head width.
"""

# pyright: reportMissingImports=false
# (torch comes with the extra `bench` only)

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F


class TorchBlock(nn.Module):
    def __init__(self, width: int, num_heads: int):
        super().__init__()
        self.num_heads = num_heads
        self.mixer_norm, self.feedforward_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.output = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x_BTD: Tensor) -> Tensor:
        batch, length, width = x_BTD.shape
        qkv = self.qkv(self.mixer_norm(x_BTD)).split(width, dim=2)
        q, k, v = (part.view(batch, length, self.num_heads, -1).transpose(1, 2) for part in qkv)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x_BTD = x_BTD + self.output(y.transpose(1, 2).reshape(batch, length, width))
        return x_BTD + self.down(F.gelu(self.up(self.feedforward_norm(x_BTD)), approximate="tanh"))


class TorchDecoder(nn.Module):
    """Learned positions, pre-norm blocks with biases, head tied to the embedding: jaxgpt's decoder so configured."""

    def __init__(self, *, num_layers: int, num_heads: int, width: int, vocab_size: int, length: int):
        super().__init__()
        self.embedding, self.position = nn.Embedding(vocab_size, width), nn.Embedding(length, width)
        self.layers = [TorchBlock(width, num_heads) for _ in range(num_layers)]
        self.blocks = nn.ModuleList(self.layers)
        self.final_norm = nn.LayerNorm(width)

    def forward(self, tokens_BT: Tensor, targets_BT: Tensor) -> Tensor:
        """Mean negative log-likelihood in nats."""
        x_BTD = self.embedding(tokens_BT) + self.position.weight[: tokens_BT.shape[1]]
        for block in self.layers:
            x_BTD = block(x_BTD)
        logits = F.linear(self.final_norm(x_BTD), self.embedding.weight)
        return F.cross_entropy(logits.flatten(0, 1), targets_BT.flatten())

    def load(self, parameters: Mapping[str, np.ndarray]) -> None:
        """Take the weights of a jaxgpt decoder, given by path; matrices are [in, out] there and [out, in] here."""

        def linear(layer: nn.Linear, weight: np.ndarray, bias: np.ndarray) -> None:
            put(layer.weight, weight.reshape(layer.in_features, layer.out_features).T)
            put(layer.bias, bias.reshape(-1))

        put(self.embedding.weight, parameters["embedding"])
        put(self.position.weight, parameters["position/table"])
        norm(self.final_norm, parameters["final_norm/scale"], parameters["final_norm/bias"])
        for i, block in enumerate(self.layers):
            part = {path.removeprefix("blocks/"): value[i] for path, value in parameters.items() if "blocks/" in path}
            norm(block.mixer_norm, part["mixer_norm/scale"], part["mixer_norm/bias"])
            norm(block.feedforward_norm, part["feedforward_norm/scale"], part["feedforward_norm/bias"])
            three = [(part[f"mixer/{name}"], part[f"mixer/{name}_bias"]) for name in ("query", "key", "value")]
            weight = np.concatenate([weight.reshape(len(weight), -1) for weight, _ in three], axis=1)
            linear(block.qkv, weight, np.concatenate([bias.reshape(-1) for _, bias in three]))
            linear(block.output, part["mixer/output"], part["mixer/output_bias"])
            linear(block.up, part["feedforward/up"], part["feedforward/up_bias"])
            linear(block.down, part["feedforward/down"], part["feedforward/down_bias"])


def put(parameter: Tensor, value: np.ndarray) -> None:
    with torch.no_grad():
        parameter.copy_(torch.tensor(value))


def norm(layer: nn.LayerNorm, scale: np.ndarray, bias: np.ndarray) -> None:
    put(layer.weight, scale)
    put(layer.bias, bias)


class TorchTrainer:
    """A train step in PyTorch: clipped gradient, fused AdamW with weight decay on matrices only."""

    def __init__(self, model: TorchDecoder, *, learning_rate: float, clip: float, betas: tuple[float, float]):
        self.model, self.clip = model, clip
        matrices = [p for p in model.parameters() if p.ndim >= 2]
        vectors = [p for p in model.parameters() if p.ndim < 2]
        groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, lr=learning_rate, betas=betas, eps=1e-8, fused=True)

    def step(self, tokens_BT: Tensor, targets_BT: Tensor) -> float:
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.model(tokens_BT, targets_BT)
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), self.clip)
        self.optimizer.step()
        return loss.item()

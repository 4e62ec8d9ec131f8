"""PyTorch's side of benches/transformers.rs: reads questions "what experts sequences context calls", answers mean seconds of one call.

The same shape: a decoder of 4 layers, 128 wide, 4 heads, 512 hidden units, RMS norms, relative positions as a bias for each
distance, a tied head; with experts in every second layer, tokens gathered expert by expert (a loop over experts).

pip install torch
"""

import sys
import time

import torch
import torch.nn.functional as F
from torch import nn

WIDTH, HEADS, HIDDEN, LAYERS, SYMBOLS = 128, 4, 512, 4, 65


class Norm(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(WIDTH))

    def forward(self, x):
        return self.weight * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = Norm()
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH, bias=False)
        self.o = nn.Linear(WIDTH, WIDTH, bias=False)

    def forward(self, x, bias):
        b, t, _ = x.shape
        q, k, v = self.qkv(self.norm(x)).view(b, t, 3, HEADS, -1).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=1.0)
        return x + self.o(y.transpose(1, 2).reshape(b, t, WIDTH))


class Dense(nn.Module):
    def __init__(self):
        super().__init__()
        self.wi = nn.Linear(WIDTH, HIDDEN, bias=False)
        self.wo = nn.Linear(HIDDEN, WIDTH, bias=False)

    def forward(self, x):
        return self.wo(F.relu(self.wi(x)))


class Switch(nn.Module):
    def __init__(self, experts):
        super().__init__()
        self.router = nn.Linear(WIDTH, experts, bias=False)
        self.experts = nn.ModuleList(Dense() for _ in range(experts))

    def forward(self, x):
        flat = x.reshape(-1, WIDTH)
        p = self.router(flat).softmax(-1)
        gate, choice = p.max(-1)
        capacity = int(1.25 * len(flat) / len(self.experts))
        out = torch.zeros_like(flat)
        share = []
        for i, expert in enumerate(self.experts):
            tokens = (choice == i).nonzero().squeeze(-1)
            share.append(len(tokens) / len(flat))
            tokens = tokens[:capacity]
            if len(tokens):
                out = out.index_add(0, tokens, gate[tokens, None] * expert(flat[tokens]))
        self.loss = 0.01 * len(self.experts) * (torch.tensor(share) * p.mean(0)).sum()
        return out.view_as(x)


class Layer(nn.Module):
    def __init__(self, experts):
        super().__init__()
        self.attention, self.norm = Attention(), Norm()
        self.ff = Switch(experts) if experts else Dense()

    def forward(self, x, bias):
        x = self.attention(x, bias)
        return x + self.ff(self.norm(x))


class Model(nn.Module):
    def __init__(self, experts, context):
        super().__init__()
        self.embedding = nn.Parameter(torch.randn(SYMBOLS, WIDTH))
        self.positions = nn.Parameter(torch.randn(HEADS, context) * 0.1)
        self.layers = nn.ModuleList(Layer(experts if i % 2 else 0) for i in range(LAYERS))
        self.norm = Norm()
        distance = torch.arange(context)[:, None] - torch.arange(context)[None]
        self.register_buffer("distance", distance.clamp(min=0))
        self.register_buffer("mask", torch.zeros(context, context).masked_fill(distance < 0, -torch.inf))

    def forward(self, tokens, targets):
        bias = (self.positions[:, self.distance] + self.mask)[None]
        x = self.embedding[tokens]
        for layer in self.layers:
            x = layer(x, bias)
        logits = self.norm(x) @ self.embedding.T * WIDTH**-0.5
        loss = F.cross_entropy(logits.view(-1, SYMBOLS), targets.view(-1))
        return loss + sum(layer.ff.loss for layer in self.layers if isinstance(layer.ff, Switch))


def call_for(what, experts, sequences, context):
    torch.manual_seed(1)
    model = Model(experts, context)
    tokens = torch.randint(0, SYMBOLS, (sequences, context))
    targets = torch.randint(0, SYMBOLS, (sequences, context))
    if what == "gradient":
        return lambda: torch.autograd.grad(model(tokens, targets), list(model.parameters()), allow_unused=True)
    if what == "step":
        optimizer = torch.optim.AdamW(model.parameters())

        def step():
            optimizer.zero_grad()
            model(tokens, targets).backward()
            optimizer.step()

        return step
    return None


def main():
    cache = {}
    for line in sys.stdin:
        what, *numbers = line.split()
        experts, sequences, context, calls = map(int, numbers)
        key = (what, experts)
        if key not in cache:
            cache.clear()
            cache[key] = call_for(what, experts, sequences, context)
        call = cache[key]
        if call is None:
            print("nan", flush=True)
            continue
        call()
        start = time.perf_counter()
        for _ in range(calls):
            call()
        print((time.perf_counter() - start) / calls, flush=True)


if __name__ == "__main__":
    main()

"""PyTorch's side of benches/networks.rs: reads questions "network what rows seconds", answers mean seconds of one call.

pip install torch backpack-for-pytorch
"""

import sys
import time

import torch
from backpack.hessianfree.ggnvp import ggn_vector_product
from torch import nn


def build(name, rows):
    torch.manual_seed(1)
    if name == "perceptron":
        model = nn.Sequential(nn.Linear(28, 300), nn.ReLU(), nn.Linear(300, 1))
        x, y = torch.randn(rows, 28), torch.randint(0, 2, (rows, 1)).float()
        loss = nn.BCEWithLogitsLoss()
    else:
        widths = [784, 1000, 500, 250, 30, 250, 500, 1000, 784]
        layers = []
        for i, (inputs, outputs) in enumerate(zip(widths, widths[1:])):
            layers.append(nn.Linear(inputs, outputs))
            if i not in (3, 7):
                layers.append(nn.Sigmoid())
        model = nn.Sequential(*layers)
        x = torch.rand(rows, 784)
        y = x
        loss = nn.BCEWithLogitsLoss(reduction="sum")
    return model, x, y, loss


def product(model, x, y, loss):
    v = [torch.randn_like(p) for p in model.parameters()]
    output = model(x)
    value = loss(output, y)
    return lambda: ggn_vector_product(value, output, model, v)


def call_for(what, model, x, y, loss):
    parameters = list(model.parameters())
    if what == "value":

        def call():
            with torch.no_grad():
                return loss(model(x), y)

        return call
    if what == "gradient":
        return lambda: torch.autograd.grad(loss(model(x), y), parameters)
    if what == "product":
        return product(model, x, y, loss)
    return None


def main():
    cache = {}
    for line in sys.stdin:
        name, what, rows, seconds = line.split()
        key = (name, what, rows)
        if key not in cache:
            cache.clear()
            cache[key] = call_for(what, *build(name, int(rows)))
        call = cache[key]
        if call is None:
            print("nan", flush=True)
            continue
        call()
        start, calls = time.perf_counter(), 0
        while time.perf_counter() - start < float(seconds):
            call()
            calls += 1
        print((time.perf_counter() - start) / calls, flush=True)


if __name__ == "__main__":
    main()

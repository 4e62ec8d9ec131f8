"""Values, gradients, Gauss-Newton products and mean squared gradients of small networks, by PyTorch in double precision.

Writes networks.json beside itself. Data, parameters and directions are formulas that tests/networks.rs repeats.

pip install torch
"""

import json
import math
import pathlib

import torch
from torch.func import functional_call, jvp, vjp, vmap, grad

ROWS, COLUMNS = 37, 5
ACTIVATIONS = {
    "relu": torch.nn.ReLU,
    "tanh": torch.nn.Tanh,
    "sigmoid": torch.nn.Sigmoid,
    "gelu": torch.nn.GELU,
}
CASES = [
    # model, hidden, activation, loss, classes
    ("mlp", [7], "relu", "logistic", 2),
    ("mlp", [7, 4], "tanh", "logistic", 2),
    ("mlp", [7, 4], "sigmoid", "softmax", 3),
    ("mlp", [7, 4, 3], "gelu", "softmax", 3),
    ("mlp", [7, 4], "relu", "squared", 2),
    ("mlp", [6], "tanh", "squared", 3),
    ("mlp", [7, 4], "gelu", "hinge", 2),
    ("mlp", [], "relu", "softmax", 3),
    ("autoencoder", [4, 2], "sigmoid", "cross-entropy", 2),
    ("autoencoder", [4, 3, 2], "tanh", "squared", 2),
]


def network(widths, activations):
    layers = []
    for inputs, outputs, activation in zip(widths, widths[1:], activations):
        layers.append(torch.nn.Linear(inputs, outputs, dtype=torch.float64))
        if activation:
            layers.append(ACTIVATIONS[activation]())
    return torch.nn.Sequential(*layers)


def loss_of(name, o, y, classes):
    """The loss of one row: outputs and target."""
    if name in ("logistic", "cross-entropy"):
        y = y if name == "cross-entropy" else y.to(torch.float64)
        return torch.nn.functional.binary_cross_entropy_with_logits(o, y.expand_as(o), reduction="sum")
    if name == "softmax":
        return torch.nn.functional.cross_entropy(o, y)
    if name == "squared":
        if y.dtype == torch.long:
            y = y.to(torch.float64) if classes == 2 else torch.nn.functional.one_hot(y, classes).to(torch.float64)
        return 0.5 * ((o - y) ** 2).sum()
    return torch.clamp(1 - (2 * y - 1) * o, min=0).sum()


def case(model, hidden, activation, loss, classes):
    x = torch.tensor([[math.sin(1 + 3 * r + 7 * c) for c in range(COLUMNS)] for r in range(ROWS)])
    x = x.to(torch.float32).to(torch.float64)
    y = torch.tensor([(r * r + r // 2) % classes for r in range(ROWS)])
    if model == "autoencoder":
        x = x.abs()
        x = x / x.max()
        hidden = hidden + hidden[-2::-1]
        code = (len(hidden) + 1) // 2 - 1
        activations = [None if i == code else activation for i in range(len(hidden))]
        widths = [COLUMNS, *hidden, COLUMNS]
        activations.append("sigmoid" if loss == "squared" else None)
        y = x
    else:
        outputs = 1 if classes == 2 else classes
        widths, activations = [COLUMNS, *hidden, outputs], [activation] * len(hidden) + [None]
    net = network(widths, activations)
    shapes = {name: p.shape for name, p in net.named_parameters()}
    sizes = [shape.numel() for shape in shapes.values()]
    total = sum(sizes)

    def split(flat):
        parts = flat.split(sizes)
        return {name: part.view(shape) for (name, shape), part in zip(shapes.items(), parts)}

    at = torch.tensor([0.5 * math.cos(1.3 * i + 0.2) for i in range(total)], dtype=torch.float64)
    v = torch.tensor([math.sin(0.7 * i + 1) for i in range(total)], dtype=torch.float64)

    def one(flat, x, y):
        return loss_of(loss, functional_call(net, split(flat), (x,)), y, classes)

    value = vmap(one, (None, 0, 0))(at, x, y).mean() if loss != "softmax" else torch.stack(
        [one(at, x[i], y[i]) for i in range(ROWS)]
    ).mean()
    gradients = torch.stack([grad(one)(at, x[i], y[i]) for i in range(ROWS)])
    product = torch.zeros(total, dtype=torch.float64)
    for i in range(ROWS):
        forward = lambda flat: functional_call(net, split(flat), (x[i],))
        o, jv = jvp(forward, (at,), (v,))
        outer = lambda o: grad(lambda o: loss_of(loss, o, y[i], classes))(o)
        _, hjv = jvp(outer, (o,), (jv,))
        product += vjp(forward, at)[1](hjv)[0]
    return {
        "model": model,
        "hidden": "-".join(map(str, hidden[: len(hidden) // 2 + 1] if model == "autoencoder" else hidden)) or "none",
        "activation": activation,
        "loss": loss,
        "classes": classes,
        "value": value.item(),
        "gradient": gradients.mean(0).tolist(),
        "product": (product / ROWS).tolist(),
        "squares": (gradients**2).mean(0).tolist(),
    }


def main():
    numbers = {"program": f"torch {torch.__version__}", "rows": ROWS, "columns": COLUMNS}
    numbers["cases"] = [case(*arguments) for arguments in CASES]
    path = pathlib.Path(__file__).with_suffix(".json")
    path.write_text(json.dumps(numbers, indent=1) + "\n")


if __name__ == "__main__":
    main()

"""Steps of Muon, SOAP and K-FAC on small networks, in double precision.

Writes matrices.json beside itself. Data and parameters are formulas that tests/matrices.rs repeats.

- Muon: torch.optim.Muon beside torch.optim.AdamW for biases and the last layer. PyTorch iterates in bfloat16; here its own
  code runs in double precision, because `torch.bfloat16` is made another name of it.
- SOAP: written here from the authors' program (github.com/nikhilvyas/SOAP), with the first moment kept in the rotated space,
  and checked against the package pytorch_optimizer, which keeps it unrotated. Both add epsilon to the uncorrected root; it is
  set so small that this does not matter.
- K-FAC: written here from Martens and Grosse 2015 with dense matrices: factors are summed example by example, the damped
  blocks are formed as Kronecker products and solved with, and the exact Fisher matrix is formed from Jacobians.

pip install torch numpy pytorch_optimizer
"""

import json
import math
import pathlib

import numpy as np
import torch
from pytorch_optimizer import SOAP
from torch.func import functional_call, jacrev, vmap

ROWS, COLUMNS = 37, 5
torch.set_default_dtype(torch.float64)
torch.bfloat16 = torch.float64


class Problem:
    """A network with tanh units under cross-entropy or half the squared error, and its parameters as a flat list."""

    def __init__(self, hidden, classes, ridge=0.0, squared=False):
        self.x = torch.tensor([[math.sin(1 + 3 * r + 7 * c + 0.7 * r * c) for c in range(COLUMNS)] for r in range(ROWS)])
        self.x = self.x.to(torch.float32).to(torch.float64)
        self.y = torch.tensor([(r * r + r // 2) % classes for r in range(ROWS)])
        self.classes, self.ridge, self.squared = classes, ridge, squared
        widths = [COLUMNS, *hidden, classes]
        layers = []
        for i, (inputs, outputs) in enumerate(zip(widths, widths[1:])):
            layers += [torch.nn.Linear(inputs, outputs)] + ([torch.nn.Tanh()] if i < len(hidden) else [])
        self.net = torch.nn.Sequential(*layers)
        place = 0
        for p in self.net.parameters():
            values = [0.5 * math.cos(1.3 * i + 0.2) for i in range(place, place + p.numel())]
            p.data = torch.tensor(values).view(p.shape)
            place += p.numel()

    def loss(self, kept=slice(None)):
        outputs, y = self.net(self.x[kept]), self.y[kept]
        if self.squared:
            y = torch.nn.functional.one_hot(y, self.classes)
            value = 0.5 * ((outputs - y) ** 2).sum(1).mean()
        else:
            value = torch.nn.functional.cross_entropy(outputs, y)
        weights = sum((p**2).sum() for p in self.net.parameters() if p.ndim == 2)
        return value + self.ridge / 2 * weights

    def gradient(self, step=None):
        """On all rows, or in step k on those with (row + k) % 4 > 0."""
        self.net.zero_grad()
        kept = slice(None) if step is None else [r for r in range(ROWS) if (r + step) % 4 > 0]
        value = self.loss(kept)
        value.backward()
        return value.item()

    def flat(self):
        return torch.cat([p.detach().flatten() for p in self.net.parameters()]).tolist()

    def move(self, step):
        for p, d in zip(self.net.parameters(), step.split([p.numel() for p in self.net.parameters()])):
            p.data += d.view(p.shape)


def muon(scale):
    problem = Problem([7, 4], 3)
    parameters = list(problem.net.parameters())
    hidden = [p for p in parameters[:-2] if p.ndim == 2]
    others = [p for p in parameters if all(p is not h for h in hidden)]
    adjust = {"original": "original", "match-adam": "match_rms_adamw"}[scale]
    optimizers = [
        torch.optim.Muon(hidden, lr=0.02, momentum=0.95, weight_decay=0.1, adjust_lr_fn=adjust),
        torch.optim.AdamW(others, lr=3e-3, betas=(0.9, 0.95), eps=1e-10, weight_decay=0.1),
    ]
    steps = []
    for _ in range(6):
        problem.gradient()
        for optimizer in optimizers:
            optimizer.step()
        steps.append(problem.flat())
    return {"scale": scale, "steps": steps}


def soap_by_hand(problem, steps, refresh, lr, b1, b2, epsilon, decay):
    """The authors' program in NumPy: the first moment lives in the rotated space."""
    states, out = {}, []
    for k in range(steps):
        problem.gradient(k)
        for p in problem.net.parameters():
            g = p.grad.numpy().copy()
            sides = range(g.ndim) if g.ndim == 2 else []
            outer = [g @ g.T, g.T @ g]
            if k == 0:
                gg = {s: (1 - b2) * outer[s] for s in sides}
                q = {s: np.linalg.eigh(gg[s])[1][:, ::-1] for s in sides}
                states[p] = [np.zeros_like(g), np.zeros_like(g), gg, q]
                continue
            m, v, gg, q = states[p]
            into = lambda a, q: q[0].T @ a @ q[1] if q else a
            back = lambda a, q: q[0] @ a @ q[1].T if q else a
            rotated = into(g, q)
            m, v = b1 * m + (1 - b1) * rotated, b2 * v + (1 - b2) * rotated**2
            size = lr * math.sqrt(1 - b2**k) / (1 - b1**k)
            p.data -= torch.tensor(size * back(m / (np.sqrt(v) + epsilon), q))
            p.data *= 1 - lr * decay
            gg = {s: b2 * gg[s] + (1 - b2) * outer[s] for s in sides}
            if k % refresh == 0 and q:
                unrotated, new = back(m, q), {}
                for s in sides:
                    order = np.argsort(-np.diag(q[s].T @ gg[s] @ q[s]), kind="stable")
                    v = v[order] if s == 0 else v[:, order]
                    new[s] = np.linalg.qr(gg[s] @ q[s][:, order])[0]
                q = new
                m = into(unrotated, q)
            states[p] = [m, v, gg, q]
        out.append(problem.flat())
    return out


def soap():
    settings = dict(refresh=3, lr=3e-3, b1=0.95, b2=0.9, epsilon=1e-9, decay=0.01)
    # Where gradients lack full rank, bases are not determined: square matrices, another part of the rows each step, and no
    # softmax, whose outputs' derivatives sum to zero.
    new = lambda: Problem([5], 5, squared=True)
    steps = soap_by_hand(new(), 14, **settings)
    problem = new()
    optimizer = SOAP(
        problem.net.parameters(), lr=3e-3, betas=(0.95, 0.9), weight_decay=0.01, precondition_frequency=3, eps=1e-9
    )
    for k in range(14):
        problem.gradient(k)
        optimizer.step()
        # The package decays before it moves: a difference of second order in the step size; and it factorizes in f32.
        apart = max(abs(a - b) for a, b in zip(problem.flat(), steps[k]))
        assert apart < 2e-5, (k, apart)
    return {"steps": steps}


def k_fac(rescaling):
    ridge, change = 0.01, 19 / 20
    t1, t2, t3, memory, damping = 2, 4, 3, 0.7, 0.05
    problem = Problem([6, 4], 3, ridge)
    names, shapes = zip(*[(n, p.shape) for n, p in problem.net.named_parameters()])
    sizes = [shape.numel() for shape in shapes]
    linear = [m for m in problem.net if isinstance(m, torch.nn.Linear)]
    total = sum(sizes)
    penalized = torch.cat([torch.full((n,), float(len(shape) == 2)) for n, shape in zip(sizes, shapes)])
    gamma, factors, last, inverted = math.sqrt(damping + ridge), None, torch.zeros(total), None
    out = []

    def outputs(flat, x):
        parts = dict(zip(names, (part.view(shape) for part, shape in zip(flat.split(sizes), shapes))))
        return functional_call(problem.net, parts, (x,))

    def second_moments():
        """Sums over examples of the outer products of a layer's inputs and of its derivatives at the data's targets."""
        found = [[0, 0] for _ in linear]
        for x, y in zip(problem.x, problem.y):
            a, inputs, outs = x, [], []
            for m in problem.net:
                if isinstance(m, torch.nn.Linear):
                    inputs.append(torch.cat([a, torch.ones(1)]).detach())
                a = m(a)
                if isinstance(m, torch.nn.Linear):
                    a.retain_grad()
                    outs.append(a)
            torch.nn.functional.cross_entropy(a, y).backward()
            for pair, i, o in zip(found, inputs, outs):
                pair[0] = pair[0] + torch.outer(i, i) / ROWS
                pair[1] = pair[1] + torch.outer(o.grad, o.grad) / ROWS
        return found

    def damped_blocks(gamma):
        blocks = []
        for a, g in factors:
            pi = torch.sqrt((a.trace() / len(a)) / (g.trace() / len(g)))
            # Vectors of [W b] row by row: G (x) A.
            blocks.append(torch.kron(g + gamma / pi * torch.eye(len(g)), a + pi * gamma * torch.eye(len(a))))
        return blocks

    def propose(gradient, blocks):
        parts, step = gradient.split(sizes), []
        for l, block in enumerate(blocks):
            shape = shapes[2 * l]
            v = torch.cat([parts[2 * l].view(shape), parts[2 * l + 1][:, None]], dim=1)
            d = -torch.linalg.solve(block, v.flatten()).view(shape[0], shape[1] + 1)
            step += [d[:, :-1].flatten(), d[:, -1]]
        return torch.cat(step)

    for k in range(1, 13):
        before = problem.gradient()
        gradient = torch.cat([p.grad.flatten() for p in problem.net.parameters()])
        flat = torch.tensor(problem.flat())
        jacobian = vmap(jacrev(outputs), (None, 0))(flat, problem.x)
        p = torch.softmax(vmap(outputs, (None, 0))(flat, problem.x), dim=1)
        hessian = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
        fisher = torch.einsum("nki,nkl,nlj->ij", jacobian, hessian, jacobian) / ROWS + ridge * torch.diag(penalized)
        damped = fisher + damping * torch.eye(total)
        new = second_moments()
        kept = min(1 - 1 / k, memory)
        factors = new if factors is None else [
            [kept * old + (1 - kept) * fresh for old, fresh in zip(olds, freshes)] for olds, freshes in zip(factors, new)
        ]
        tried = [gamma]
        if k % t2 == 0:
            tried = [gamma, change ** (t2 / 2) * gamma, gamma / change ** (t2 / 2)]
        candidates = []
        for g in tried:
            blocks = damped_blocks(g) if k <= 3 or k % t3 == 0 or len(tried) > 1 else inverted
            d = propose(gradient, blocks)
            basis = torch.stack([d, last], dim=1) if rescaling == "momentum" and k > 1 else d[:, None]
            small, slope = basis.T @ damped @ basis, basis.T @ gradient
            shares = -torch.linalg.solve(small, slope)
            candidates.append((0.5 * (slope @ shares).item(), g, blocks, basis @ shares))
        model, gamma, inverted, last = min(candidates, key=lambda c: c[0])
        problem.move(last)
        ratio = None
        if k % t1 == 0:
            ratio = (problem.loss().item() - before) / model
            if ratio < 0.25:
                damping /= change**t1
            elif ratio > 0.75:
                damping *= change**t1
        out.append({"value": before, "damping": damping, "gamma": gamma, "ratio": ratio, "parameters": problem.flat()})
    return {"rescaling": rescaling, "steps": out}


def main():
    numbers = {
        "program": f"torch {torch.__version__}, numpy {np.__version__}",
        "muon": [muon("original"), muon("match-adam")],
        "soap": soap(),
        "k-fac": [k_fac("momentum"), k_fac("alone")],
    }
    path = pathlib.Path(__file__).with_suffix(".json")
    path.write_text(json.dumps(numbers) + "\n")


if __name__ == "__main__":
    main()

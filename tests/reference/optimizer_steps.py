"""Steps of AdamW, schedule-free AdamW, L-BFGS, nonlinear CG, Newton-CG and SAGA on small regressions, by independent programs.

Writes optimizer_steps.json beside itself. The data are formulas that tests/steps.rs repeats. AdamW and L-BFGS are PyTorch's,
schedule-free AdamW is its authors' package; nonlinear CG, Newton-CG and SAGA are written here from their papers in NumPy,
with PyTorch's strong Wolfe line search; optima are scipy's and, for SAGA, scikit-learn's too. Minibatches are consecutive
rows, an epoch's last batch completed from the next epoch.

pip install torch schedulefree numpy scipy scikit-learn
"""

import importlib.metadata
import json
import math
import pathlib

import numpy as np
import schedulefree
import scipy.optimize
import torch
from sklearn.linear_model import LogisticRegression
from torch.optim.lbfgs import _strong_wolfe

ROWS, COLUMNS, BATCH, RIDGE = 60, 4, 7, 0.02
SCALES = [1.0, 6.0, 0.3, 2.0]


def problem(classes):
    x = np.array([[SCALES[c] * math.sin(1 + 3 * r + 7 * c) for c in range(COLUMNS)] for r in range(ROWS)])
    z = np.hstack([np.ones((ROWS, 1)), x.astype(np.float32).astype(np.float64)])
    score = x[:, 0] + 0.2 * x[:, 1] - 2 * x[:, 2] + 1.5 * np.array([math.sin(5 * r * r) for r in range(ROWS)])
    y = (score > 0).astype(int) if classes == 2 else (score > -1).astype(int) + (score > 1)
    return torch.from_numpy(z), torch.from_numpy(y)


class Objective:
    """Mean loss and ridge of logistic regression (two classes) or of a softmax with coefficients for every class."""

    def __init__(self, classes):
        self.classes = classes
        self.z, self.y = problem(classes)
        self.outputs = 1 if classes == 2 else classes
        self.size = self.outputs * (COLUMNS + 1)

    def loss(self, theta, rows=slice(None)):
        """The mean loss over rows."""
        eta = self.z[rows] @ theta.view(self.outputs, -1).T
        if self.outputs == 1:
            target = self.y[rows].to(torch.float64)
            return torch.nn.functional.binary_cross_entropy_with_logits(eta[:, 0], target)
        return torch.nn.functional.cross_entropy(eta, self.y[rows])

    def ridge(self, theta):
        return 0.5 * RIDGE * (theta.view(self.outputs, -1)[:, 1:] ** 2).sum()

    def value(self, theta, rows=slice(None)):
        return self.loss(theta, rows) + self.ridge(theta)

    def value_and_gradient(self, theta, rows=slice(None)):
        at = theta.clone().requires_grad_()
        value = self.value(at, rows)
        return value.item(), torch.autograd.grad(value, at)[0]

    def hessian(self, theta):
        return torch.autograd.functional.hessian(self.value, theta)

    def residuals(self, theta, rows):
        eta = (self.z[rows] @ theta.view(self.outputs, -1).T).numpy()
        if self.outputs == 1:
            return 1 / (1 + np.exp(-eta)) - self.y[rows].numpy()[:, None]
        p = np.exp(eta - eta.max(1, keepdims=True))
        return p / p.sum(1, keepdims=True) - np.eye(self.classes)[self.y[rows].numpy()]


def batches(steps):
    return [[(step * BATCH + i) % ROWS for i in range(BATCH)] for step in range(steps)]


def zeros(objective):
    return torch.zeros(objective.size, dtype=torch.float64)


def adamw(objective, steps, learning_rate, decay, horizon):
    """With a cosine schedule over `horizon` passes."""
    theta = zeros(objective).requires_grad_()
    optimizer = torch.optim.AdamW([theta], lr=learning_rate, betas=(0.8, 0.95), eps=1e-6, weight_decay=decay)
    out = []
    for step, rows in enumerate(batches(steps)):
        passes = (step + 1) * BATCH / ROWS
        optimizer.param_groups[0]["lr"] = learning_rate * 0.5 * (1 + math.cos(math.pi * min(1, passes / horizon)))
        theta.grad = objective.value_and_gradient(theta.detach(), rows)[1]
        optimizer.step()
        out.append(theta.detach().tolist())
    return out


def schedule_free(objective, steps, learning_rate, decay, warm_up):
    """The averages `x`; for the last step also `y` and `z`."""
    theta = zeros(objective).requires_grad_()
    optimizer = schedulefree.AdamWScheduleFree(
        [theta], lr=learning_rate, betas=(0.9, 0.95), eps=1e-6, weight_decay=decay, warmup_steps=warm_up, foreach=False
    )
    out = []
    for rows in batches(steps):
        optimizer.train()
        theta.grad = objective.value_and_gradient(theta.detach(), rows)[1]
        optimizer.step()
        y = theta.detach().tolist()
        optimizer.eval()
        out.append(theta.detach().tolist())
    return {"x": out, "y": y, "z": optimizer.state[theta]["z"].tolist()}


def l_bfgs(objective, steps, history):
    theta = zeros(objective).requires_grad_()
    optimizer = torch.optim.LBFGS(
        [theta], max_iter=1, max_eval=100, tolerance_grad=0, tolerance_change=0, history_size=history,
        line_search_fn="strong_wolfe",
    )
    out = []

    def closure():
        value, theta.grad = objective.value_and_gradient(theta.detach())
        return value

    for _ in range(steps):
        optimizer.step(closure)
        out.append(theta.detach().tolist())
    return out


def nonlinear_cg(objective, steps, restart, curvature):
    """Nocedal and Wright 2006, algorithm 5.4 with equations 5.44, 5.45 and 5.52; first trial steps as their section 3.5."""
    theta = zeros(objective)
    f, g = objective.value_and_gradient(theta)
    d, t = -g, min(1.0, 1.0 / g.abs().sum().item())
    out = []

    def along(x, t, d):
        return objective.value_and_gradient(x + t * d)

    for _ in range(steps):
        slope = g.dot(d)
        f, new, t, _ = _strong_wolfe(along, theta, t, d, f, g, slope, c2=curvature)
        theta = theta + t * d
        beta = max(0.0, (new.dot(new - g) / g.dot(g)).item())
        if abs(new.dot(g)) >= restart * new.dot(new):
            beta = 0.0
        d = -new + beta * d
        if new.dot(d) >= 0:
            d = -new
        t, g = (t * slope / new.dot(d)).item(), new
        out.append(theta.tolist())
    return out


def newton_cg(objective, steps, forcing, iterations):
    """Nocedal and Wright 2006, algorithm 7.1."""
    theta = zeros(objective)
    out = []
    for _ in range(steps):
        f, g = objective.value_and_gradient(theta)
        h = objective.hessian(theta)
        goal = min(forcing, g.norm().sqrt()) * g.norm()
        d, r = torch.zeros_like(g), g.clone()
        p = -r
        for _ in range(iterations):
            if r.norm() <= goal:
                break
            hp = h @ p
            alpha = r.dot(r) / p.dot(hp)
            d = d + alpha * p
            new = r + alpha * hp
            p = -new + new.dot(new) / r.dot(r) * p
            r = new
        t = 1.0
        while objective.value(theta + t * d) > f + 1e-4 * t * g.dot(d):
            t /= 2
        theta = theta + t * d
        out.append(theta.tolist())
    return out


def saga(objective, steps):
    """Defazio, Bach and Lacoste-Julien 2014, equations 1 and 2, on minibatches; the table is full at the start."""
    z = objective.z.numpy()
    most = 0.25 if objective.outputs == 1 else 0.5
    row = most * (z**2).sum(1).max()
    mean = min(row, 1.05 * most * np.linalg.eigvalsh(z.T @ z / ROWS).max())
    n, b = ROWS, BATCH
    constant = n * (b - 1) / (b * (n - 1)) * mean + (n - b) / (b * (n - 1)) * row
    step = 1 / (3 * constant)
    theta = zeros(objective)
    table = objective.residuals(theta, np.arange(ROWS))
    gradients = table[:, :, None] * z[:, None, :]
    out = []
    for rows in batches(steps):
        old = gradients[rows].copy()
        average = gradients.mean(0)
        gradients[rows] = objective.residuals(theta, rows)[:, :, None] * z[rows][:, None, :]
        moved = theta.numpy().reshape(objective.outputs, -1) - step * ((gradients[rows] - old).mean(0) + average)
        moved[:, 1:] /= 1 + step * RIDGE
        theta = torch.from_numpy(moved.reshape(-1).copy())
        out.append(theta.tolist())
    return {"step_size": step, "steps": out}


def optimum(objective):
    def f(theta):
        value, gradient = objective.value_and_gradient(torch.from_numpy(theta.copy()))
        return value, gradient.numpy()

    found = scipy.optimize.minimize(f, np.zeros(objective.size), jac=True, method="BFGS", options={"gtol": 1e-10})
    return {"value": found.fun, "gradient": float(np.abs(found.jac).max())}


def optimum_by_saga(objective):
    model = LogisticRegression(solver="saga", C=1 / (ROWS * RIDGE), tol=1e-12, max_iter=200000, random_state=0)
    model.fit(objective.z[:, 1:].numpy(), objective.y.numpy())
    theta = np.hstack([model.intercept_[:, None], model.coef_])
    return objective.value(torch.from_numpy(theta.reshape(-1).copy())).item()


def main():
    names = ("torch", "schedulefree", "numpy", "scipy", "scikit-learn")
    numbers = {"programs": {name: importlib.metadata.version(name) for name in names}}
    for classes in (2, 3):
        objective = Objective(classes)
        numbers[f"{classes} classes"] = {
            "adamw": adamw(objective, 20, 0.05, 0.1, 3),
            "schedule-free": schedule_free(objective, 20, 0.05, 0.1, 6),
            "l-bfgs": l_bfgs(objective, 12, 3),
            "nonlinear-cg": nonlinear_cg(objective, 12, 0.1, 0.1),
            "newton-cg": newton_cg(objective, 6, 0.3, 3),
            "saga": saga(objective, 30),
            "optimum": optimum(objective),
            "optimum by scikit-learn's saga": optimum_by_saga(objective),
        }
    path = pathlib.Path(__file__).with_suffix(".json")
    path.write_text(json.dumps(numbers, indent=1) + "\n")


if __name__ == "__main__":
    main()

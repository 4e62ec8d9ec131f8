"""Value, gradient and one step of every block of a small Switch layer, by NumPy in double precision.

Writes switch_layer.json beside itself. Data and parameters are formulas that tests/switch_layer.rs repeats. The
gradient comes from central differences of the value, the steps from the equations in src/optim/expert_steps.rs and
src/oracle/experts.rs written out row by row.

pip install numpy
"""

import json
import pathlib

import numpy as np

ROWS, INPUTS, OUTPUTS, HIDDEN, EXPERTS = 90, 4, 3, 5, 3
BALANCE = 0.05
DAMPING, METRIC_DAMPING, PENALTY, INNER = 0.02, 0.3, 0.1, 2
INPUT_STEP, OUTPUT_STEP, ROUTER_STEP = 0.02, 0.03, 0.01


def data():
    r, c = np.arange(ROWS)[:, None], np.arange(INPUTS)
    x = np.sin(1.0 + 3.0 * r + 7.0 * c)
    k = np.arange(OUTPUTS)
    y = np.cos(2.0 * r + 0.5 * k) * x[:, :1] + 0.3 * k + x[:, 1:2] ** 2
    # Stored in single precision.
    x, y = x.astype(np.float32).astype(float), y.astype(np.float32).astype(float)
    x = (x - x.mean(0)) / x.std(0)
    y = (y - y.mean(0)) / np.sqrt(y.var(0).mean())
    return np.hstack([x, np.ones((ROWS, 1))]), y


def parameters():
    length = EXPERTS * (INPUTS + 1) + EXPERTS * (HIDDEN * (INPUTS + 1) + OUTPUTS * (HIDDEN + 1))
    return (0.5 * np.cos(1.3 * np.arange(length) + 0.2)).astype(np.float32).astype(float)


def unpack(theta):
    router, rest = np.split(theta, [EXPERTS * (INPUTS + 1)])
    experts = []
    for own in np.split(rest, EXPERTS):
        u, v = np.split(own, [HIDDEN * (INPUTS + 1)])
        experts.append((u.reshape(HIDDEN, INPUTS + 1), v.reshape(OUTPUTS, HIDDEN + 1)))
    return router.reshape(EXPERTS, INPUTS + 1), experts


def softmax(u):
    e = np.exp(u - u.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def output(x, p, expert):
    u, v = expert
    return p * (v @ np.append(np.maximum(u @ x, 0), 1))


def value(theta, x, y, chosen, shares):
    router, experts = unpack(theta)
    p = softmax(x @ router.T)
    f = np.array([output(x[i], p[i, k], experts[k]) for i, k in enumerate(chosen)])
    return 0.5 * ((y - f) ** 2).sum(1).mean() + BALANCE * EXPERTS * (shares * p.mean(0)).sum()


def damped_inverse(matrix, share):
    return np.linalg.inv(matrix + share * np.trace(matrix) / len(matrix) * np.eye(len(matrix)))


def steps(theta, x, y, chosen, shares, variant, signal):
    """The change of all parameters by one step without momentum, caps and halving."""
    router, experts = unpack(theta)
    p = softmax(x @ router.T)
    changes, residuals = [], np.zeros((ROWS, OUTPUTS))
    for k, (u, v) in enumerate(experts):
        rows = np.flatnonzero(chosen == k)
        gram_x, gram_a = np.zeros((INPUTS + 1, INPUTS + 1)), np.zeros((HIDDEN + 1, HIDDEN + 1))
        masks = np.zeros((HIDDEN, HIDDEN))
        right_u, right_v = np.zeros_like(u), np.zeros_like(v)
        square = v[:, :-1].T @ v[:, :-1]
        for i in rows:
            z = u @ x[i]
            mask = (z > 0).astype(float)
            gate = p[i, k]
            a = gate * np.append(np.maximum(z, 0), 1)
            r = y[i] - v @ a
            residuals[i] = r
            delta = gate * mask * (v[:, :-1].T @ r)
            if variant == "admm":
                beta = PENALTY * np.trace(square) / HIDDEN
                delta = conjugate_gradients(beta * np.eye(HIDDEN) + gate**2 * np.outer(mask, mask) * square, delta)
            right_u += np.outer(delta, x[i])
            right_v += np.outer(r, a)
            gram_x += np.outer(x[i], x[i])
            gram_a += np.outer(a, a)
            masks += gate**2 * np.outer(mask, mask)
        m = len(rows)
        step_u = right_u / m @ damped_inverse(gram_x / m, DAMPING)
        if variant == "irls":
            step_u = damped_inverse(masks / m * square, METRIC_DAMPING) @ step_u
        step_v = right_v / m @ damped_inverse(gram_a / m, DAMPING)
        scale = [min(1.0, m / (2 * width)) for width in (INPUTS + 1, HIDDEN + 1)]
        changes.append(np.append(INPUT_STEP * scale[0] * step_u, OUTPUT_STEP * scale[1] * step_v))
    if signal == "loss":
        moved = np.zeros((ROWS, EXPERTS))
        phi = BALANCE * EXPERTS * shares
        for i, k in enumerate(chosen):
            along = -residuals[i] @ output(x[i], 1.0, experts[k])
            one = np.eye(EXPERTS)[k]
            moved[i] = -(along * p[i, k] * (one - p[i]) + p[i] * (phi - phi @ p[i]))
    else:
        variance = (residuals**2).mean()
        errors = np.array([[((y[i] - output(x[i], p[i, j], experts[j])) ** 2).sum() for j in range(EXPERTS)] for i in range(ROWS)])
        moved = softmax(np.log(p) - errors / (2 * variance)) - p
    step_r = 2 * ROUTER_STEP * (moved.T @ x / ROWS) @ damped_inverse(x.T @ x / ROWS, DAMPING)
    return np.concatenate([step_r.ravel(), *changes])


def conjugate_gradients(matrix, right):
    delta, residual = np.zeros_like(right), right.copy()
    direction = residual.copy()
    for _ in range(INNER):
        if residual @ residual == 0:
            break
        image = matrix @ direction
        length = residual @ residual / (direction @ image)
        delta = delta + length * direction
        new = residual - length * image
        direction = new + new @ new / (residual @ residual) * direction
        residual = new
    return delta


def main():
    x, y = data()
    theta = parameters()
    chosen = softmax(x @ unpack(theta)[0].T).argmax(1)
    shares = np.bincount(chosen, minlength=EXPERTS) / ROWS
    assert shares.min() > 0, shares
    gradient = np.zeros_like(theta)
    for i in range(len(theta)):
        e = np.zeros_like(theta)
        e[i] = 1e-6
        gradient[i] = (value(theta + e, x, y, chosen, shares) - value(theta - e, x, y, chosen, shares)) / 2e-6
    numbers = {
        "chosen": chosen.tolist(),
        "value": value(theta, x, y, chosen, shares),
        "gradient": gradient.tolist(),
        "irls": steps(theta, x, y, chosen, shares, "irls", "loss").tolist(),
        "irls_responsibilities": steps(theta, x, y, chosen, shares, "irls", "responsibilities").tolist(),
        "admm": steps(theta, x, y, chosen, shares, "admm", "loss").tolist(),
    }
    pathlib.Path(__file__).with_suffix(".json").write_text(json.dumps(numbers) + "\n")


main()

"""NumPy's side of benches/layerwise.rs: reads questions "variant rows", answers mean seconds of a sweep or a pass.

Single precision throughout but for the small systems, as a careful user would write it. pip install numpy
"""

import sys
import time

import numpy as np

ROWS, COLUMNS, UNITS = 31_296, 28, 300


def data():
    rng = np.random.default_rng(1)
    x = rng.standard_normal((COLUMNS, ROWS), dtype=np.float32)
    y = (x[0] * x[1] + 0.3 * x[2] > 0.1).astype(np.float32)
    return np.vstack([x, np.ones((1, ROWS), np.float32)]), y


def solved(right, gram, ridge):
    matrix = gram.astype(np.float64) + ridge * np.eye(len(gram))
    return np.linalg.solve(matrix, right.T.astype(np.float64)).T.astype(np.float32)


class Taylor:
    """Algorithm 1 of Taylor et al. 2016 with biases and the logistic loss; an example a column."""

    def __init__(self, x, y, beta=1.0, gamma=10.0):
        rng = np.random.default_rng(2)
        self.x, self.y, self.beta, self.gamma = x, y, beta, gamma
        self.z1 = rng.standard_normal((UNITS, ROWS), dtype=np.float32)
        self.a = np.ones((UNITS + 1, ROWS), np.float32)
        self.a[:-1] = rng.standard_normal((UNITS, ROWS), dtype=np.float32)
        self.z2 = rng.standard_normal(ROWS, dtype=np.float32)
        self.multiplier = np.zeros(ROWS, np.float32)
        self.w2 = rng.standard_normal((1, UNITS + 1)).astype(np.float32)
        self.gram = x @ x.T

    def sweep(self, moves=False):
        beta, gamma = self.beta, self.gamma
        w1 = solved(self.z1 @ self.x.T, self.gram, 1e-6 * ROWS)
        w, bias = self.w2[:, :-1], self.w2[0, -1]
        system = np.linalg.inv(beta * (w.T @ w).astype(np.float64) + gamma * np.eye(UNITS)).astype(np.float32)
        self.a[:-1] = system @ (gamma * np.maximum(self.z1, 0) + beta * (w.T * (self.z2 - bias)))
        a, m = self.a[:-1], w1 @ self.x
        above = np.maximum((gamma * a + beta * m) / (gamma + beta), 0)
        below = np.minimum(m, 0)
        cost_above = gamma * (a - above) ** 2 + beta * (above - m) ** 2
        cost_below = gamma * a**2 + beta * (below - m) ** 2
        self.z1 = np.where(cost_above < cost_below, above, below)
        self.w2 = solved((self.a @ self.z2)[None], self.a @ self.a.T, 1e-6 * ROWS)
        m2 = (self.w2 @ self.a)[0]
        z = m2
        for _ in range(4):
            p = 1 / (1 + np.exp(-z))
            gradient = p - self.y + self.multiplier + 2 * beta * (z - m2)
            z = z - gradient / (p * (1 - p) + 2 * beta)
        self.z2 = z.astype(np.float32)
        if moves:
            self.multiplier += beta * (self.z2 - m2)


class Proximal:
    """The minibatch method of docs/methods.md, one hidden layer, one logistic output."""

    def __init__(self, x, y):
        rng = np.random.default_rng(2)
        self.x, self.y, self.rng = x, y, rng
        self.gram = (x @ x.T / ROWS).astype(np.float64)
        noise = rng.standard_normal((UNITS, ROWS), dtype=np.float32)
        self.w1 = solved(noise @ x.T / ROWS, self.gram, 1e-4)
        self.inverse = np.linalg.inv(self.gram + 1e-4 * np.eye(COLUMNS + 1)).astype(np.float32)
        self.w2 = np.zeros(UNITS + 1, np.float32)
        self.h = np.zeros((UNITS + 1, UNITS + 1), np.float32)
        self.beta = 0.1

    def step(self, index, renew):
        x, y = self.x[:, index], self.y[index]
        m = self.w1 @ x
        on = m > 0
        a = np.vstack([np.where(on, m, 0), np.ones((1, len(index)), np.float32)])
        s0 = self.w2 @ a
        q = np.maximum((self.w2[:-1] ** 2) @ on, 1e-12)
        s = s0
        for _ in range(4):
            p = 1 / (1 + np.exp(-s))
            s = s - (p - y + self.beta / q * (s - s0)) / (p * (1 - p) + self.beta / q)
        t = (s - s0) / q
        e = (on * self.w2[:-1, None]) * t
        self.w1 += 2 * ((e @ x.T / len(index)) @ self.inverse)
        p = 1 / (1 + np.exp(-s0))
        if renew:
            h = (a * (p * (1 - p))) @ a.T / len(index)
            self.h = 0.6 * self.h + 0.4 * h
            damped = self.h.astype(np.float64) + 1e-3 * np.eye(UNITS + 1)
            self.factor = np.linalg.inv(damped).astype(np.float32)
        self.w2 += 0.02 * (self.factor @ (a @ (y - p) / len(index) - 1e-3 * self.w2))

    def run(self, rows):
        order = self.rng.permutation(ROWS)
        for i in range(ROWS // rows):
            self.step(order[i * rows : (i + 1) * rows], i % 5 == 0)
        self.beta *= 1.05


def main():
    x, y = data()
    for line in sys.stdin:
        variant, rows = line.split()
        method = Taylor(x, y) if variant == "taylor" else Proximal(x, y)
        call = method.sweep if variant == "taylor" else lambda: method.run(int(rows))
        call()
        start, calls = time.perf_counter(), 5
        for _ in range(calls):
            call()
        print((time.perf_counter() - start) / calls, flush=True)


if __name__ == "__main__":
    main()

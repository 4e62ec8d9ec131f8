"""Mixtures of experts, by definition: values, gradients, squared gradients, products with information matrices, one optimum.

Writes mixture.json beside itself. Data, parameters and directions are formulas that tests/mixture.rs repeats. Probabilities
are multiplied and added as they are written; derivatives are complex steps, exact to rounding, of which no formula of the
program is needed: log P(c) has the derivatives s_c, the information of what is observed is the mean of sum_c P(c) s_c s_c',
that of the complete data the Hessian of -sum_k h_k log(g_k P_k(y)) with the responsibilities h held.

pip install numpy scipy
"""

import json
import pathlib

import numpy as np
import scipy.optimize

CASES = [
    # experts, hidden, classes, routing, balance
    (3, 0, 2, "soft", 0.0),
    (2, 0, 3, "soft", 0.0),
    (3, 4, 2, "soft", 0.0),
    (2, 3, 3, "soft", 0.0),
    (3, 0, 2, "top-1", 0.05),
    (2, 3, 3, "top-1", 0.05),
]


def wave(rows, columns):
    r, c = np.arange(rows)[:, None], np.arange(columns)[None, :]
    return np.sin(1.0 + 3.0 * r + 7.0 * c).astype(np.float32).astype(np.float64)


class Mixture:
    """Parameters in the order of the layout: gate, then expert by expert, weights row by row before biases."""

    def __init__(self, x, y, experts, hidden, classes, routing, balance, ridge=0.0):
        self.x, self.y, self.experts, self.hidden = x, y, experts, hidden
        self.outputs, self.routing, self.balance, self.ridge = classes - 1, routing, balance, ridge
        d = x.shape[1]
        shapes = [(experts, d)]
        for _ in range(experts):
            shapes += [(hidden, d), (self.outputs, hidden)] if hidden else [(self.outputs, d)]
        self.shapes = shapes
        self.size = sum(rows * (columns + 1) for rows, columns in shapes)

    def parts(self, theta):
        at = 0
        for rows, columns in self.shapes:
            weight = theta[at : at + rows * columns].reshape(rows, columns)
            at += rows * columns
            yield weight, theta[at : at + rows]
            at += rows

    def gate_and_outputs(self, theta):
        (v, a), *experts = self.parts(theta)
        e = np.exp(self.x @ v.T + a)
        gate = e / e.sum(axis=1, keepdims=True)
        outputs = []
        for k in range(self.experts):
            if self.hidden:
                (u, b), (w, c) = experts[2 * k], experts[2 * k + 1]
                h = self.x @ u.T + b
                outputs.append((h * (h.real > 0)) @ w.T + c)
            else:
                u, b = experts[k]
                outputs.append(self.x @ u.T + b)
        return gate, outputs

    @staticmethod
    def softmax(outputs):
        e = np.exp(np.hstack([np.zeros((len(outputs), 1)), outputs]))
        return e / e.sum(axis=1, keepdims=True)

    def probabilities(self, theta):
        gate, outputs = self.gate_and_outputs(theta)
        if self.routing == "soft":
            return sum(gate[:, k : k + 1] * self.softmax(o) for k, o in enumerate(outputs))
        answers = gate.real.argmax(axis=1)
        rows = np.arange(len(answers))
        o = np.stack(outputs, axis=1)[rows, answers]
        return self.softmax(gate[rows, answers][:, None] * o)

    def row_values(self, theta):
        """What the mean over rows is of, the balance with its shares held included."""
        loss = -np.log(self.probabilities(theta)[np.arange(len(self.y)), self.y])
        if self.balance:
            gate, _ = self.gate_and_outputs(theta)
            shares = np.bincount(gate.real.argmax(axis=1), minlength=self.experts) / len(self.y)
            loss = loss + self.balance * self.experts * gate @ shares
        return loss

    def weights(self):
        marks = []
        for rows, columns in self.shapes:
            marks += [1.0] * (rows * columns) + [0.0] * rows
        return np.array(marks)

    def value(self, theta):
        return self.row_values(theta).mean() + 0.5 * self.ridge * (self.weights() * theta**2).sum()

    def derivative(self, function, theta):
        """Complex steps: one slice for each parameter, last axis."""
        slices = []
        for i in range(self.size):
            moved = theta.astype(complex)
            moved[i] += 1e-30j
            slices.append(function(moved).imag / 1e-30)
        return np.stack(slices, axis=-1)

    def gradient(self, theta):
        return self.derivative(self.value, theta)

    def information(self, theta):
        p = self.probabilities(theta).real
        s = self.derivative(lambda t: np.log(self.probabilities(t)), theta)
        return np.einsum("ic,icj,ick->jk", p, s, s) / len(self.y)

    def complete(self, theta):
        rows = np.arange(len(self.y))

        def joint(t):
            gate, outputs = self.gate_and_outputs(t)
            fits = np.stack([self.softmax(o)[rows, self.y] for o in outputs], axis=1)
            return gate * fits

        h = joint(theta).real
        h /= h.sum(axis=1, keepdims=True)
        slope = lambda t: self.derivative(lambda u: -(h * np.log(joint(u))).sum(axis=1).mean(), t)
        step = 1e-5
        hessian = [(slope(theta + step * e) - slope(theta - step * e)) / (2 * step) for e in np.eye(self.size)]
        return np.array(hessian), h


def case(experts, hidden, classes, routing, balance):
    rows, columns = 37, 4
    r = np.arange(rows)
    model = Mixture(wave(rows, columns), (r * r + r // 2) % classes, experts, hidden, classes, routing, balance)
    i = np.arange(model.size)
    theta, along = 0.5 * np.cos(1.3 * i + 0.2), np.sin(0.7 * i + 1.0)
    answer = {
        "experts": experts,
        "hidden": hidden,
        "classes": classes,
        "routing": routing,
        "balance": balance,
        "value": model.value(theta),
        "gradient": model.gradient(theta).tolist(),
        "squares": (model.derivative(model.row_values, theta) ** 2).mean(axis=0).tolist(),
        "product": (model.information(theta) @ along).tolist(),
    }
    if routing == "soft" and not hidden:
        complete, h = model.complete(theta)
        answer["complete_product"] = (complete @ along).tolist()
        answer["responsibilities"] = h[:3].ravel().tolist()
    return answer


def optimum():
    """Two experts on rows whose rule changes sign with the second column, with a ridge."""
    rows = 400
    x = wave(rows, 3)
    y = (x[:, 0] * np.sign(x[:, 1]) + 0.8 * np.sin(5.7 * np.arange(rows)) > 0).astype(int)
    model = Mixture(x, y, 2, 0, 2, "soft", 0.0, ridge=1e-3)
    start = 0.5 * np.cos(1.3 * np.arange(model.size) + 0.2)
    real = lambda t: float(np.real(model.value(t)))
    fit = scipy.optimize.minimize(real, start, jac=model.gradient, method="BFGS", options={"gtol": 1e-9, "maxiter": 2000})
    theta = fit.x
    for _ in range(5):
        step = 1e-5
        hessian = np.array(
            [
                (model.gradient(theta + step * e) - model.gradient(theta - step * e)) / (2 * step)
                for e in np.eye(model.size)
            ]
        )
        # The biases of the gate can move together.
        theta = theta - np.linalg.lstsq(hessian, model.gradient(theta), rcond=1e-9)[0]
    assert np.abs(model.gradient(theta)).max() < 1e-12 and np.linalg.eigvalsh(hessian)[1] > 1e-5
    return {"value": real(theta), "parameters": theta.tolist()}


if __name__ == "__main__":
    numbers = {"cases": [case(*c) for c in CASES], "optimum": optimum()}
    path = pathlib.Path(__file__).with_suffix(".json")
    path.write_text(json.dumps(numbers, indent=1) + "\n")

//! Gradient descent with Barzilai and Borwein's step size (1988, equation 5), and the whole command line over it:
//! `theta -= a g` with `a = <s, s>/<s, y>`, `s` and `y` the last changes of `theta` and of the full gradient `g`.

use parsimony::optim::{Optimizer, OptimizerEntry, StateVisitor, Step};
use parsimony::oracle::{Capability, Oracle, Rows, Setting, Vector};
use parsimony::{Result, Workbench};

const ENTRY: OptimizerEntry = OptimizerEntry {
    name: "barzilai-borwein",
    summary: "gradient descent whose step size follows the last two gradients",
    paper: "Barzilai and Borwein 1988",
    needs: &[Capability::Gradient],
    stochastic: false,
    settings: &[
        Setting::real("first_step", "0.1", 1e-12, 1e6, "step size of the first step").log(),
        Setting::real("tolerance", "1e-7", 0.0, 1.0, "converged when the gradient's largest element is below").log(),
    ],
    build: |s| {
        Ok(Box::new(BarzilaiBorwein { size: s.real("first_step"), tolerance: s.real("tolerance"), last: vec![] }))
    },
};

struct BarzilaiBorwein {
    size: f64,
    tolerance: f64,
    /// The last point and the gradient there; empty before the first step.
    last: Vec<Vector>,
}

impl Optimizer for BarzilaiBorwein {
    fn step(&mut self, oracle: &mut Oracle<'_>, parameters: &mut Vector) -> Result<Step> {
        let mut gradient = parameters.zeros_like();
        let value = oracle.value_and_gradient(parameters, Rows::All, &mut gradient)?;
        oracle.finite("the objective", value)?;
        if gradient.norm_max() <= self.tolerance {
            return Ok(Step::Converged(format!("gradient {:.1e}", gradient.norm_max())));
        }
        if let [point, old] = &mut self.last[..] {
            point.axpby(-1.0, 1.0, parameters); // s
            old.axpby(-1.0, 1.0, &gradient); // y
            self.size = if point.dot(old) > 0.0 { point.dot(point) / point.dot(old) } else { self.size };
        }
        self.last = vec![parameters.clone(), gradient.clone()];
        parameters.axpy(-self.size, &gradient);
        oracle.note("step_size", self.size);
        Ok(Step::Continue)
    }

    fn visit_state(&mut self, visitor: &mut dyn StateVisitor) {
        visitor.number("size", &mut self.size);
        visitor.vectors("last", &mut self.last);
    }
}

fn main() -> std::process::ExitCode {
    Workbench::standard().with_optimizer(ENTRY).main()
}

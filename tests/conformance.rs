//! The conformance suite: every registered optimizer passes, and each way of breaking one fails with its reason.

#[path = "support/program.rs"]
mod program;

use parsimony::experiment::conformance::{self, Report, Verdict};
use parsimony::optim::{Optimizer, OptimizerEntry, Promises, Size, StateVisitor, Step};
use parsimony::oracle::{Capability, Oracle, Rows, Setting, Settings, Vector};
use parsimony::{Result, Workbench};
use program::Place;

#[test]
fn every_registered_optimizer_passes() {
    let workbench = Workbench::standard();
    for entry in &workbench.optimizers {
        for report in conformance::check(&workbench, entry) {
            assert!(report.passed(), "{report:#?}");
            assert!(report.checks.len() == 9 && report.count(Verdict::Passed) >= 7, "{report:#?}");
        }
    }
}

/// Gradient descent with momentum on minibatches, right but for one fault.
struct Descent<const FAULT: u8> {
    velocity: Vec<Vector>,
    taken: u64,
}

const NONE: u8 = 0;
const HIDES_STATE: u8 = 1;
const COUNTS_TWICE: u8 = 2;
const ASKS_FOR_MORE: u8 = 3;
const IGNORES_ITS_SEED: u8 = 4;
const DRAWS_IN_SECRET: u8 = 5;
const COSTS_MORE: u8 = 6;
const SWALLOWS_NAN: u8 = 7;
const STANDS_STILL: u8 = 8;
const PANICS: u8 = 9;
const VISIT_CHANGES: u8 = 10;

const BATCH: usize = 200;

impl<const FAULT: u8> Optimizer for Descent<FAULT> {
    fn start(&mut self, _: &mut Oracle<'_>, parameters: &Vector) -> Result<()> {
        self.velocity = vec![parameters.zeros_like()];
        Ok(())
    }

    fn step(&mut self, oracle: &mut Oracle<'_>, parameters: &mut Vector) -> Result<Step> {
        assert!(FAULT != PANICS, "a mistake");
        let mut gradient = parameters.zeros_like();
        if FAULT == ASKS_FOR_MORE {
            // The refusal is swallowed: it must be noticed all the same.
            let _ = oracle.value(parameters, Rows::All);
        }
        let batch = oracle.next_batch(BATCH);
        let all = matches!(FAULT, IGNORES_ITS_SEED | COSTS_MORE);
        let rows = if all { Rows::All } else { Rows::Batch(&batch) };
        let value = oracle.value_and_gradient(parameters, rows, &mut gradient)?;
        if FAULT == SWALLOWS_NAN {
            if !value.is_finite() {
                return Ok(Step::Stopped("there is nothing more to do".into()));
            }
        } else {
            oracle.finite("the minibatch objective", value)?;
        }
        self.taken += 1;
        let velocity = &mut self.velocity[0];
        velocity.axpby(0.5, if FAULT == STANDS_STILL { -1e-9 } else { -0.2 }, &gradient);
        parameters.axpy(1.0, velocity);
        Ok(Step::Continue)
    }

    fn promises(&self, size: &Size<'_>) -> Promises {
        let batch = BATCH as f64 / size.rows as f64;
        Promises { step_gradients: Some(if FAULT == IGNORES_ITS_SEED { 1.0 } else { batch }), ..Promises::default() }
    }

    fn visit_state(&mut self, visitor: &mut dyn StateVisitor) {
        if FAULT == VISIT_CHANGES {
            self.taken += 1;
        }
        visitor.count("taken", &mut self.taken);
        if FAULT != HIDES_STATE {
            visitor.vectors("velocity", &mut self.velocity);
        }
        if FAULT == COUNTS_TWICE {
            visitor.vectors("velocity", &mut self.velocity);
        }
    }
}

const fn entry<const FAULT: u8>() -> OptimizerEntry {
    OptimizerEntry {
        name: "descent",
        summary: "gradient descent with momentum",
        paper: "Polyak 1964",
        needs: &[Capability::Gradient],
        stochastic: FAULT != DRAWS_IN_SECRET,
        settings: &[],
        build: |_: &Settings| Ok(Box::new(Descent::<FAULT> { velocity: Vec::new(), taken: 0 })),
    }
}

fn report(entry: &OptimizerEntry) -> Report {
    conformance::check(&Workbench::standard(), entry).remove(0)
}

/// The details of the checks that failed, by their names.
fn failures(entry: &OptimizerEntry) -> Vec<(&'static str, String)> {
    let failed = report(entry).checks.into_iter().filter(|check| check.verdict == Verdict::Failed);
    failed.map(|check| (check.name, check.detail)).collect()
}

#[test]
fn each_fault_fails_with_its_reason() {
    assert_eq!(failures(&entry::<NONE>()), []);
    for (entry, check, reason) in [
        (entry::<HIDES_STATE>(), "resume", "not shown to `visit_state`"),
        (entry::<HIDES_STATE>(), "state bytes", "up to 8 bytes are shown, but they are not all of the state"),
        (entry::<COUNTS_TWICE>(), "state bytes", "shows `velocity` twice"),
        (entry::<VISIT_CHANGES>(), "state bytes", "a visit of its state changes"),
        (entry::<ASKS_FOR_MORE>(), "capabilities", "asked for the value, which it does not declare"),
        (entry::<IGNORES_ITS_SEED>(), "seed", "seeds 1 and 2 give the same bits"),
        (entry::<DRAWS_IN_SECRET>(), "seed", "says that it draws nothing"),
        (entry::<COSTS_MORE>(), "step cost", "0.3333 are promised"),
        (entry::<SWALLOWS_NAN>(), "not a number", "ended by itself (there is nothing more to do)"),
        (entry::<STANDS_STILL>(), "convex optimum", "is promised"),
        (entry::<PANICS>(), "determinism", "it panicked: a mistake"),
    ] {
        let failures = failures(&entry);
        let detail = failures.iter().find(|(name, _)| *name == check).map(|(_, detail)| detail);
        assert!(detail.is_some_and(|detail| detail.contains(reason)), "{check}: {failures:?}");
    }
}

#[test]
fn settings_that_are_not_documented_fail() {
    const BAD: [(&[Setting], &str); 6] = [
        (&[Setting::real("rate", "0.1", 0.0, 1.0, "")], "nothing says what it does"),
        (&[Setting::real("rate", "2", 0.0, 1.0, "step size")], "its default 2 is not a number from 0 to 1"),
        (&[Setting::whole("rows", "many", 0, 9, "rows")], "its default many is not"),
        (&[Setting::real("Rate", "0.1", 0.0, 1.0, "step size")], "small letters"),
        (&[Setting::real("rate", "0.1", 0.0, 1.0, "step size").search(0.5, 2.0)], "not within its range"),
        (&[Setting::switch("a", "true", "x"), Setting::switch("a", "true", "x")], "declared twice"),
    ];
    for (settings, reason) in BAD {
        let report = report(&OptimizerEntry { settings, ..entry::<NONE>() });
        let [check] = &report.checks[..] else { panic!("{report:?}") };
        assert!(!report.passed() && check.detail.contains(reason), "{check:?}");
    }
}

#[test]
fn the_verb_reads_like_a_test_report_and_its_exit_code_tells() {
    let place = Place::new();
    let text = place.succeed(&["check", "sgd", "irls"]);
    assert!(text.contains("  ok    determinism     the same bits again, with 1 and with 2 threads"), "{text}");
    assert!(text.lines().last().is_some_and(|line| line.contains(" passed, 0 failed, ")), "{text}");
    let reports: serde_json::Value =
        serde_json::from_str(&place.succeed(&["check", "sgd", "--format", "json"])).expect("JSON");
    assert_eq!(reports[0]["optimizer"], "sgd");
    assert_eq!(reports[0]["checks"][0]["verdict"], "passed");
    assert!(place.fail(2, &["check", "sgdd"]).contains("did you mean `sgd`"));
}

//! Corpora through plan and cell, with the smallest language model there is: one logit a token, whatever came before.

use super::cell;
use super::plan::Plan;
use super::record::{CellConfig, CellFolder, CellResult, Status, write_json};
use super::spec::Spec;
use crate::data::Sequences;
use crate::error::Result;
use crate::model::{
    Build, Evaluation, Model, ModelEntry, ParameterCounts, RowOutcomes, Split, TextData, TokenLosses, Weights,
};
use crate::oracle::{Answer, Cost, Gradient, Layout, Offer, Problem, Rows, Setting, Vector};
use crate::workbench::Workbench;
use rand_chacha::ChaCha8Rng;
use std::path::Path;
use std::sync::Arc;

const UNIGRAM: ModelEntry = ModelEntry {
    name: "unigram",
    summary: "one logit a token",
    paper: "none",
    settings: &[Setting::whole("context", "16", 1, 1 << 20, "tokens of a sequence")],
    random_start: false,
    build: Build::Text(|data, settings| Ok(Box::new(Unigram::new(data, settings.whole("context"))?))),
    predictor: |_| Err(crate::Error::Numeric("it predicts nothing".into())),
};

struct Unigram {
    layout: Arc<Layout>,
    train: Sequences,
    evaluated: [Sequences; 3],
}

impl Unigram {
    fn new(data: &TextData, context: usize) -> Result<Self> {
        let parts = [Split::Train, Split::Validation, Split::Test];
        let [train, validation, test] = parts.map(|part| data.evaluation(part, context));
        Ok(Self {
            layout: Layout::new([("logits", 1, data.corpus.vocabulary_size())]),
            train: data.training(context)?,
            evaluated: [train?, validation?, test?],
        })
    }

    fn losses(at: &Vector) -> Vec<f32> {
        let largest = at.host().iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let total: f64 = at.host().iter().map(|logit| (logit - largest).exp()).sum();
        at.host().iter().map(|logit| (total.ln() + largest - logit) as f32).collect()
    }

    fn sum(&self, at: &Vector, part: Split) -> TokenLosses {
        let sequences = &self.evaluated[part as usize];
        let (losses, mut sums) = (Self::losses(at), TokenLosses::default());
        let (mut inputs, mut targets) = (vec![0; sequences.context()], vec![0; sequences.context()]);
        for sequence in 0..sequences.count() {
            sequences.read(sequence, &mut inputs, &mut targets);
            let found = targets.iter().enumerate();
            sums.add(sequences, sequence, found.map(|(i, &target)| (i + 1, losses[target as usize], false)));
        }
        sums
    }
}

impl Problem for Unigram {
    fn layout(&self) -> &Arc<Layout> {
        &self.layout
    }
    fn rows(&self) -> usize {
        self.train.count()
    }
    fn gradient_flops(&self) -> f64 {
        1.0
    }
    fn initial(&self, _: &mut ChaCha8Rng) -> Vector {
        Vector::zeros(&self.layout)
    }
    fn gradient(&self) -> Offer<&dyn Gradient> {
        Ok(self)
    }
}

impl Gradient for Unigram {
    fn value_and_gradient(&self, at: &Vector, rows: Rows<'_>, gradient: &mut Vector) -> Result<Answer<f64>> {
        let rows: Vec<usize> = match rows {
            Rows::Batch(batch) => batch.rows().iter().map(|&row| row as usize).collect(),
            Rows::All | Rows::Part { .. } => (0..self.train.count()).collect(),
        };
        let context = self.train.context();
        let (losses, mut value) = (Self::losses(at), 0.0);
        let weight = 1.0 / (rows.len() * context) as f64;
        let (mut inputs, mut targets) = (vec![0; context], vec![0; context]);
        let slopes = gradient.host_mut();
        slopes.iter_mut().zip(&losses).for_each(|(slope, loss)| *slope = (-f64::from(*loss)).exp());
        for &row in &rows {
            self.train.read(row, &mut inputs, &mut targets);
            for &target in &targets {
                value += weight * f64::from(losses[target as usize]);
                slopes[target as usize] -= weight;
            }
        }
        Ok(Answer { value, cost: Cost { rows: rows.len() as u64, flops: 1.0, bytes: 1.0 } })
    }
}

impl Model for Unigram {
    fn evaluate(&self, parameters: &Vector, split: Split) -> Result<Evaluation> {
        Ok(self.sum(parameters, split).evaluation())
    }
    fn row_outcomes(&self, parameters: &Vector, split: Split) -> Result<Option<RowOutcomes>> {
        Ok(Some(self.sum(parameters, split).row_outcomes()))
    }
    fn objective(&self, parameters: &Vector) -> Result<(f64, Option<f64>)> {
        Ok((self.evaluate(parameters, Split::Train)?.loss.unwrap_or(f64::NAN), None))
    }
    fn parameter_counts(&self, parameters: &Vector) -> ParameterCounts {
        let total = parameters.len() as u64;
        ParameterCounts { total, active: total, nonzero: parameters.nonzero() as u64, bytes: parameters.bytes() }
    }
    fn weights(&self, parameters: &Vector) -> Weights {
        let mut weights = Weights::default();
        weights.tensors.insert("logits".into(), (vec![parameters.len()], parameters.to_host()));
        weights
    }
    fn is_convex(&self) -> bool {
        false
    }
}

fn plan(text: &str, folder: &Path) -> Result<Plan> {
    let workbench = Workbench::standard().with_model(UNIGRAM);
    let spec = Spec::parse(text, &folder.join("test.toml"), &workbench)?;
    Plan::new(&spec, &workbench, &|_, _| ())
}

fn run(config: &CellConfig, folder: &Path) -> CellResult {
    std::fs::create_dir_all(folder).unwrap();
    write_json(&CellFolder::new(folder).config(), config).unwrap();
    cell::run(&Workbench::standard().with_model(UNIGRAM), folder, None).unwrap()
}

const SMALL: &str = "budget = '150 steps'\nthreads = 1\n[[dataset]]\nname = 'small-language'\nlength = 60_000\n\
                     facts = 20\nevaluation_tokens = 4000\n[[model]]\nname = 'unigram'\n[[model]]\nname = 'logistic'\n\
                     [[optimizer]]\nname = 'sgd'\nlearning_rate = 5.0\nbatch_size = 64\n";

#[test]
fn a_language_model_is_trained_on_a_corpus_and_a_regression_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let plan = plan(SMALL, folder.path()).unwrap();
    assert_eq!((plan.cells.len(), plan.skipped.len()), (1, 1));
    assert!(plan.skipped[0].reason.contains("logistic takes rows of features"), "{}", plan.skipped[0].reason);
    let dataset = &plan.cells[0].dataset;
    assert!(dataset.text && !dataset.simulated);
    assert_eq!(dataset.rows, [54_000, 3000, 3000]);

    let result = run(&plan.cells[0], &folder.path().join("cell"));
    assert_eq!(result.status, Status::Finished, "{}", result.reason);
    let loss = result.test_loss.unwrap();
    // Below a uniform guess, above the entropy.
    assert!(loss < 4.6 && loss > 2.0, "{loss}");
    let [grammar, fact, sum] =
        [result.test_grammar_loss, result.test_fact_loss, result.test_sum_loss].map(Option::unwrap);
    assert!(fact > grammar && fact > sum, "{grammar} {fact} {sum}");
    let bits = result.test_bits_per_character.unwrap();
    assert!(bits > 0.5 && bits < loss / std::f64::consts::LN_2, "{bits}");
    assert!(result.validation_fact_loss.is_some() && result.validation_bits_per_character.is_some());
    let smallest = super::trace::smallest(&folder.path().join("cell/trace.parquet"), "test_fact_loss").unwrap();
    assert!(smallest.is_some_and(|smallest| smallest <= fact));
    // The same seed, the same numbers.
    let again = run(&plan.cells[0], &folder.path().join("again"));
    assert_eq!(
        (again.test_loss, again.test_fact_loss, again.objective),
        (result.test_loss, result.test_fact_loss, result.objective)
    );
}

#[test]
fn a_text_of_ones_own_is_split_by_position_and_counted_in_bits_per_character() {
    let folder = tempfile::tempdir().unwrap();
    // Two equally frequent characters of two bytes: one bit each, whatever they are cut into.
    let text: String = (0..4000_u32).map(|i| if (i * i / 7) % 2 == 0 { '\u{e9}' } else { '\u{e8}' }).collect();
    std::fs::write(folder.path().join("x.txt"), format!("\u{feff}{text}")).unwrap();
    let file = |tokens: &str| {
        format!(
            "budget = '300 steps'\nthreads = 1\n[[dataset]]\npath = 'x.txt'\nformat = 'text'\ntokens = '{tokens}'\n\
             [[model]]\nname = 'unigram'\n[[optimizer]]\nname = 'sgd'\nlearning_rate = 1.0\nbatch_size = 64\n"
        )
    };
    for (tokens, rows, bits) in [("characters", [3200, 400, 400], 1.0), ("bytes", [6400, 800, 800], 2.0 * 1.5)] {
        let plan = plan(&file(tokens), folder.path()).unwrap();
        assert_eq!(plan.cells[0].dataset.rows, rows);
        let result = run(&plan.cells[0], &folder.path().join(tokens));
        // Bytes without what came before: half of them are the first of a character, half one of two.
        let found = result.test_bits_per_character.unwrap();
        assert!((found - bits).abs() < 0.12, "{tokens}: {found}");
        assert_eq!(result.test_fact_loss, None);
    }
    let message = plan(&file("words"), folder.path()).unwrap_err().to_string();
    assert!(message.contains("tokens") && message.contains("\"characters\" or \"bytes\""), "{message}");
}

#[test]
fn what_does_not_fit_is_said_before_anything_runs() {
    let folder = tempfile::tempdir().unwrap();
    let table = SMALL.replace("length = 60_000\nfacts = 20\nevaluation_tokens = 4000\n", "rows = 600\n");
    let plan_of = |text: &str| plan(text, folder.path());
    let on_table = plan_of(&table.replace("small-language", "higgs-sim")).unwrap();
    assert!(on_table.skipped.iter().any(|s| s.reason.contains("unigram takes a text")), "{:?}", on_table.skipped);
    let short = plan_of(&SMALL.replace("'unigram'", "'unigram'\ncontext = 5000")).unwrap_err().to_string();
    assert!(short.contains("the validation part has 3000 tokens") && short.contains("context = 5000"), "{short}");
    for (key, finding) in [
        ("rows = 5", "a text has no rows"),
        ("tokens = 'bytes'", "its tokens are words"),
        ("split = { fractions = { train = 0.8, validation = 0.1, test = 0.1, seed = 1 } }", "by position"),
        ("digits = 10", "digits = 10"),
    ] {
        let message = plan_of(&SMALL.replace("facts = 20", key)).unwrap_err().to_string();
        assert!(message.contains(finding) && message.contains("[[dataset]]"), "{key}: {message}");
    }
    let message = plan_of(&table.replace("small-language", "higgs-sim").replace("rows = 600", "length = 600"));
    assert!(message.unwrap_err().to_string().contains("`length` is given, and it is a table"));
}

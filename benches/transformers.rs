//! Seconds of gradients, Gauss-Newton products and AdamW steps of a small decoder at 16,384 tokens, dense and with 1 to 32 experts
//! in every second layer, beside PyTorch's in turns on the same cores.
//!
//! `cargo bench --bench transformers` measures this side alone; words choose cases (`-- switch gradient 8`). With `-- --python
//! PYTHON`, an interpreter that has torch, benches/transformers.py answers between our own measurements.

use parsimony::device::cpu::on_worker;
use parsimony::model::transformer::config::{Config, Switch};
use parsimony::model::transformer::{HeldRows, TokenParts, TokenRows, Transformer, presets};
use parsimony::optim::{self, minimize};
use parsimony::oracle::{Batch, Curvature, Gradient, Problem, Rows, SettingValue, Settings, Stream, Vector, stream};
use std::sync::Arc;
use std::time::Instant;

mod peer;
use peer::{Peer, median};

const EXPERTS: [usize; 7] = [0, 1, 2, 4, 8, 16, 32];
const WHATS: [&str; 3] = ["gradient", "product", "step"];
const SEQUENCES: usize = 128;
const CONTEXT: usize = 128;
/// Turns of each side, and calls of a turn.
const TURNS: usize = 3;
const CALLS: usize = 3;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let mut peer = peer::python().map(|python| Peer::start(&python, "transformers.py", None));
    let name = |experts: usize| if experts == 0 { "dense" } else { "switch" };
    let is_word =
        |word: &str, what: &str, experts: usize| word == what || word == name(experts) || word.parse() == Ok(experts);
    let known = |word: &String| WHATS.iter().any(|what| EXPERTS.iter().any(|&e| is_word(word, what, e)));
    let words: Vec<&String> = arguments.iter().filter(|word| known(word)).collect();
    println!("{} sequences of {CONTEXT} tokens", SEQUENCES);
    println!(
        "{:<8} {:>7} {:<9} {:>9} {:>12} {:>9} {:>9} {:>6}",
        "layers", "experts", "what", "ms", "tokens/s", "over 1", "torch ms", "ratio"
    );
    for what in WHATS {
        let mut one = f64::NAN;
        for experts in EXPERTS.into_iter().filter(|&e| words.iter().all(|word| is_word(word, what, e))) {
            let model = build(experts);
            let mut times = [Vec::new(), Vec::new()];
            for _ in 0..TURNS {
                times[0].push(on_worker(|| turn(&model, what)));
                if let Some(peer) = &mut peer {
                    times[1].push(peer.ask(&format!("{what} {experts} {SEQUENCES} {CONTEXT} {CALLS}")));
                }
            }
            let [ours, theirs] = times.map(median);
            if experts == 1 {
                one = ours;
            }
            println!(
                "{:<8} {experts:>7} {what:<9} {:>9.1} {:>12.0} {:>9.3} {:>9.1} {:>6.2}",
                name(experts),
                1e3 * ours,
                (SEQUENCES * CONTEXT) as f64 / ours,
                ours / one,
                1e3 * theirs,
                theirs / ours
            );
        }
    }
}

fn build(experts: usize) -> Transformer {
    let mini = presets::find("mini-switch").expect("a preset").config;
    let switch = mini.switch.filter(|_| experts > 0).map(|switch| Switch { experts, ..switch });
    let config = Config { vocabulary: 65, switch, ..mini };
    let symbol = |i: usize| ((i * 7919 + i / 3 * 104_729) % 65) as u32;
    let tokens = SEQUENCES * CONTEXT;
    let held = HeldRows {
        context: CONTEXT,
        tokens: (0..tokens).map(symbol).collect(),
        next: (1..=tokens).map(symbol).collect(),
    };
    let rows: Arc<dyn TokenRows> = Arc::new(held);
    let parts = TokenParts { train: rows.clone(), evaluation: [rows.clone(), rows.clone(), rows] };
    Transformer::new(config, CONTEXT, tokens, parts).expect("a Transformer")
}

/// Mean seconds of one call over a turn.
fn turn(model: &Transformer, what: &str) -> f64 {
    let at = model.initial(&mut stream(1, Stream::Initialization));
    let batch = Batch::new((0..SEQUENCES as u32).collect());
    let rows = Rows::Batch(&batch);
    let mut out = at.zeros_like();
    match what {
        "gradient" => time(|| {
            Gradient::value_and_gradient(model, &at, rows, &mut out).expect("a gradient");
        }),
        "product" => {
            let matrix = Curvature::curvature_at(model, &at, rows).expect("a matrix").value;
            let v =
                Vector::from_values(at.layout(), (0..at.len()).map(|i| (i as f64).sin()).collect()).expect("numbers");
            time(|| {
                matrix.multiply(&v, &mut out).expect("a product");
            })
        }
        _ => {
            let entry = optim::registry().into_iter().find(|entry| entry.name == "adamw").expect("an optimizer");
            let given = [("batch_size".to_owned(), SettingValue::Whole(SEQUENCES as i64))].into();
            let settings = Settings::check("bench", entry.settings, &given).expect("settings");
            let seconds = |steps| {
                let start = Instant::now();
                minimize(&entry, &settings, model, 1, steps).expect("steps");
                start.elapsed().as_secs_f64()
            };
            (seconds(1 + CALLS as u64) - seconds(1)) / CALLS as f64
        }
    }
}

fn time(mut call: impl FnMut()) -> f64 {
    call();
    let start = Instant::now();
    (0..CALLS).for_each(|_| call());
    start.elapsed().as_secs_f64() / CALLS as f64
}

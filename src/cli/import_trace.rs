//! `import-trace`: takes a trace that another program recorded into a run.

use super::output;
use crate::error::Result;
use crate::experiment::{Import, Status, import};
use crate::oracle::SettingValue;
use std::path::PathBuf;

const EXAMPLES: &str = "\
Examples:
  parsimony import-trace adam.csv --into runs/compare --optimizer \"Adam (PyTorch)\"
  parsimony import-trace lbfgs.parquet --into runs/higgs-logistic --optimizer scikit-learn --like 3f2a --set C=1.0

The file is Parquet or CSV, a row for each evaluation, with the columns of a trace (docs/file-formats.md): `train_seconds`
and at least one metric, such as `validation_accuracy` or `test_loss`; `step` and `data_passes` where they are known; with
`seed` or `fold` it may hold several fits. Its rows must be of the same data, split and model as the cell that it is like,
which this program cannot check. The same import again takes the place of the first. examples/pytorch records such a
file.";

/// Take a trace that another program recorded into a run, to stand in its figures
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// The trace: Parquet or CSV
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The folder of the experiment that was run
    #[arg(long, value_name = "RUN")]
    into: PathBuf,
    /// What reports call the optimizer
    #[arg(long, value_name = "LABEL")]
    optimizer: String,
    /// A setting of it, to tell one import from another; may be given several times
    #[arg(long = "set", value_name = "NAME=VALUE", value_parser = setting)]
    settings: Vec<(String, SettingValue)>,
    /// A cell with the same dataset and model, by its ID or the beginning of it [default: where all have one]
    #[arg(long, value_name = "CELL")]
    like: Option<String>,
    /// The seed, where the file has no such column
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The fold, where the file has no such column [default: that of the cell it is like]
    #[arg(long)]
    fold: Option<usize>,
    /// How the fit ended
    #[arg(long, value_enum, default_value = "finished")]
    status: Ended,
    /// Number of parameters [default: that of cells with the same model]
    #[arg(long)]
    parameters: Option<u64>,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Ended {
    /// To its end
    Finished,
    /// Out of seconds
    TimedOut,
    /// Its numbers left the finite ones
    Diverged,
}

fn setting(text: &str) -> std::result::Result<(String, SettingValue), String> {
    let Some((name, value)) = text.split_once('=').filter(|(name, _)| !name.trim().is_empty()) else {
        return Err("write NAME=VALUE, as lr=0.001".into());
    };
    let value = value.trim();
    let value = match (value.parse::<bool>(), value.parse::<i64>(), value.parse::<f64>()) {
        (Ok(switch), _, _) => SettingValue::Switch(switch),
        (_, Ok(whole), _) => SettingValue::Whole(whole),
        (_, _, Ok(real)) if real.is_finite() => SettingValue::Real(real),
        _ => SettingValue::Word(value.to_owned()),
    };
    Ok((name.trim().to_owned(), value))
}

pub fn run(arguments: &Arguments) -> Result<()> {
    let written = import(&Import {
        file: arguments.file.clone(),
        into: arguments.into.clone(),
        optimizer: arguments.optimizer.clone(),
        settings: arguments.settings.iter().cloned().collect(),
        like: arguments.like.clone(),
        seed: arguments.seed,
        fold: arguments.fold,
        status: match arguments.status {
            Ended::Finished => Status::Finished,
            Ended::TimedOut => Status::TimedOut,
            Ended::Diverged => Status::Diverged,
        },
        parameters: arguments.parameters,
    })?;
    output::text(&written.iter().map(|path| format!("{}\n", path.display())).collect::<String>())
}
